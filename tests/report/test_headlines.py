"""Verdicts follow from their stated tests."""

from copy import copy
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest

from franken.report import headlines, headlines_layer_sets
from franken.report.headlines import all_headlines, reading_depths, what, where
from franken.report.headlines_layer_sets import necessary, transfer
from franken.report.page.layer_sets import above_random
from franken.report.verdicts import (
    ABSENT,
    AGAINST,
    OPEN,
    SUPPORTED,
    above_half,
    interval,
    judged,
    p_text,
    paired,
    paired_gap,
    percent,
    points,
    side_of_half,
    values,
)
from franken.runs import RunSet, open_study
from franken.runs.manifest import FallTest


@pytest.fixture(scope="module")
def found(make_study, tmp_path_factory) -> RunSet:
    folder = make_study(tmp_path_factory.mktemp("headlines"), samples=40)
    return open_study(folder)


def test_planted_effects_are_found(found):
    gain, where, change, transfer, necessary = all_headlines(found)
    assert gain.verdict == SUPPORTED
    assert where.verdict == SUPPORTED
    assert change.verdict == SUPPORTED
    assert "recognise" in where.answer
    assert "compare" in where.answer
    assert "p\N{NO-BREAK SPACE}<\N{NO-BREAK SPACE}0.001" in gain.answer
    assert transfer.verdict in (SUPPORTED, OPEN)
    assert necessary.verdict in (SUPPORTED, OPEN, AGAINST)
    assert [h.key for h in (gain, where, change, transfer, necessary)] == [
        "gain",
        "where",
        "what",
        "transfer",
        "necessary",
    ]


def test_a_stage_that_does_not_keep_the_format_is_named(found):
    runs = []
    for run in found.runs:
        layers = run.layers.copy()
        layers.loc[(layers["metric"] == "format") & (layers["model"] == "base"), "value"] = 0.02
        runs.append(run.with_rows(layers=layers))
    facts = " ".join(all_headlines(replace(found, runs=runs))[0].facts)
    assert "Base keeps the answer format in 2.0\N{NO-BREAK SPACE}% of its replies" in facts
    assert "keeps the answer format" not in " ".join(all_headlines(found)[0].facts)


def test_models_are_called_by_the_labels_of_the_study(found):
    assert found.models("probe") == ["base", "sft", "rl"]


def test_reading_depth_counts_layers_of_pairs_that_follow_the_image(found):
    rows = found.samples("probe", "rl")
    part = rows[(rows["method"] == "swap-suffix") & (rows["task"] == "sum")]
    expected = []
    for _, one in part.groupby("sample"):
        changed = one.set_index("layer")["changed"].astype(bool)
        if changed[0]:
            expected.append(changed.sum())
    assert sorted(reading_depths(found, "rl")["sum"]) == sorted(expected)


@pytest.mark.parametrize(("pairs", "said"), [(5, True), (4, False)])
def test_depths_of_fewer_than_five_pairs_say_nothing(found, monkeypatch, pairs, said):
    few = np.arange(pairs, dtype=float)
    monkeypatch.setattr(headlines, "reading_depths", lambda *_: {"read": few, "sum": few + 2})
    assert (where(found).verdict != ABSENT) == said


def test_paired_tests_of_the_probe_stand_for_their_pairs_of_tasks(found):
    run = next(r for r in found.runs if r.verb == "probe" and (r.samples["model"] == "rl").all())
    depth = reading_depths(found, "rl")
    wide = {
        "tasks": ["recognise", "compare"],
        "difference": 3.0,
        "ci": [1, 5],
        "p": 0.4,
        "p_adjusted": 0.4,
        "n": 31,
    }
    try:
        run.manifest.fall_tests = [FallTest(**wide)]
        hidden = all_headlines(found)[1]
        run.manifest.fall_tests = [FallTest(**wide | {"p": 1e-5})]
        shown = all_headlines(found)[1]
    finally:
        run.manifest.fall_tests = []
    assert max(depth, key=lambda t: depth[t].mean()) == "compare"
    assert (
        hidden.answer.split(", n")[0] == shown.answer.split(", n")[0]
    )  # the widest gap is shown, whatever its p
    assert hidden.verdict != SUPPORTED
    assert "n = 31 images" in shown.test
    assert "3.0 layers (95 % 1.0 to 5.0) later" in shown.answer.replace(
        "\N{NO-BREAK SPACE}", " "
    )  # of the paired test
    assert "answers to recognise" in shown.answer
    assert "answers to compare" in shown.answer
    assert shown.verdict == SUPPORTED


