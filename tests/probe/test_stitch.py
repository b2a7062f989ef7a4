"""Stitched models: against models whose weights were spliced, by name; and where the result is
known: ends, one layer that differs, one basis turned.
"""

import pytest
import torch
from hand_built import hand_built, logits, seeing
from torch import nn

from franken.checkpoints import open_checkpoint
from franken.cli import run_command
from franken.errors import FrankenError, UsageError
from franken.generate import Prompt, Sampling, generate
from franken.merge.graft import graft
from franken.merge.plan import plan_layers
from franken.models.creature import build_tokenizer
from franken.models.hooks import keeping, returning
from franken.models.loading import load, wrap
from franken.models.tiny import TINY_FAMILIES, TINY_VISION, save_tiny, tiny
from franken.names import place
from franken.probe import controls, stitch
from franken.probe.across import Share
from franken.probe.cost import cost
from franken.probe.plan import plan_probe
from franken.probe.run import run_probe
from franken.probe.session import prompt_of
from franken.probe.stitch import Carry, Stitch, calibrate, fit_carry, run_of
from franken.runs import load_run

DEPTH = 8
SFT, BASE = "creature:sft", "creature:base"
SEAMS = [("text", 1), ("text", 2), ("vision", 1), ("vision", 2), ("projector", 0), ("projector", 1)]


def is_lower(name, model_type, part, below):
    """Whether a tensor is the lower model's: what is no layer goes with its neighbour."""
    spot = place(name, model_type)
    order = ["vision", "projector", "text"]
    if spot.part != part:
        follows = spot.layer is None and spot.component != "patch"  # the tower's last norm
        cut = (part, below) == ("projector", 0) and follows
        return order.index(spot.part) < order.index(part) and not cut
    if part == "projector":
        return bool(below) and spot.component != "embed"  # LLaVA's newline is the receiver's
    if spot.layer is not None:
        return spot.layer < below
    if part == "text":
        return spot.component == "embed"
    return spot.component == "patch"


def spliced(lower, upper, part, below):
    """A third model that holds the tensors of two."""
    kind = lower.config.model_type
    mixed = tiny(kind)
    state = {
        name: (lower if is_lower(name, kind, part, below) else upper).state_dict()[name]
        for name in lower.state_dict()
    }
    mixed.load_state_dict(state)
    return mixed


def pair_of(family):
    return [wrap(seeing(family, seed), None, build_tokenizer()) for seed in (0, 1)]


@torch.no_grad()
def said(loaded, batch):
    """The last token's logits alone: another kernel than for all tokens."""
    return loaded.model(**batch, use_cache=False, logits_to_keep=1).logits[0, -1]


@pytest.mark.parametrize("family", TINY_FAMILIES)
def test_a_stitched_model_is_one_whose_weights_are_spliced(family):
    lower, upper = pair_of(family)
    batch = hand_built(family).append([7, 8])
    runs = [run_of(loaded, batch) for loaded in (lower, upper)]
    ends = [said(loaded, batch) for loaded in (lower, upper)]
    for part, below in SEAMS if family in TINY_VISION else SEAMS[:2]:
        both = Stitch(lower, upper, part, below)
        mixed = wrap(spliced(lower.model, upper.model, part, below), None, lower.tokenizer)
        expected, found = said(mixed, batch), both.logits(batch, *runs)
        if (
            family.startswith("qwen3_vl") and part == "text"
        ):  # what deepstack adds is known by difference
            assert torch.allclose(found, expected, atol=1e-5)
        else:
            assert torch.equal(found, expected), (part, below)
        with both.running(runs[0].tower) as loaded:
            assert torch.equal(said(loaded, batch), expected), (part, below)
        assert all((found - end).abs().max() > 1e-3 for end in ends), (part, below)
    for part, below, end in (("text", 0, 1), ("text", 3, 0), ("vision", 0, 1)):
        whole = Stitch(lower, upper, part, below)
        assert torch.equal(whole.logits(batch, *runs), ends[end])
        assert torch.equal(ends[end], said((lower, upper)[end], batch))


