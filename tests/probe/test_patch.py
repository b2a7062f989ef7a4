"""Patching against a hook loop on the whole model, and its ends: everything restores, nothing
changes nothing.
"""

import pandas as pd
import pytest
import torch
from hand_built import FAMILIES, by_hand, groups_of, hand_built, logits, seeing

from franken.errors import FrankenError, UsageError
from franken.models.tiny import tiny
from franken.models.tokens import TokenMap
from franken.probe import methods, patch
from franken.probe.groups import SITES
from franken.probe.patch import parting_of, patch_effects, token_groups
from franken.probe.plan import plan_probe
from franken.probe.run import run_probe
from franken.runs import load_run
from franken.stats import sign_flip_test

DEPTH = 8


def runs(family):
    return tuple(hand_built(family, seed).append([7, 8]) for seed in (0, 1))


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("site", SITES)
def test_effects_equal_a_loop_of_hooks(family, site):
    if (family, site) == ("qwen3_5", "heads"):
        with pytest.raises(UsageError, match="heads is not defined"):
            patch.record(tiny(family), hand_built(family), site)
        return
    model, (clean, corrupt) = seeing(family), runs(family)
    groups = groups_of(clean)
    parting = (
        int((logits(model, clean) - logits(model, corrupt)).argmax()),
        int((logits(model, corrupt) - logits(model, clean)).argmax()),
    )

    def difference(row):
        return float(row[parting[0]] - row[parting[1]])

    up, down = difference(logits(model, clean)), difference(logits(model, corrupt))
    for direction in ("denoising", "noising"):
        found, ends = patch_effects(
            model,
            clean,
            corrupt,
            parting,
            groups,
            site=site,
            layers=[0, 2],
            denoising=direction == "denoising",
            rows=3,
        )
        assert ends == pytest.approx((up, down), abs=1e-5)
        base, donor = (corrupt, clean) if direction == "denoising" else (clean, corrupt)
        for layer, effects in zip([0, 2], found, strict=True):
            for (name, head), effect in effects.items():
                at = groups.get(name, torch.arange(clean.tokens))
                now = difference(by_hand(model, base, donor, site, layer, at, head))
                expected = (
                    (now - down) / (up - down)
                    if direction == "denoising"
                    else (up - now) / (up - down)
                )
                assert effect == pytest.approx(expected, abs=2e-4), (layer, name, head)


@pytest.mark.parametrize("family", FAMILIES)
def test_everything_restores_and_nothing_changes_nothing(family):
    """The last residual stream is the answer; the first is too, unless the image enters later again
    (deepstack).
    """
    model, (clean, corrupt) = seeing(family), runs(family)
    groups = groups_of(clean) | {
        "nobody": torch.tensor([0])
    }  # the token before the image: the same in both runs
    gap = logits(model, clean) - logits(model, corrupt)
    parting = (int(gap.argmax()), int(gap.argmin()))
    for direction in ("denoising", "noising"):
        found, _ = patch_effects(
            model,
            clean,
            corrupt,
            parting,
            groups,
            site="residual",
            layers=[0, 1, 2],
            denoising=direction == "denoising",
        )
        whole = [effects["all", None] for effects in found]
        assert whole[2] == pytest.approx(1, abs=1e-4)
        if family != "qwen3_vl":
            assert whole == pytest.approx([1, 1, 1], abs=1e-4)
        else:
            assert abs(whole[0] - 1) > 1e-3
        assert [effects["nobody", None] for effects in found] == pytest.approx([0, 0, 0], abs=1e-4)
        assert found[2]["last", None] == pytest.approx(1, abs=1e-4)
        assert [found[2][name, None] for name in ("image", "question", "answer")] == pytest.approx(
            [0, 0, 0], abs=1e-4
        )


def test_every_token_is_in_one_group():
    spans = TokenMap(
        slice(0, 1), slice(1, 3), (slice(3, 5), slice(6, 8)), slice(8, 10), slice(10, 12)
    )
    groups = token_groups(spans, 12)
    assert {name: at.tolist() for name, at in groups.items()} == {
        "system": [1, 2],
        "image": [3, 4, 6, 7],
        "question": [5, 8, 9],
        "answer": [10],
        "last": [11],
    }
    without_reply = token_groups(
        TokenMap(slice(0, 0), slice(0, 2), (), slice(2, 5), slice(5, 5)), 5
    )
    assert without_reply["last"].tolist() == [4]
    assert without_reply["question"].tolist() == [2, 3]
    assert not len(without_reply["answer"])


