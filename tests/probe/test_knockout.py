"""Cut attention edges: against a loop with explicit masks, and where the result is known: no edge,
all edges from the image, the one cell that a question is about.
"""

import json

import numpy as np
import pytest
import torch
from hand_built import hand_built, seeing

from franken.cli import run_command
from franken.errors import FrankenError, UsageError
from franken.generate import encode_prompts
from franken.models.creature import build_tokenizer
from franken.models.loading import wrap
from franken.models.tiny import TINY_VISION, tiny, tiny_batch
from franken.probe import methods
from franken.probe.cost import cost
from franken.probe.knockout import (
    Cut,
    CutCache,
    Edges,
    cell_groups,
    cut_pass,
    cutting,
    edges_of,
    greedy_under,
    knocked_answers,
    prompt_groups,
    without_edges,
)
from franken.probe.plan import plan_probe
from franken.probe.run import run_probe
from franken.probe.session import prompt_of
from franken.runs import load_run

# Linear attention has no edges; the layers of Gemma 4 are refused by plans.
ATTENDING = [name for name in TINY_VISION if name not in ("qwen3_5", "gemma4")]


SFT = "creature:sft"
ALL = frozenset(range(3))


def loaded_of(family, attention="sdpa", window=None):
    model = (seeing if family in ATTENDING else tiny)(family)
    model.set_attn_implementation(attention)
    if window:
        decoder = model.get_decoder()
        for config in (decoder.config, *(layer.self_attn for layer in decoder.layers)):
            config.sliding_window = window
    return wrap(model, None, build_tokenizer())


def batch_of(loaded, seed=0):
    family = loaded.model.config.model_type
    batch = hand_built(family, seed) if family in ATTENDING else tiny_batch(loaded.model)
    return batch.append([7, 8, 9, 11])


def edges(loaded, batch, source, to):
    return edges_of(prompt_groups(loaded, batch), batch.tokens, source, to)