@pytest.fixture(scope="module")
def grafted():
    """The SFT creature, and one that holds layer 5 of the Base beside it."""
    plain, changed = (load(SFT, device="cpu") for _ in range(2))
    plan = plan_layers(open_checkpoint(SFT), open_checkpoint(BASE), "5-6")
    with graft(changed.model, plan):
        yield plain, changed


def test_one_grafted_layer_is_a_step_bit_for_bit(grafted):
    plain, changed = grafted
    pair = plan_probe(SFT, task_names=["sum"], samples=1).pairs[0]
    words = [plain.tokenizer(f"<think> {x}", add_special_tokens=False) for x in ("rows", "scan")]
    prompt = prompt_of(pair.target)
    batch = stitch.encode_prompts(plain, [prompt]).append(words[0]["input_ids"][:1])
    runs = {id(each): run_of(each, batch) for each in grafted}
    share = Share.of(
        *(runs[id(each)].recording.logits for each in (changed, plain)), plain.banned_ids
    )

    def curve(lower, upper, seams):
        made = [Stitch(lower, upper, "text", seam) for seam in seams]
        rows = [s.logits(batch, runs[id(lower)], runs[id(upper)]) for s in made]
        return share.restored(torch.stack(rows))

    assert not share.agreed
    assert curve(changed, plain, range(DEPTH + 1)) == [0.0] * 6 + [1.0] * 3
    assert curve(plain, changed, range(DEPTH + 1)) == [1.0] * 6 + [0.0] * 3


def test_replies_are_those_of_spliced_weights(sft_creature):
    base, mixed = load(BASE, device="cpu"), load(SFT, device="cpu")
    pairs = plan_probe(SFT, task_names=["read", "sum"], samples=2).pairs
    prompts = [prompt_of(pair.target) for pair in pairs]
    digests = [controls.weights_digest(each) for each in (sft_creature, base)]
    made = [Stitch(sft_creature, base, *seam) for seam in (("text", 7), ("text", 8), ("vision", 1))]
    found = stitch.replies(sft_creature, made, prompts, 20)
    for both, replies in zip(made, found, strict=True):
        state = {
            name: (
                sft_creature if is_lower(name, "qwen2_5_vl", both.part, both.below) else base
            ).model.state_dict()[name]
            for name in mixed.model.state_dict()
        }
        mixed.model.lm_head.weight = nn.Parameter(state["lm_head.weight"].clone())  # untied
        if both.whole is not None:
            state = both.whole.model.state_dict()
        mixed.model.load_state_dict(state)
        greedy = Sampling(1, 0.0, 20)
        expected = [drawn[0].ids for drawn in generate(mixed, prompts, greedy)]
        assert [reply.ids for reply in replies] == expected
    assert [controls.weights_digest(each) for each in (sft_creature, base)] == digests
    assert controls.check_stitches(sft_creature, base, "text", prompts[:1], 20) == []
    assert controls.check_stitches(sft_creature, base, "vision", prompts[:1], 20) == []


def turned(model, seed=0):
    """The same text model in another basis: every write to the stream and every read is turned."""
    twin = tiny("qwen2")
    hidden = model.config.hidden_size
    q = torch.linalg.qr(torch.randn(hidden, hidden, generator=torch.Generator().manual_seed(seed)))[
        0
    ]
    state = dict(model.state_dict())
    for name, weight in state.items():
        if any(writer in name for writer in ("o_proj.weight", "down_proj.weight")):
            state[name] = q.mT @ weight
        elif "norm" not in name and weight.ndim == 2:
            state[name] = weight @ q
    twin.load_state_dict(state)
    return twin


