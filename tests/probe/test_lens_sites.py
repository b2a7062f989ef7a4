"""The lens where the answer begins and at image tokens: both engines, against the model's own
answer and sums by hand.
"""

import math

import pandas as pd
import pytest
import torch
from hand_built import FAMILIES, hand_built, seeing

from franken.generate import Prompt, Sampling, encode_prompts, generate
from franken.models import creature
from franken.models.loading import load, wrap
from franken.probe import lens
from franken.probe.methods import get as method
from franken.probe.methods.lens import BRIDGED
from franken.probe.plan import plan_probe
from franken.probe.run import run_probe
from franken.runs import load_run
from franken.tasks import get

DEPTH = 8


def asked(name="sum"):
    return Prompt((item := get(name).pairs(1, 0)[0].target).question, (item.image,), item.id)


@pytest.mark.parametrize("family", BRIDGED)
def test_the_bridge_and_our_own_lens_agree_at_every_position(family):
    batch = hand_built(family)
    tokenizer = creature.build_processor().tokenizer
    bridge = lens.bridge_lens(wrap(seeing(family), None, tokenizer))
    positions = [
        batch.tokens - 1,
        *batch.is_image[0].nonzero()[:, 0].tolist(),
    ]
    theirs, ours = (
        lens.read(x, batch, positions, 7) for x in (bridge, lens.own_lens(seeing(family)))
    )
    assert torch.equal(theirs.rank_gold, ours.rank_gold)
    assert torch.equal(theirs.top, ours.top)
    assert torch.allclose(theirs.p_gold, ours.p_gold, atol=1e-5)
    assert torch.allclose(theirs.entropy, ours.entropy, atol=1e-4)


def test_they_agree_on_the_creature_and_end_in_its_answer(sft_creature):
    bridge = lens.bridge_lens(load("creature:sft", device="cpu"))
    reply = generate(sft_creature, [asked()], Sampling(1, 0.0, 40))[0][0]
    batch = lens.answer_batch(sft_creature, asked(), reply.ids)
    tokens = batch.tokens
    after_tag = reply.ids[tokens - encode_prompts(sft_creature, [asked()]).tokens]
    theirs, ours = (
        lens.read(x, batch, [tokens - 1], after_tag)
        for x in (bridge, lens.own_lens(sft_creature.model))
    )
    assert torch.allclose(theirs.p_gold, ours.p_gold, atol=1e-3)
    assert torch.allclose(theirs.entropy, ours.entropy, atol=1e-2)
    assert int(ours.top[-1, 0]) == int(theirs.top[-1, 0]) == after_tag
    assert int(ours.rank_gold[-1, 0]) == 1
    with torch.no_grad():
        p = sft_creature.model(**batch).logits[0, -1].softmax(-1)
    assert float(ours.p_gold[-1, 0]) == pytest.approx(float(p.max()), abs=1e-5)
    assert float(ours.entropy[-1, 0]) == pytest.approx(-math.fsum((p * p.log()).tolist()), abs=1e-4)


@pytest.mark.parametrize("family", FAMILIES)
def test_our_own_lens_ends_in_the_logits_of_every_family(family, monkeypatch):
    monkeypatch.setattr(lens, "CHUNK", 2)
    model, batch = seeing(family), hand_built(family)
    positions = list(range(batch.tokens))
    with torch.no_grad():
        logits = model(**batch).logits[0]
    found = lens.read(lens.own_lens(model), batch, positions, 7)
    assert found.p_gold.shape == (3, len(positions))
    order = logits.argsort(-1, descending=True)
    assert found.top[-1].tolist() == order[:, 0].tolist()
    assert found.rank_gold[-1].tolist() == ((order == 7).nonzero()[:, 1] + 1).tolist()
    assert torch.allclose(found.p_gold[-1], logits.softmax(-1)[:, 7], atol=1e-6)


def test_where_an_answer_begins(sft_creature):
    def ids(text):
        return sft_creature.tokenizer(text, add_special_tokens=False)["input_ids"]

    tagged = ids("<think> 3</think><answer> 3</answer>")
    count = lens.answer_start(sft_creature, tagged)
    assert tagged[count:] == ids("<answer> 3</answer>")[1:]
    assert lens.answer_start(sft_creature, ids("<think> 3")) == 0
    assert lens.answer_start(sft_creature, []) == 0


class Letters:
    """A tokenizer whose tags are several tokens, as in real models."""

    def decode(self, ids, skip_special_tokens):
        return "".join(map(chr, ids))


def test_a_tag_of_several_tokens_is_found(sft_creature):
    from dataclasses import replace

    letters = replace(sft_creature, tokenizer=Letters())
    for text, answer in (
        ("so <answer>42</answer>", "42"),
        (r"so \boxed{7} it is", "7"),
        (r"\boxed{1}<answer>2", "2"),
    ):
        assert text[lens.answer_start(letters, [*map(ord, text)]) :].startswith(answer)


def test_the_lens_runs_and_sharpens_with_depth(tmp_path):
    plan = plan_probe("creature:sft", methods=["lens"], task_names=["read"], samples=5)
    run = load_run(run_probe(plan, out=tmp_path, device="cpu"))
    table = run.layers.set_index(["metric", "component", "layer"])["value"]
    assert table["answer_is_first", "all", 7] > table["answer_is_first", "all", 0]
    assert table["answer_rank", "all", 7] == 1
    assert table["entropy", "all", 7] < table["entropy", "all", 0]
    assert table["answer_rank", "image", 0] >= 1
    assert set(run.samples["lens"]) == {"transformer-lens"}
    assert (run.samples["top_token"].str.len() > 0).all()


def test_the_summary_of_ranks_is_their_geometric_mean():
    blank = {
        "image_p_gold": None,
        "image_rank_gold": None,
        "image_entropy": None,
        "p_gold": 0.5,
        "entropy": 1.0,
    }
    blank |= {"layer": 0, "error": None, "ineligible": None}
    head = {"model": "m", "method": "lens", "part": "text", "task": "t"}
    samples = pd.DataFrame([blank | {"rank_gold": k} for k in (1, 4, 16)])
    rows = {(r["metric"], r["component"]): r for r in method("lens").summarise(samples, head)}
    assert rows["answer_rank", "all"]["value"] == pytest.approx(4)
    assert rows["answer_rank", "all"]["ci_low"] >= 1
    assert rows["answer_rank", "image"]["n"] == 0
    assert rows["answer_rank", "image"]["value"] is None