def planted(found: RunSet, right: dict[str, float]) -> RunSet:
    """The study with given shares of right answers per model: the same for all prompts of an even
    number, 0 for others.
    """
    runs = []
    for run in found.runs:
        samples = run.samples
        if run.verb == "eval" and run.label in right:
            number = samples["sample"].str.rsplit("-", n=1).str[1].astype(int)
            share = number / (number.max() + 1) < right[run.label]
            samples = samples.assign(score=share.astype(float), error=None)
        runs.append(run.with_rows(samples=samples))
    return replace(found, runs=runs)


@pytest.mark.parametrize(
    ("share", "verdict"),
    [(0.8, SUPPORTED), (0.5, OPEN), (0.2, AGAINST)],
    ids=["all", "half", "none"],
)
def test_transfer_is_judged_against_half_of_the_gain_and_random_sets(found, share, verdict):
    """sft 0.2, rl 0.8, random sets 0.3: the middle and late layers carry all, half or nothing of
    the gain.
    """
    answered = {"sft": 0.2, "rl": 0.8, "SFT:RL:RL": share, "random-6a": 0.3}
    assert transfer(planted(found, answered)).verdict == verdict


@pytest.mark.parametrize(
    ("random", "sure"), [(0.3, ["SFT:RL:RL"]), (0.79, [])], ids=["far", "near"]
)
def test_a_hybrid_is_above_the_random_sets_only_by_a_test(found, random, sure):
    hybrids = [
        SimpleNamespace(label="SFT:RL:RL", layers=range(2, 8)),
        SimpleNamespace(label="RL:SFT:SFT", layers=[0, 1]),
    ]
    controls = [SimpleNamespace(label="random-6a", layers=range(6))]
    measured = planted(found, {"SFT:RL:RL": 0.81, "random-6a": random})
    row = paired(measured, "random-6a", "SFT:RL:RL")
    assert row is not None
    assert row["diff"] > 0
    assert above_random(measured, hybrids, controls) == sure


def test_without_random_sets_nothing_is_said_about_these_layers(found):
    planned = planted(found, {"sft": 0.2, "rl": 0.8, "SFT:RL:RL": 0.8})
    hybrids = {h: hybrid for h, hybrid in planned.study.hybrids.items() if not hybrid.control}
    planned.record = planned.study.model_copy(update={"hybrids": hybrids})
    said = transfer(planned)
    assert said.verdict == OPEN
    assert "No random layer set of this size was evaluated" in said.facts[-1]


@pytest.mark.parametrize(
    ("share", "verdict"),
    [(0.8, AGAINST), (0.5, OPEN), (0.2, SUPPORTED)],
    ids=["keeps", "half", "loses"],
)
def test_necessity_is_judged_against_half_of_the_gain(found, share, verdict):
    assert (
        necessary(planted(found, {"sft": 0.2, "rl": 0.8, "frozen-late": share})).verdict == verdict
    )


def test_an_interval_that_its_test_does_not_bear_out_decides_nothing(found, monkeypatch):
    """Three prompts that agree have a bootstrap interval of no width, and no test that could be
    significant.
    """
    narrow = {"diff": 0.3, "ci_low": 0.3, "ci_high": 0.3, "p": 0.25}
    monkeypatch.setattr(headlines_layer_sets, "above_half", lambda *_: narrow)
    all_kept = planted(
        found, {"sft": 0.2, "rl": 0.8, "SFT:RL:RL": 0.8, "random-6a": 0.3, "frozen-late": 0.8}
    )
    assert [transfer(all_kept).verdict, necessary(all_kept).verdict] == [OPEN, OPEN]
    narrow["p"] = 0.01
    assert [transfer(all_kept).verdict, necessary(all_kept).verdict] == [SUPPORTED, AGAINST]