@pytest.mark.parametrize("kind", ["affine", "rotation"])
def test_a_carry_undoes_a_turned_basis(kind, monkeypatch):
    model = tiny("qwen2")
    lower, upper = (wrap(each, None, build_tokenizer()) for each in (turned(model), model))
    batch = hand_built("qwen2").append([7, 8, 33, 12])
    whole = logits(model, batch)
    assert torch.allclose(logits(lower.model, batch), whole, atol=1e-4)
    runs = [run_of(loaded, batch) for loaded in (lower, upper)]
    bare = Stitch(lower, upper, "text", 2).logits(batch, *runs)
    assert (bare - whole).abs().max() > 0.1
    draws = torch.Generator().manual_seed(1)
    texts = [(Prompt("", ids=None), torch.randint(2, 80, (40,), generator=draws)) for _ in range(9)]
    monkeypatch.setattr(stitch, "encode_prompts", lambda *_: hand_built("qwen2"))
    monkeypatch.setattr(stitch, "RIDGE", 1e-9)
    carries = calibrate((lower, upper), [(p, ids.tolist()) for p, ids in texts], kind)
    for seam in (1, 2):
        carried = Stitch(lower, upper, "text", seam, carries.at(seam, back=False))
        assert torch.allclose(carried.logits(batch, *runs), whole, atol=2e-3)
        with carried.running([]) as loaded:
            assert torch.allclose(logits(loaded.model, batch), whole, atol=2e-3)
        back = Stitch(upper, lower, "text", seam, carries.at(seam, back=True))
        assert torch.allclose(back.logits(batch, *runs[::-1]), whole, atol=2e-3)
    assert torch.equal(logits(model, batch), whole)


def test_carries_are_the_maps_that_were_planted():
    draws = torch.Generator().manual_seed(0)
    x = torch.randn(500, 12, generator=draws, dtype=torch.float64)
    shift = torch.randn(12, generator=draws, dtype=torch.float64)
    weight = torch.randn(12, 12, generator=draws, dtype=torch.float64)
    found = fit_carry(x, x @ weight + shift, "affine")
    assert torch.allclose(found.weight, weight, atol=0.01)
    assert torch.allclose(found(x), x @ weight + shift, atol=0.05)
    q = torch.linalg.qr(weight)[0]
    found = fit_carry(x, x @ q + shift, "rotation")
    assert torch.allclose(found.weight, q, atol=1e-10)
    assert torch.allclose(found.bias, shift, atol=1e-10)
    few = x[:4]  # what they do not tell stays as it is
    unseen = torch.linalg.svd(few - few.mean(0))[2][-1]
    assert torch.allclose(unseen @ fit_carry(few, few @ weight, "affine").weight, unseen, atol=1e-9)
    assert torch.equal(Carry(torch.eye(12), torch.zeros(12))(x), x)


def test_what_was_kept_is_returned_once_and_modules_come_back():
    layer = nn.Linear(3, 3)
    x, y = torch.ones(1, 3), torch.zeros(1, 3)
    with keeping([layer]) as kept:
        said = layer(x), layer(y)
    assert [torch.equal(a, b) for a, b in zip(kept[0], said, strict=True)] == [True, True]
    with pytest.raises(FrankenError, match="more often"), returning({layer: kept[0]}):
        assert torch.equal(layer(y), said[0])
        assert torch.equal(layer(y), said[1])
        layer(y)
    assert torch.equal(layer(y), said[1])
    assert "forward" not in layer.__dict__
    layer.forward = lambda given: given + 1
    with returning({layer: kept[0]}):
        layer(y)
    assert torch.equal(layer(x), x + 1)


def test_the_models_come_back_after_an_exception():
    lower, upper = pair_of("qwen3_vl")
    batch = hand_built("qwen3_vl")
    before = [logits(loaded.model, batch) for loaded in (lower, upper)]
    tower = run_of(lower, batch).tower
    for part, below in SEAMS:
        made = Stitch(lower, upper, part, below, Carry(torch.eye(32), torch.ones(32)))
        with pytest.raises(RuntimeError, match="in the middle"), made.running(tower):
            raise RuntimeError("in the middle")
    for loaded, then in zip((lower, upper), before, strict=True):
        assert torch.equal(logits(loaded.model, batch), then)