def test_runs_that_cannot_be_compared_say_so():
    model, (clean, corrupt) = seeing("llava"), runs("llava")
    groups = groups_of(clean)
    with pytest.raises(FrankenError, match="different tokens"):
        patch_effects(model, clean, corrupt.append([7]), (1, 2), groups, site="mlp", layers=[0])
    with pytest.raises(FrankenError, match="not larger in the clean run"):
        patch_effects(model, clean, clean, (1, 2), groups, site="mlp", layers=[0])


def test_the_model_is_as_it_was_also_after_an_exception(monkeypatch):
    model, (clean, corrupt) = seeing("qwen3_vl"), runs("qwen3_vl")
    before = logits(model, clean)
    gap = before - logits(model, corrupt)
    parting = (int(gap.argmax()), int(gap.argmin()))

    def fail(*_):
        raise RuntimeError("in the middle")

    monkeypatch.setattr(patch, "_insert", fail)
    for site in SITES:
        with pytest.raises(RuntimeError, match="in the middle"):
            patch_effects(model, clean, corrupt, parting, groups_of(clean), site=site, layers=[0])
    assert torch.equal(logits(model, clean), before)


def test_replies_part_at_their_first_difference():
    assert parting_of([5, 6, 7, 1], [5, 6, 8, 1]) == ([5, 6], (7, 8))
    assert parting_of([5], [6]) == ([], (5, 6))
    assert parting_of([5, 6], [5, 6]) is None
    assert (
        parting_of([5, 6], [5, 6, 7]) is None
    )  # cut off by the limit: what would have come next is not known


def test_patching_runs_on_the_creature(tmp_path):
    plan = plan_probe(
        "creature:sft",
        methods=["patch", "patch-heads-noising"],
        task_names=["read"],
        samples=4,
        max_new_tokens=24,
    )
    assert plan.names == ("patch-residual", "patch-residual-noising", "patch-heads-noising")
    run = load_run(run_probe(plan, out=tmp_path, device="cpu"))
    assert len(run.samples) == plan.n_requested == 3 * 4 * DEPTH
    table = run.layers.set_index(["method", "metric", "component", "layer"])["value"]
    for method, metric in (("patch-residual", "restored"), ("patch-residual-noising", "lost")):
        assert [table[method, metric, "all", layer] for layer in range(DEPTH)] == pytest.approx(
            [1] * DEPTH, abs=1e-3
        )
        assert (
            table[method, metric, "image", 0] > 0.9
        )  # below every reading of it the image is all that matters
        assert table[method, metric, "image", DEPTH - 1] == pytest.approx(0, abs=1e-3)
        assert table[method, metric, "last", DEPTH - 1] == pytest.approx(1, abs=1e-3)
    assert ("patch-heads-noising", "lost", "image, head 1", 3) in table
    done = run.samples[run.samples["ineligible"].isna()]
    assert (done["clean_difference"] > done["corrupt_difference"]).all()


def test_the_summary_tests_effects_but_not_rounding():
    head = {"model": "m", "method": "patch-attn-noising", "part": "text", "task": "t"}
    blank = {f"effect_{group}": None for group in ("system", "question", "answer")}
    blank |= {"error": None, "ineligible": None}
    cell = [
        blank | {"effect_image": 0.4 + 0.01 * i, "effect_last": 3e-8, "effect_all": 1.0}
        for i in range(12)
    ]
    failed = [{"layer": 2, "error": "broken", "ineligible": None}]
    samples = pd.DataFrame([row | {"layer": i} for i in (0, 1) for row in cell] + failed)
    summary = methods.get("patch-attn-noising").summarise(samples, head)
    rows = {(r["component"], r["layer"]): r for r in summary}
    assert {r["metric"] for r in rows.values()} == {"lost"}
    assert rows["image", 0]["value"] == pytest.approx(0.455)
    one = sign_flip_test([0.4 + 0.01 * i for i in range(12)])
    assert rows["image", 0]["p_adjusted"] == pytest.approx(2 * one)  # two layers with data
    assert rows["last", 0]["p_adjusted"] == 1
    assert rows["answer", 1]["n"] == rows["image", 2]["n"] == 0


def test_pairs_that_cannot_part_are_accounted_for(tmp_path, monkeypatch):
    monkeypatch.setattr(patch, "parting_of", lambda *_: None)
    plan = plan_probe(
        "creature:sft",
        methods=["patch-mlp"],
        task_names=["read"],
        samples=2,
        layers="0-2",
        max_new_tokens=2,
    )
    run = load_run(run_probe(plan, out=tmp_path, device="cpu"))
    assert len(run.samples) == 4
    assert run.samples["ineligible"].str.contains("same reply").all()
    assert (run.layers["n"] == 0).all()
    assert run.manifest.n_failed == 0