@torch.no_grad()
def by_hand(loaded, batch, cut):
    """Every layer's attention by the formula, from its own projections' output: the mask is what
    the model would use, and −∞ at every edge (i, j) of the cut, i ≠ j.
    """
    real = torch.nn.functional.scaled_dot_product_attention
    calls = iter(range(100))

    def attend(query, key, value, attn_mask=None, is_causal=False, scale=None, **_):
        layer = next(calls)
        key = key.repeat_interleave(query.shape[1] // key.shape[1], 1)
        value = value.repeat_interleave(query.shape[1] // value.shape[1], 1)
        scores = query @ key.mT * (scale or query.shape[-1] ** -0.5)
        tokens = scores.shape[-1]
        for i in range(tokens):
            for j in range(tokens):
                hidden = is_causal and j > i
                if attn_mask is not None:
                    hidden = not bool(attn_mask[0, 0, i, j])
                if layer in cut.layers and i != j and cut.edges.to[i] and cut.edges.source[j]:
                    hidden = True
                if hidden:
                    scores[:, :, i, j] = -torch.inf
        return scores.softmax(-1) @ value

    decoder = loaded.model.get_decoder()
    embedded = []
    handle = decoder.register_forward_pre_hook(
        lambda _, args, kwargs: embedded.append((args, kwargs)), with_kwargs=True
    )
    loaded.model(**batch, use_cache=False)  # the tower attends as ever
    handle.remove()
    args, kwargs = embedded[0]
    torch.nn.functional.scaled_dot_product_attention = attend
    try:
        hidden = decoder(*args, **{**kwargs, "use_cache": False, "past_key_values": None})[0]
    finally:
        torch.nn.functional.scaled_dot_product_attention = real
    return loaded.model.get_output_embeddings()(hidden[0, -1])


@pytest.mark.parametrize("family", [*ATTENDING, "qwen2", "qwen3"])
def test_cuts_equal_the_formula_on_every_family(family):
    loaded = loaded_of(family)
    batch = batch_of(loaded)
    if family in ATTENDING:
        wanted = [(["image"], ["question"]), (["question"], ["last"]), (["image"], ["all"])]
    else:
        wanted = [(["question"], ["last"]), (["all"], ["all"])]
    cuts = [Cut(edges(loaded, batch, *pair), frozenset(s)) for pair in wanted for s in ({1}, ALL)]
    together, _ = cut_pass(loaded, batch, [Cut(cuts[0].edges), *cuts], batch.tokens, keep=1)
    plain = loaded.model(**batch).logits[0, -1]
    assert torch.allclose(together[0, -1], plain, atol=1e-5)
    for cut, row in zip(cuts, together[1:], strict=True):
        expected = by_hand(loaded, batch, cut)
        assert torch.allclose(row[-1], expected, atol=1e-4)
        assert not torch.allclose(expected, plain, atol=1e-4)
        alone, _ = cut_pass(loaded, batch, [cut], batch.tokens, keep=1)
        assert torch.allclose(alone[0, -1], expected, atol=1e-4)


@pytest.mark.parametrize("attention", ["sdpa", "eager"])
@pytest.mark.parametrize("family", ATTENDING)
def test_cut_off_from_the_image_the_logits_do_not_depend_on_it(family, attention):
    loaded = loaded_of(family, attention)
    one, other = (batch_of(loaded, seed) for seed in (0, 1))

    def logits(batch, layers):
        cut = Cut(edges(loaded, batch, ["image"], ["others"]), layers)
        return cut_pass(loaded, batch, [cut], batch.tokens, keep=3)[0]

    assert torch.equal(logits(one, ALL), logits(other, ALL))
    assert not torch.equal(logits(one, frozenset({0, 1})), logits(other, frozenset({0, 1})))
    assert not torch.equal(logits(one, frozenset()), logits(other, frozenset()))


@pytest.mark.parametrize("attention", ["sdpa", "eager"])
def test_masks_of_sliding_windows_are_kept(attention):
    loaded = loaded_of("gemma3", attention, window=3)
    batch = batch_of(loaded)
    cut = Cut(edges(loaded, batch, ["question"], ["last"]), frozenset({0, 1}))
    row = cut_pass(loaded, batch, [cut], batch.tokens, keep=1)[0][0, -1]
    reference = loaded_of("gemma3", "sdpa", window=3)
    assert torch.allclose(row, by_hand(reference, batch, cut), atol=1e-4)
    whole = loaded_of("gemma3")
    assert not torch.allclose(row, by_hand(whole, batch, cut), atol=1e-4)  # the window matters


def test_no_cut_is_bit_identical_and_the_model_is_as_it_was(sft_creature):
    item = plan_probe(SFT, task_names=["sum"], samples=1).pairs[0].target
    batch = encode_prompts(sft_creature, [prompt_of(item)])
    groups = prompt_groups(sft_creature, batch)
    nothing = Cut(edges_of(groups, batch.tokens, ["image"], ["question"]))
    no_edge = Cut(Edges(*torch.zeros(2, batch.tokens, dtype=torch.bool)), frozenset(range(8)))
    with torch.no_grad():
        cache = CutCache([nothing], batch.tokens, 8, batch.input_ids.device)
        with cutting(sft_creature):
            one = sft_creature.model(**batch, past_key_values=cache, use_cache=True).logits
        assert torch.equal(one, sft_creature.model(**batch).logits)
    plain, same = (
        cut_pass(sft_creature, batch, [c], batch.tokens, 2)[0] for c in (nothing, no_edge)
    )
    assert torch.allclose(plain, same, atol=1e-5)
    for layer in sft_creature.family.decoder_layers(sft_creature.model):
        assert not layer.self_attn._forward_pre_hooks


def test_replies_and_scores_go_on_without_the_edges(sft_creature):
    """Decoding step by step under a cut says what running the whole row under it again says."""
    item = plan_probe(SFT, task_names=["sum"], samples=2).pairs[1].target
    batch = encode_prompts(sft_creature, [prompt_of(item)])
    wanted = [(["image"], ["last"]), (["question"], ["last"]), (["last"], ["last"])]
    cuts = [Cut(edges(sft_creature, batch, *pair), frozenset(range(8))) for pair in wanted]
    cuts.append(Cut(cuts[0].edges))
    said = greedy_under(sft_creature, batch, cuts, 24)
    assert len({tuple(r.ids) for r in said}) >= 3
    for cut, reply in zip(cuts, said, strict=True):
        longer = batch.append(reply.ids)
        logits, _ = cut_pass(sft_creature, longer, [cut_of(cut, longer)], longer.tokens, 25)
        logits[..., sft_creature.banned_ids] = -torch.inf
        assert logits[0, -len(reply.ids) - 1 : -1].argmax(-1).tolist() == reply.ids
    answers = knocked_answers(sft_creature, batch, cuts, item.answer, said[-1], max_new_tokens=24)
    assert answers[-1].reasoning_logp > max(a.reasoning_logp for a in answers[:-1])
    assert all(a.gold_logp <= 0 for a in answers)
    few = knocked_answers(
        sft_creature, batch, cuts, item.answer, said[-1], max_new_tokens=24, rows=2
    )
    assert [a.answer.ids for a in few] == [a.answer.ids for a in answers]
    assert [a.gold_logp for a in few] == pytest.approx([a.gold_logp for a in answers], abs=1e-4)


def cut_of(cut, longer):
    """The cut of a prompt as that of a longer row."""
    return Cut(Edges(*cut.edges.spread(longer.tokens)), cut.layers)


def test_groups_and_edges():
    groups = {
        "system": torch.tensor([0]),
        "image": torch.tensor([1, 2]),
        "question": torch.tensor([3]),
        "last": torch.tensor([4]),
    }
    found = edges_of(groups, 5, ["image"], ["others"])
    assert found.source.tolist() == [False, True, True, False, False]
    assert found.to.tolist() == [True, False, False, True, True]
    assert (found.later_source, found.later_to, found.first) == (False, True, 3)
    found = edges_of(groups, 5, ["others"], ["last"])
    assert found.source.tolist() == [True] * 4 + [False]
    assert (found.later_source, found.later_to) == (False, True)
    assert edges_of(groups, 5, ["image"], ["question"]).spread(7)[1].tolist()[5:] == [False] * 2
    assert edges_of(groups, 5, ["system"], ["image"]).first == 1
    with pytest.raises(FrankenError, match="cannot be cut"):
        without_edges(torch.ones(1, 4), torch.zeros(1, 4, 4, dtype=torch.bool))


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("block", "needs edges"),
        ("block:image", "no edges"),
        ("block:picture>last", "picture"),
        ("block:image>cells", "cells"),
        ("block-window:image>last", "no edges"),
        ("block:others>others", "others>others"),
    ],
)
def test_what_names_no_edges_is_refused(name, said):
    with pytest.raises(UsageError, match=said):
        methods.get(name)


