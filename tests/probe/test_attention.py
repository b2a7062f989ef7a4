"""Attention rows against eager attention, for every family; and the model as it was afterwards."""

import math
from dataclasses import replace

import pytest
import torch
from hand_built import FAMILIES, hand_built, seeing

from franken.errors import FrankenError
from franken.generate import Prompt, Sampling, encode_prompts, generate
from franken.models.tiny import tiny, tiny_batch
from franken.models.tiny_configs import IMAGE
from franken.probe import attention
from franken.probe.attention import attention_mass, look_at_image
from franken.probe.plan import plan_probe
from franken.probe.run import run_probe
from franken.runs import load_run
from franken.tasks import get


@torch.no_grad()
def attention_rows(model, batch, rows):
    """What the hook sees: the weights `[heads, rows, tokens]` of these query tokens, a layer
    each.
    """
    seen = {}

    def keep(layer, weights):
        seen.setdefault(layer, []).append(weights)

    with attention._watch_rows(model.get_decoder(), rows, keep):
        model(**batch, use_cache=False, logits_to_keep=1)
    return [torch.cat(seen[layer], 1) for layer in sorted(seen)]


@torch.no_grad()
def eager(model, batch):
    model.set_attn_implementation("eager")
    return [a[0] for a in model(**batch, output_attentions=True, use_cache=False).attentions]


@pytest.mark.parametrize("family", [*FAMILIES, "qwen2"])
def test_rows_and_mass_are_those_of_eager_attention(family, monkeypatch):
    model = (tiny if family == "qwen2" else seeing)(family)
    batch = tiny_batch(model) if family == "qwen2" else hand_built(family)
    batch = batch.append([7, 8, 9, 10])
    tokens = batch.tokens
    columns = batch.input_ids[0] == (5 if family == "qwen2" else IMAGE)
    monkeypatch.setattr(attention, "CHUNK", 3)
    ours = attention_rows(model, batch, range(tokens))
    mass = attention_mass(model, batch, [tokens - 4, tokens - 2], columns)
    theirs = eager(model, batch)
    there = torch.tensor([family != "qwen3_5", family != "qwen3_5", True])  # linear attention
    assert torch.equal(there, ~mass.isnan().any(1))
    mass = mass[there]
    for a, b, share in zip(ours, theirs, mass, strict=True):
        assert torch.allclose(a, b, atol=1e-6)
        by_hand = b[:, [tokens - 4, tokens - 2]][..., columns].sum(-1).mean(-1)
        assert torch.allclose(share.float(), by_hand, atol=1e-6)
    assert float(mass.min()) > 0
    assert float(mass.max()) < 1


def test_image_tokens_of_gemma_see_each_other():
    rows = attention_rows(tiny("gemma3"), hand_built("gemma3"), [1])
    assert float(rows[0][:, 0, 2:5].min()) > 0
    rows = attention_rows(tiny("llava"), hand_built("llava"), [1])
    assert float(rows[0][:, 0, 2:5].max()) == 0


def test_padding_gets_no_attention():
    model = tiny("qwen2")
    batch = replace(tiny_batch(model), attention_mask=torch.tensor([[0, 1, 1, 1]]))
    rows = attention_rows(model, batch, [2, 3])
    assert float(rows[0][..., 0].max()) == 0
    assert torch.allclose(rows[1], eager(model, batch)[1][:, 2:], atol=1e-6)


def test_the_model_is_as_it_was_also_after_an_exception(sft_creature, monkeypatch):
    from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

    prompt = Prompt("What digit is r1c1?", (get("read").pairs(1, 0)[0].target.image,), "a")
    batch = encode_prompts(sft_creature, [prompt])
    with torch.no_grad():
        before = sft_creature.model(**batch).logits
    attention_rows(sft_creature.model, batch, [0])

    def fail(*_, **__):
        raise RuntimeError("in the middle")

    monkeypatch.setattr(attention, "_weights", fail)
    with pytest.raises(RuntimeError, match="in the middle"):
        attention_rows(sft_creature.model, batch, [0])
    assert sft_creature.model.get_decoder().config._attn_implementation == "sdpa"
    assert attention.NAME not in ALL_ATTENTION_FUNCTIONS
    with torch.no_grad():
        assert torch.equal(sft_creature.model(**batch).logits, before)


def test_positions_go_on_behind_the_prompt(sft_creature):
    """Teacher forcing the greedy reply gives the tokens that generation gave, which needs the right
    positions.
    """
    prompt = Prompt("What is r1c3 plus r2c1?", (get("sum").pairs(1, 0)[0].target.image,), "a")
    reply = generate(sft_creature, [prompt], Sampling(1, 0.0, 48))[0][0]
    batch, spans = attention.reasoning_batch(sft_creature, prompt, reply.ids)
    assert spans.answer.stop - spans.answer.start == len(reply.ids) - 1  # without its end
    with torch.no_grad():
        logits = sft_creature.model(**batch).logits[0, spans.answer.start - 1 :]
    assert logits.argmax(-1).tolist() == reply.ids


def test_what_cannot_be_measured_says_so(sft_creature):
    with pytest.raises(FrankenError, match="no attention") as caught:
        look_at_image(sft_creature, Prompt("Hello?", (), "a"), [7, 8])
    assert "no image" in caught.value.why
    with pytest.raises(FrankenError, match="no attention"):
        look_at_image(
            sft_creature, Prompt("?", (get("read").pairs(1, 0)[0].target.image,), "a"), []
        )


def test_attention_runs_and_both_normalisations_are_there(tmp_path):
    plan = plan_probe(
        "creature:sft", methods=["attention"], task_names=["read"], samples=6, layers="1-4"
    )
    run = load_run(run_probe(plan, out=tmp_path, device="cpu"))
    assert len(run.samples) == plan.n_requested == 6 * 3
    table = run.layers.set_index(["metric", "component", "layer"])["value"]
    vision = run.samples["n_vision"].unique()
    assert len(vision) == 1
    for layer in (1, 2, 3):
        assert table["attention_per_pair", "all", layer] == pytest.approx(
            table["attention_mass", "all", layer] / vision[0]
        )
        heads = [table[key] for key in table.index if key[1].startswith("head") and key[2] == layer]
        assert len(heads) == len(run.samples["head_mass"][0])
        assert math.fsum(heads) / len(heads) == pytest.approx(table["attention_mass", "all", layer])
    assert table["attention_mass", "all", 3] > 10 * table["attention_mass", "all", 1]
