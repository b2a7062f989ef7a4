"""Models side by side: against direct recounts of their rows, and a model against itself."""

import numpy as np
import pandas as pd
import pytest

from franken.errors import FrankenError
from franken.evaluate.compare import POINTS, Evaluated, compare_runs, correlations, solved_by_one
from franken.evaluate.measures import Measure
from franken.evaluate.run import run_eval
from franken.runs import load_run

ARMS = ("image", "text+plan", "conflict", "black", "restyled", "describe")
OPTIONS = {
    "tasks": ["read", "count"],
    "samples": 4,
    "n": 3,
    "k": (1, 2),
    "max_new_tokens": 12,
    "device": "cpu",
}


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    out = tmp_path_factory.mktemp("runs")
    return run_eval(
        ["creature:sft", "creature:sft"],
        labels=["a", "b"],
        arms=ARMS,
        out=out,
        **OPTIONS,
    )


@pytest.fixture(scope="module")
def compared(folders, tmp_path_factory):
    return load_run(
        compare_runs(folders, out=tmp_path_factory.mktemp("compared"), trained=["read"])
    )


def test_a_model_does_not_differ_from_itself(compared):
    same = compared.layers[compared.layers["model"] == "b - a"]
    assert len(same) > 100
    assert (same["value"] == 0).all()
    assert (same["p_adjusted"] == 1).all()
    solved = compared.layers[
        compared.layers["metric"].str.startswith("solved")
        & compared.layers["model"].isin(["a, not b", "b, not a"])
    ]
    assert (solved["value"] == 0).all()


def test_every_measure_has_its_rows_and_they_recount(compared, folders):
    rows = load_run(folders[0]).samples
    of_a = compared.layers[
        (compared.layers["model"] == "a") & (compared.layers["task"] == "pooled")
    ]
    found = of_a.set_index(["method", "metric"])["value"]
    drawn = rows[(rows["draw"] >= 0) & (rows["method"] == "image")]
    assert found["image", "acc@1"] == pytest.approx((drawn["score"] > 0.5).mean())
    assert found["image", "tokens"] == pytest.approx(drawn["tokens"].mean())
    assert found["image", "first@2"] == pytest.approx(
        (drawn[drawn["draw"] < 2].groupby("sample")["score"].max() > 0.5).mean()
    )
    errors = sum(v for (_, name), v in found.items() if str(name).startswith("error: "))
    assert errors + found["image", "acc@1"] == pytest.approx(1)
    assert {arm for arm, _ in found.index} >= {*ARMS, "greedy", "sampled"}
    assert {
        "diversity",
        "maj@2",
        "acc@3",
        "level: new state",
        "level: new puzzle type",
        "strategy look",
        "M_vis",
    } <= {m for _, m in found.index}
    assert (of_a["n"] > 0).all()


def test_points_and_values_are_kept_and_a_finished_comparison_is_not_repeated(
    compared, folders, monkeypatch
):
    points = pd.read_parquet(compared.folder / POINTS)
    assert len(points) == 2 * 2 * 4 * 3
    assert points[["x", "y"]].notna().all().all()
    assert compared.manifest.n_requested == len(compared.samples) == compared.manifest.n_ok
    monkeypatch.setattr("franken.evaluate.compare.summary", lambda *a, **k: pytest.fail("again"))
    assert (
        compare_runs(folders, out=compared.folder.parents[1], trained=["read"]) == compared.folder
    )


def test_two_runs_of_one_name_cannot_be_compared(folders, tmp_path):
    with pytest.raises(FrankenError, match="one name"):
        compare_runs([folders[0], folders[0]], out=tmp_path)


def answers(right: dict[str, list[int]]) -> pd.DataFrame:
    return pd.DataFrame(
        [
            {
                "method": "image",
                "task": "t",
                "sample": sample,
                "draw": draw,
                "score": float(r),
                "answer": "x",
                "error": None,
                "ineligible": None,
            }
            for sample, found in right.items()
            for draw, r in zip((-1, 0, 1), found, strict=True)
        ]
    )


def test_solved_by_one_by_hand():
    one = answers({"p": [1, 0, 0], "q": [0, 0, 1], "r": [1, 1, 1], "s": [0, 0, 0]})
    two = answers({"p": [0, 0, 1], "q": [0, 0, 0], "r": [0, 1, 0], "s": [0, 0, 0]})
    rows = solved_by_one("one", one, "two", two)
    value = {(r["model"], r["metric"]): r["value"] for r in rows if r["task"] == "pooled"}
    assert value == {
        ("one, not two", "solved greedily"): 0.5,
        ("two, not one", "solved greedily"): 0.0,
        ("one, not two", "solved in 2 draws"): 0.25,
        ("two, not one", "solved in 2 draws"): 0.25,
    }


def test_a_correlation_made_by_difficulty_alone_is_only_in_the_raw_version():
    rng = np.random.default_rng(0)
    index = pd.MultiIndex.from_arrays(
        [["t"] * 300, [f"s{i}" for i in range(300)]], names=["task", "sample"]
    )
    ease = rng.uniform(0, 1, 300)

    def made(noise: float) -> pd.Series:
        return pd.Series(ease + noise * rng.normal(size=300), index=index)

    evaluated = [
        Evaluated(
            name,
            pd.DataFrame(),
            {
                (m, "image"): Measure(m, "image", made(0.02 if m == "acc@1" else 0.3))
                for m in ("diversity", "acc@1", "acc@4")
            },
        )
        for name in ("one", "two")
    ]
    found = {(r["model"], r["metric"]): r for r in correlations(evaluated, [4])}
    raw = found["one", "Pearson diversity ~ acc@4"]
    given = found["one", "Pearson diversity ~ acc@4 | tasks and difficulty"]
    assert raw["ci_low"] > 0.3
    assert given["ci_low"] < 0 < given["ci_high"]
    assert ("all models", "Spearman diversity ~ acc@4 | models, tasks and difficulty") in found
