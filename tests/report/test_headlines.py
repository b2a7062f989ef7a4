"""Verdicts follow from their stated tests."""

from itertools import combinations

import numpy as np
import pytest

from franken.report.evidence import Evidence, gather
from franken.report.headlines import all_headlines, reading_depths, what
from franken.report.record import read_study
from franken.report.verdicts import ABSENT, AGAINST, OPEN, SUPPORTED, p_text, permutation_p, points, subset_p


@pytest.fixture(scope="module")
def found(make_study, tmp_path_factory) -> Evidence:
    folder = make_study(tmp_path_factory.mktemp("headlines"), samples=40)
    return gather(folder, read_study(folder))


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
        "gain", "where", "what", "transfer", "necessary",
    ]  # fmt: skip


def test_a_stage_that_does_not_keep_the_format_is_named(found):
    runs = []
    for run in found.runs:
        layers = run.layers.copy()
        layers.loc[(layers["metric"] == "format") & (layers["model"] == "base"), "value"] = 0.02
        runs.append(type(run)(run.folder, run.manifest, run.samples, layers))
    facts = " ".join(all_headlines(Evidence(found.study, found.folder, runs))[0].facts)
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


def test_paired_tests_of_the_probe_stand_for_their_pairs_of_tasks(found):
    run = next(r for r in found.runs if r.manifest["verb"] == "probe" and (r.samples["model"] == "rl").all())
    depth = reading_depths(found, "rl")
    wide = {"tasks": ["recognise", "compare"], "difference": 3.0, "ci": [1, 5], "p": 0.4, "p_adjusted": 0.4, "n": 31}
    try:
        run.manifest["fall_tests"] = [wide]
        hidden = all_headlines(found)[1]
        run.manifest["fall_tests"] = [{**wide, "p": 1e-5}]
        shown = all_headlines(found)[1]
    finally:
        del run.manifest["fall_tests"]
    assert max(depth, key=lambda t: depth[t].mean()) == "compare"
    assert hidden.answer.split(", n")[0] == shown.answer.split(", n")[0]  # the widest gap is shown, whatever its p
    assert hidden.verdict != SUPPORTED
    assert "n = 31 images" in shown.test
    assert "answers to recognise" in shown.answer
    assert "answers to compare" in shown.answer
    assert shown.verdict == SUPPORTED


def test_the_exact_layer_permutation_equals_enumeration():
    values = np.array([1.0, 2.0, 5.0, 6.0, 9.0])
    seen = abs(values[:2].mean() - values[2:].mean())
    gaps = [abs(values[list(c)].mean() - np.delete(values, c).mean()) for c in combinations(range(5), 2)]
    assert subset_p(values, 2) == pytest.approx(np.mean(np.array(gaps) >= seen - 1e-12))
    drawn = subset_p(values, 2, n_perm=9)
    assert 0 < drawn <= 1


def test_two_sample_permutation_is_uniform_without_an_effect_and_small_with_one():
    rng = np.random.default_rng(0)
    null = [permutation_p(rng.normal(size=12), rng.normal(size=15), n_perm=400, seed=i) for i in range(120)]
    assert 0.01 <= np.mean(np.array(null) < 0.05) <= 0.12
    assert permutation_p(rng.normal(size=20), rng.normal(size=20) + 3) < 0.001


def test_what_is_missing_is_not_measured(found):
    empty = Evidence(found.study, found.folder, [])
    assert {h.verdict for h in all_headlines(empty)} == {ABSENT}


def test_an_update_that_is_larger_in_early_layers_speaks_against_the_claim(found):
    runs = []
    for run in found.runs:
        if run.manifest["verb"] == "diff":
            text = (run.layers["part"] == "text") & (run.layers["metric"] == "relative_energy")
            layers = run.layers.copy()
            layers.loc[text, "value"] = 1.0 / (1.0 + layers.loc[text, "layer"].astype(float))
            run = type(run)(run.folder, run.manifest, run.samples, layers)
        runs.append(run)
    assert what(Evidence(found.study, found.folder, runs)).verdict == AGAINST


def test_numbers_as_text():
    assert points(0.1024) == "+10.2"
    assert points(-0.05) == "\N{MINUS SIGN}5.0"
    assert p_text(0.0002).replace("\N{NO-BREAK SPACE}", " ") == "p < 0.001"
    assert p_text(0.034).replace("\N{NO-BREAK SPACE}", " ") == "p = 0.034"