def test_without_a_gain_nothing_transfers_and_nothing_is_lost(found):
    same = planted(found, {"sft": 0.5, "rl": 0.5, "SFT:RL:RL": 0.9, "frozen-late": 0.1})
    for said in (transfer(same), necessary(same)):
        assert said.verdict == OPEN
        assert "RL shows no gain over SFT here" in said.answer


def test_the_contrast_to_half_of_the_gain_is_the_mean_of_prompts(found):
    row = above_half(found, "frozen-late")
    parent, rl, own = (values(found, m) for m in ("sft", "rl", "frozen-late"))
    expected = (own - (parent + rl) / 2).dropna().groupby("task").mean().mean()
    assert row is not None
    assert row["diff"] == pytest.approx(expected)
    assert row["ci_low"] < expected < row["ci_high"]


def test_numbers_know_their_runs(found):
    said = all_headlines(found)[0].answer
    numbers = {p.text: p.runs for p in said.pieces if not isinstance(p, str)}
    share = next(t for t in numbers if t.endswith("%"))
    assert len(numbers[share]) == 1
    assert numbers[share][0].startswith("runs/eval/rl-")
    gain = next(t for t in numbers if "points" in t)
    assert [r.split("/")[-1].split("-")[0] for r in numbers[gain]] == ["sft", "rl"]


def test_what_is_missing_is_not_measured(found):
    empty = replace(found, runs=[])
    assert {h.verdict for h in all_headlines(empty)} == {ABSENT}


def test_a_hybrid_must_beat_every_random_set_of_its_size(found):
    """Above one of two random sets and level with the other: not these layers, or not shown."""
    hybrids = found.study.hybrids
    second = hybrids["random-6a"].model_copy(update={"layers": [0, 1, 3, 4, 5, 6]})
    study = found.study.model_copy(update={"hybrids": {**hybrids, "random-6b": second}})
    answered = {"sft": 0.2, "rl": 0.8, "SFT:RL:RL": 0.8, "random-6a": 0.3}
    measured = planted(found, answered)
    copy = next(r for r in measured.runs if r.manifest.label == "random-6a")

    def beside(share: float) -> RunSet:
        number = copy.samples["sample"].str.rsplit("-", n=1).str[1].astype(int)
        right = (number / (number.max() + 1) < share).astype(float)
        manifest = copy.manifest.model_copy(update={"label": "random-6b"})
        samples = copy.samples.assign(score=right, model="random-6b")
        other = type(copy)(copy.folder, manifest, samples, copy.layers)
        return replace(measured, record=study, runs=[*measured.runs, other])

    assert transfer(beside(0.3)).verdict == SUPPORTED
    assert transfer(beside(0.8)).verdict == OPEN


@pytest.mark.parametrize("component", ["attn", "mlp"])
def test_where_attention_and_mlp_disagree_nothing_is_said_of_the_layers(found, component):
    """The whole grows with depth; one of the two components shrinks."""

    def with_energy(shrinking: tuple[str, ...]) -> RunSet:
        runs = []
        for run in found.runs:
            if run.manifest.verb == "diff":
                layers = run.layers.copy()
                energy = (layers["part"] == "text") & (layers["metric"] == "relative_energy")
                depth = layers["layer"].astype(float)
                for name in ("all", "attn", "mlp"):
                    own = energy & (layers["component"] == name)
                    grows = np.where(depth < 2, 0.01, 1.0 + depth / 100)
                    layers.loc[own, "value"] = (1 / grows if name in shrinking else grows)[own]
                run = type(run)(run.folder, run.manifest, run.samples, layers)
            runs.append(run)
        return replace(found, runs=runs)

    assert what(with_energy(())).verdict == SUPPORTED
    assert what(with_energy((component,))).verdict == OPEN