def test_names_and_windows():
    def sets(name, layers=range(8), depth=8):
        return methods.get(name).sets(layers, depth)

    assert sets("block:image>last")[3] == frozenset({3, 4})  # a quarter of eight
    assert sets("block-window:3:image>last")[0] == frozenset({0, 1})
    assert sets("block-suffix:image>last")[6] == frozenset({6, 7})
    assert sets("block-prefix:image>last")[0] == frozenset()
    both = methods.get("block:image+question>last+others")
    assert (both.source, both.to) == (("image", "question"), ("last", "others"))


def test_layers_without_attention_are_refused(sft_creature, monkeypatch):
    item = plan_probe(SFT, task_names=["sum"], samples=1).pairs[0].target
    batch = encode_prompts(sft_creature, [prompt_of(item)])
    layer = sft_creature.family.decoder_layers(sft_creature.model)[2]
    attention = layer.self_attn
    monkeypatch.delitem(layer._modules, "self_attn")
    assert attention is not None
    cut = Cut(edges(sft_creature, batch, ["image"], ["last"]), frozenset({1, 2}))
    with pytest.raises(UsageError, match="layer 2") as caught:
        cut_pass(sft_creature, batch, [cut], batch.tokens, 1)
    assert "linear attention" in caught.value.why


def test_cells_are_where_the_pair_differs(sft_creature):
    pair = plan_probe(SFT, task_names=["read"], samples=3).pairs[2]
    batch = encode_prompts(sft_creature, [prompt_of(pair.target)])
    images = pair.target.image, pair.source.image
    found = cell_groups(sft_creature, batch, images, "a")
    image = prompt_groups(sft_creature, batch)["image"]
    row, column = int(pair.fact[1]) - 1, int(pair.fact[3]) - 1
    assert found["cells"].tolist() == [int(image[3 * row + column])]
    assert len(found["elsewhere"]) == 1
    assert not {*found["cells"].tolist()} & {*found["elsewhere"].tolist()}
    with pytest.raises(FrankenError, match="no cell"):
        cell_groups(sft_creature, batch, (images[0], images[0]), "a")