def test_a_run_is_0_to_1_and_grades_what_is_said(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr("franken.probe.plan.CALIBRATION", 3)
    words = ["probe", SFT, "--against", BASE, "--method", "stitch-below,stitch-above:affine"]
    words += ["--tasks", "read", "--samples", "3", "--max-new-tokens", "24", "--device", "cpu"]
    assert run_command([*words, "--layers", "0,6,7", "--out", str(tmp_path)], debug=True) == 0
    assert "creature-sft against creature-base" in (printed := capsys.readouterr().out)
    (folder,) = (tmp_path / "probe").iterdir()
    run = load_run(folder)
    assert "stitch.png" in printed
    rows = run.samples.set_index(["method", "layer"]).sort_index()
    assert len(rows) == 2 * 3 * 3
    whole = rows.loc[("stitch-below", 7)], rows.loc[("stitch-above:affine", 0)]
    for one in whole:
        assert (one["restored"] == 1).all()
        assert (one["output"] == one["source_output"]).all()
        assert (one["score"] == 1).all()
        assert one["to_source"].all()
    assert (rows["baseline_score"] == 0).all()  # the Base does not know the form of a reply
    assert (rows.loc[("stitch-above:affine", 7), "restored"] < 1).all()
    table = run.layers.set_index(["method", "metric", "layer"])
    assert table.loc[("stitch-below", "gain", 7), "value"] == 1
    assert run.manifest.n_failed == 0


def test_one_model_twice_gains_nothing(tmp_path):
    plan = plan_probe(
        SFT, against=SFT, methods=["stitch"], task_names=["read"], samples=2, layers="3-5"
    )
    run = load_run(run_probe(plan, out=tmp_path, device="cpu"))
    assert run.samples["restored"].isna().all()
    assert (run.samples["output"] == run.samples["baseline"]).all()
    gain = run.layers[run.layers["metric"] == "gain"]
    assert (gain["value"] == 0).all()
    assert (gain["n"] == 2).all()


def test_the_tower_is_stitched_in_a_run(tmp_path):
    given = {"against": BASE, "methods": ["stitch"], "task_names": ["read"], "samples": 2}
    text = plan_probe(SFT, **given)
    plan = plan_probe(SFT, **given, part="vision", max_new_tokens=20)
    assert (plan.part, plan.layers) == ("vision", (0, 1))
    assert plan.identity["part"] == "vision"
    assert "part" not in text.identity
    run = load_run(run_probe(plan, out=tmp_path, device="cpu"))
    assert set(run.samples["part"]) == {"vision"}
    rows = run.samples.set_index(["method", "layer"]).sort_index()
    assert (rows.loc[("stitch-above", 0), "restored"] == 1).all()
    # SFT trained the decoder alone: the tower brings nothing back, and what is above it everything
    assert (rows.loc["stitch-below", "restored"] == 0).all()
    assert (rows.loc["stitch-above", "output"] == rows.loc["stitch-above", "source_output"]).all()


def test_what_cannot_be_stitched_is_refused(tmp_path):
    given = {"against": BASE, "task_names": ["read"], "samples": 1}
    with pytest.raises(UsageError, match="stitch-below:affine cannot probe vision"):
        plan_probe(SFT, methods=["stitch:affine"], part="vision", **given)
    with pytest.raises(UsageError, match="unknown carry 'procrustes'"):
        plan_probe(SFT, methods=["stitch:procrustes"], **given)
    with pytest.raises(UsageError, match="--part vision with text layers"):
        plan_probe(SFT, methods=["stitch"], part="vision", layers="text:0-2", **given)
    with pytest.raises(UsageError, match="lens cannot probe projector"):
        plan_probe(SFT, methods=["lens"], part="projector", task_names=["read"], samples=1)
    text = str(save_tiny(tmp_path / "text", "qwen2"))
    with pytest.raises(UsageError, match="no vision layers"):
        plan_probe(text, methods=["zero"], part="vision", task_names=["read"], samples=1)
    plan = plan_probe(SFT, methods=["stitch:rotation"], **given)
    assert plan.names == ("stitch-below:rotation", "stitch-above:rotation")
    assert len(plan.calibration) == 16


def test_forks_are_stitched_at_the_price_that_is_said():
    given = {"against": BASE, "task_names": ["read"], "samples": 4, "methods": ["stitch"]}
    plan = plan_probe(SFT, max_new_tokens=10, **given)
    told = cost(plan)
    above = 2 * sum(DEPTH - seam for seam in range(1, DEPTH))
    assert told["resumed_layers"] == 4 * above
    assert told["answers"] == 2 * 4 * DEPTH
    vision = cost(plan_probe(SFT, max_new_tokens=10, part="vision", **given))
    assert vision["resumed_layers"] == 0
