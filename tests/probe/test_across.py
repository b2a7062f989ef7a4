"""Patching across two models: against a hook loop on whole models, and where the result is known:
one model twice, one layer of the other, everything at the top.
"""

import json

import pytest
import torch
from hand_built import FAMILIES, by_hand, groups_of, hand_built, logits, seeing

from franken.checkpoints import open_checkpoint
from franken.cli import run_command
from franken.errors import FrankenError, UsageError
from franken.generate import Prompt, Response
from franken.merge.graft import graft
from franken.merge.plan import plan_layers
from franken.models.creature import build_tokenizer
from franken.models.loading import load, wrap
from franken.models.tiny import save_tiny
from franken.probe import controls, patch
from franken.probe.across import Share, across_effects, fork_of
from franken.probe.cost import cost
from franken.probe.groups import SITES
from franken.probe.patch import record
from franken.probe.plan import plan_probe
from franken.probe.run import run_probe
from franken.probe.session import prompt_of
from franken.runs import load_run

DEPTH = 8
SFT, BASE = "creature:sft", "creature:base"


def runs(models, batch, site):
    return [record(loaded.model, batch, site) for loaded in models]


def reply(loaded, text):
    ids = loaded.tokenizer(text, add_special_tokens=False)["input_ids"]
    return Response(text, ids, [], False)


def naive_share(donor, base, patched, banned):
    """1 − KL(donor ‖ patched) / KL(donor ‖ base), over the tokens that are not banned."""
    said = [t for t in range(len(donor)) if t not in banned]
    p, q, b = (x[said].double().softmax(0) for x in (donor, patched, base))
    return float(1 - (p * (p / q).log()).sum() / (p * (p / b).log()).sum())


@pytest.mark.parametrize("family", [*FAMILIES, "qwen2"])
@pytest.mark.parametrize("site", SITES)
def test_effects_equal_a_loop_of_hooks(family, site):
    models = [wrap(seeing(family, seed), None, build_tokenizer()) for seed in (0, 1)]
    batch = hand_built(family).append([7, 8])
    if (family, site) == ("qwen3_5", "heads"):
        with pytest.raises(UsageError, match="heads is not defined"):
            runs(models, batch, site)
        return
    groups, banned = groups_of(batch), set(models[0].banned_ids.tolist())
    for receiver, giver in (models, models[::-1]):
        base, donor = runs((receiver, giver), batch, site)
        found = across_effects(receiver, base, donor, groups, site=site, layers=[0, 2], rows=4)
        ends = logits(giver.model, batch), logits(receiver.model, batch)
        for layer, effects in zip([0, 2], found, strict=True):
            for name, head in list(effects)[:: 1 if site != "heads" else 3]:
                at = groups.get(name, torch.arange(batch.tokens))
                place = site, layer, at, head
                now = by_hand(receiver.model, batch, batch, *place, giver=giver.model)
                expected = naive_share(*ends, now, banned)
                assert effects[name, head] == pytest.approx(expected, abs=5e-4), (layer, name)


@pytest.fixture(scope="module")
def grafted():
    """The SFT creature, and one that holds layer 5 of the Base beside it."""
    plain, changed = (load(SFT, device="cpu") for _ in range(2))
    plan = plan_layers(open_checkpoint(SFT), open_checkpoint(BASE), "5-6")
    with graft(changed.model, plan):
        yield plain, changed