def test_a_run_by_the_command_line_hurts_only_where_the_question_looks(tmp_path, capsys):
    names = "block-suffix:cells>others,block-suffix:elsewhere>others,block:image>question"
    words = [
        "probe",
        SFT,
        "--method",
        names,
        "--tasks",
        "read",
        "--samples",
        "6",
        "--layers",
        "0,7",
    ]
    words += ["--max-new-tokens", "30", "--device", "cpu", "--out", str(tmp_path), "--json"]
    assert run_command([*words, "--dry-run"], debug=True) == 0
    assert json.loads(capsys.readouterr().out)["answers"] == 3 * 6 * 2
    assert run_command(words, debug=True) == 0
    folder = json.loads(capsys.readouterr().out)["folder"]
    run = load_run(folder)
    rows = run.layers.set_index(["method", "metric", "layer"])["value"]
    cells, others = "block-suffix:cells>others", "block-suffix:elsewhere>others"
    assert rows[cells, "accuracy_drop", 0] >= 0.7
    assert rows[others, "accuracy_drop", 0] <= 0.1
    assert rows[cells, "reasoning_logp_drop", 0] > 10 * abs(rows[others, "reasoning_logp_drop", 0])
    assert rows[cells, "accuracy_drop", 7] == 0
    assert np.isfinite(run.samples["gold_logp"]).all()
    assert (run.folder / "figures" / "knockout.png").exists()
    plan = plan_probe(SFT, methods=names.split(","), task_names=["read"], samples=6)
    assert 0 < cost(plan)["forwards"] < cost(plan)["forwards_naive"]


def test_questions_without_a_twin_have_no_cells(tmp_path):
    file = tmp_path / "sums.jsonl"
    file.write_text(json.dumps({"id": "a", "question": "1 plus 2?", "answer": "#### 3"}))
    names = ["block:cells>last", "block:question>last", "block:image>last"]
    plan = plan_probe(
        SFT, methods=names, data=f"gsm8k={file}#id=id", layers="7", samples=1, max_new_tokens=4
    )
    run = load_run(run_probe(plan, out=tmp_path, device="cpu"))
    assert run.samples["error"].str.contains("no image").all()
    plan = plan_probe(
        SFT, methods=names[:2], data=f"gsm8k={file}#id=id", layers="7", samples=1, max_new_tokens=4
    )
    rows = load_run(run_probe(plan, out=tmp_path, device="cpu")).samples.set_index("method")
    assert "no twin" in rows.loc[names[0], "ineligible"]
    assert rows.loc[names[1], "gold_logp"] < 0