def test_an_update_that_is_larger_in_early_layers_speaks_against_the_claim(found):
    runs = []
    for run in found.runs:
        if run.verb == "diff":
            text = (run.layers["part"] == "text") & (run.layers["metric"] == "relative_energy")
            layers = run.layers.copy()
            layers.loc[text, "value"] = 1.0 / (1.0 + layers.loc[text, "layer"].astype(float))
            run = run.with_rows(layers=layers)
        runs.append(run)
    assert what(replace(found, runs=runs)).verdict == AGAINST


def test_numbers_as_text():
    assert points(0.1024) == "+10.2"
    assert "(95" in interval({"diff": 0.1, "ci_low": 0.05, "ci_high": 0.15})
    unknown = {"diff": 0.5, "ci_low": float("nan"), "ci_high": float("nan")}
    assert interval(unknown) == "+50.0 points"
    assert points(-0.05) == "\N{MINUS SIGN}5.0"
    assert p_text(0.0002).replace("\N{NO-BREAK SPACE}", " ") == "p < 0.001"
    assert p_text(0.034).replace("\N{NO-BREAK SPACE}", " ") == "p = 0.034"
    assert p_text(0.25).replace("\N{NO-BREAK SPACE}", " ") == "p = 0.25"
    assert p_text(0.1).replace("\N{NO-BREAK SPACE}", " ") == "p = 0.10"
    assert p_text(0.001).replace("\N{NO-BREAK SPACE}", " ") == "p = 0.001"
    assert percent(0.726).replace("\N{NO-BREAK SPACE}", " ") == "72.6 %"
    assert points(-0.0001) == points(0.0001) == "0.0"


@pytest.mark.parametrize(
    ("p", "low", "high", "side"),
    [(0.01, 0.1, 0.3, 1), (0.01, -0.3, -0.1, -1), (0.01, -0.1, 0.3, 0), (0.05, 0.1, 0.3, 0)],
)
def test_a_side_of_half_needs_the_interval_and_the_test(p, low, high, side):
    assert side_of_half({"p": p, "ci_low": low, "ci_high": high}) == side
    for edge in ({"ci_low": 0.0, "ci_high": 0.3}, {"ci_low": -0.3, "ci_high": 0.0}):
        assert side_of_half({"p": 0.01, **edge}) == 0


def test_a_verdict_is_of_the_sign_below_five_percent():
    assert judged({"diff": 0.1}, 0.049) == SUPPORTED
    assert judged({"diff": -0.1}, 0.049) == AGAINST
    assert judged({"diff": 0.1}, 0.05) == judged({"diff": 0.1}, float("nan")) == OPEN


def test_a_gap_of_a_paired_test_is_turned_to_the_later_task():
    test = FallTest(tasks=("a", "b"), difference=2.0, ci=(1.0, 4.0), p=0.01, p_adjusted=0.01, n=9)
    assert paired_gap(test, "b") == (2.0, 1.0, 4.0)
    assert paired_gap(test, "a") == (-2.0, -4.0, -1.0)


def test_runs_of_other_puzzles_have_no_comparison(found):
    """Nothing is paired where no prompt is shared."""
    moved = copy(found)
    vars(moved).pop("_compared", None)

    def samples(verb, label):
        rows = found.samples(verb, label)
        return rows.assign(sample="other " + rows["sample"]) if label == "rl" else rows

    moved.samples = samples
    assert len(values(moved, "rl")) > 0
    assert paired(moved, "sft", "rl") is None
    assert paired(found, "sft", "rl") is not None


def test_a_missing_evaluation_has_no_values_and_no_comparison(found):
    assert len(values(found, "nobody")) == 0
    assert paired(found, "sft", "nobody") is None
    assert above_half(found, "nobody") is None