def test_one_grafted_layer_is_all_from_there_and_nothing_before(grafted):
    pair = plan_probe(SFT, task_names=["sum"], samples=1).pairs[0]
    replies = reply(grafted[0], "<think> rows"), reply(grafted[0], "<think> scan")
    fork = fork_of(grafted[0], prompt_of(pair.target), replies)
    for receiver, giver in (grafted, grafted[::-1]):
        base, donor = runs((receiver, giver), fork.batch, "residual")
        found = across_effects(
            receiver, base, donor, fork.groups, site="residual", layers=range(DEPTH)
        )
        whole = [effects["all", None] for effects in found]
        assert whole == pytest.approx([0] * 5 + [1] * 3, abs=1e-3)
        assert all(abs(e) < 1e-3 for effects in found[:5] for e in effects.values())
        assert found[7]["last", None] == pytest.approx(1, abs=1e-3)
        everything = [(torch.arange(fork.batch.tokens), None)]
        given = patch.patched_logits(receiver.model, base, donor, "residual", 7, everything)
        assert torch.allclose(given[0], donor.logits, atol=1e-4)  # the head is the same
        for site in ("attn", "mlp"):
            base, donor = runs((receiver, giver), fork.batch, site)
            found = across_effects(
                receiver, base, donor, fork.groups, site=site, layers=range(DEPTH)
            )
            assert [effects["all", None] for effects in found[:5]] == pytest.approx(
                [0] * 5, abs=1e-3
            )
            assert abs(found[5]["all", None]) > 0.01


def test_forks_are_where_replies_part_or_where_the_answer_begins(sft_creature):
    loaded = sft_creature
    one = reply(loaded, "<think> rows </think> <answer> 3")
    other = reply(loaded, "<think> cols </think>")
    at = next(i for i, (a, b) in enumerate(zip(one.ids, other.ids, strict=False)) if a != b)
    prompt = Prompt("What digit is r1c3?")
    start = fork_of(loaded, prompt, (reply(loaded, "3"), reply(loaded, "4"))).batch.tokens
    fork = fork_of(sft_creature, prompt, (one, other))
    assert fork.tokens == (one.ids[at], other.ids[at])
    assert fork.batch.tokens == start + at
    same = fork_of(sft_creature, prompt, (one, one))
    assert same.tokens is None
    said = sft_creature.tokenizer.decode(same.batch.input_ids[0, start:])
    assert said.replace(" ", "") == "<think>rows</think><answer>"


def test_the_share_is_the_formula_and_models_that_agree_have_none():
    donor, base, row = torch.randn(3, 20, generator=torch.Generator().manual_seed(0))
    banned = torch.tensor([3, 7])
    share = Share.of(donor, base, banned)
    found = share.restored(torch.stack([donor, base, row]))
    expected = naive_share(donor, base, row, {3, 7})
    assert found == pytest.approx([1, 0, expected], abs=1e-12)
    base[3] += 5  # what is never said says nothing
    assert Share.of(donor, base, banned).divergence == pytest.approx(share.divergence)
    with pytest.raises(FrankenError, match="agree"):
        Share.of(donor, donor + 1, banned).restored(row[None])


def test_a_run_against_itself_has_nothing_to_restore(tmp_path):
    plan = plan_probe(
        SFT, against=SFT, methods=["across"], task_names=["read"], samples=2, max_new_tokens=24
    )
    assert plan.names == ("across-residual", "across-residual-back")
    run = load_run(run_probe(plan, out=tmp_path, device="cpu"))
    assert len(run.samples) == plan.n_requested == 2 * 2 * DEPTH
    assert run.samples["ineligible"].str.contains("the two models agree: 0.0e").all()
    assert (run.samples["divergence"] == 0).all()
    assert (run.layers["n"] == 0).all()
    assert run.manifest.n_failed == 0


def test_a_run_by_the_command_line(tmp_path, capsys):
    names = ["across-residual", "across-residual-back", "across-heads"]
    words = ["probe", SFT, "--against", BASE, "--method", ",".join(names), "--tasks", "read"]
    words += ["--samples", "3", "--max-new-tokens", "30", "--device", "cpu", "--out", str(tmp_path)]
    words += ["--json", "--no-figures"]
    assert run_command(words, debug=True) == 0
    found = json.loads(capsys.readouterr().out)
    run = load_run(found["folder"])
    manifest = run.manifest
    assert manifest.models == {"model": "creature-sft", "against": "creature-base"}
    assert manifest.identity.against != manifest.identity.checkpoint
    assert len(run.samples) == 3 * 3 * DEPTH
    rows = run.samples.set_index(["method", "layer"]).sort_index()
    forward, back = (rows.loc[("across-residual" + way, 7)] for way in ("", "-back"))
    assert (forward["compared_at"] == "fork").all()
    assert (forward["own_token"] != forward["second_token"]).all()
    assert forward["baseline"].tolist() == back["source_output"].tolist()
    assert (forward["effect_all"] > 0.5).all()  # what is left is the head's
    assert forward["effect_last"].to_numpy() == pytest.approx(forward["effect_all"], abs=1e-4)
    assert [len(heads) for heads in rows.loc[("across-heads", 3), "heads_image"]] == [3] * 3
    given = {"methods": names, "task_names": ["read"], "samples": 3, "max_new_tokens": 30}
    again = plan_probe(SFT, against=BASE, **given)
    before = (run.folder / "run.json").stat().st_mtime_ns
    assert run_probe(again, out=tmp_path, device="cpu") == run.folder  # resumed: there
    assert (run.folder / "run.json").stat().st_mtime_ns == before


def test_models_that_cannot_be_compared_are_refused(tmp_path):
    with pytest.raises(UsageError, match="across-residual needs a second checkpoint"):
        plan_probe(SFT, methods=["across"])
    with pytest.raises(UsageError, match="--against without a method"):
        plan_probe(SFT, against=BASE)
    other = save_tiny(tmp_path / "other", "qwen3_vl")
    with pytest.raises(UsageError, match="not the same architecture") as raised:
        plan_probe(SFT, against=str(other), methods=["across"])
    assert raised.value.why == "they are qwen2_5_vl and qwen3_vl"
    small = save_tiny(tmp_path / "small", "qwen2_5_vl")
    with pytest.raises(UsageError, match="not the same architecture") as raised:
        plan_probe(SFT, against=str(small), methods=["across"])
    assert raised.value.why.startswith("projector.merger.ln_q.weight is (")


def test_both_models_are_paid_for_and_known():
    given = {"methods": ["across"], "task_names": ["read"], "samples": 2}
    two, one = plan_probe(SFT, against=BASE, **given), plan_probe(SFT, against=SFT, **given)
    assert two.identity != one.identity
    alone = cost(plan_probe(SFT, methods=["patch-residual"], task_names=["read"], samples=2))
    both = cost(two)
    added = two.checkpoint.nbytes / 2**20
    assert both["memory_mib"] == pytest.approx(alone["memory_mib"] + added, abs=1.1)
    assert both["forwards"] == 2 * 2 * two.max_new_tokens + 2 * 2  # replies, then a run of each
    assert both["resumed_layers"] == 2 * 2 * sum(DEPTH - layer - 1 for layer in range(DEPTH))


def test_controls_fail_where_a_model_is_not_itself(sft_creature, monkeypatch):
    base = load(BASE, device="cpu")
    prompts = [prompt_of(p.target) for p in plan_probe(SFT, task_names=["read"], samples=1).pairs]
    digests = [controls.weights_digest(each) for each in (sft_creature, base)]
    assert controls.check_across(sft_creature, base, prompts, list(SITES)) == []
    assert [controls.weights_digest(each) for each in (sft_creature, base)] == digests
    insert = patch._insert
    monkeypatch.setattr(
        patch, "_insert", lambda rows, donor, *rest: insert(rows, donor + 0.1, *rest)
    )
    failures = controls.check_across(sft_creature, base, prompts, ["attn"])
    assert any("own activations" in failure for failure in failures)


def test_models_are_as_they_were_also_after_an_exception(monkeypatch):
    models = [wrap(seeing("qwen3_vl", seed), None, build_tokenizer()) for seed in (0, 1)]
    batch = hand_built("qwen3_vl").append([7, 8])
    before = [logits(loaded.model, batch) for loaded in models]

    def fail(*_):
        raise RuntimeError("in the middle")

    monkeypatch.setattr(patch, "_insert", fail)
    for site in SITES:
        base, donor = runs(models, batch, site)
        with pytest.raises(RuntimeError, match="in the middle"):
            across_effects(models[0], base, donor, groups_of(batch), site=site, layers=[0])
    for loaded, logit in zip(models, before, strict=True):
        assert torch.equal(logits(loaded.model, batch), logit)
