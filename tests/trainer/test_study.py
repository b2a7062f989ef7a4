"""The study: done once, resumed where it stopped, and summarised as its numbers say."""

import json
import math

import numpy as np
import pandas as pd
import pytest

from trainer import study
from trainer.recipe import load_recipe
from trainer.study import METRICS, Look, run_study, summarise

SHORT = ("stages.0.steps=2", "stages.0.prompts=2", "stages.0.group=6", "stages.0.max_new_tokens=16")
LOOK = Look(tasks=("sum",), every=1, items=3, draws=4, max_new_tokens=16)


def arms():
    return {name: load_recipe(f"creature-{name}", SHORT) for name in ("grpo", "mupo")}


def test_a_study_resumes_and_does_nothing_twice(tmp_path, monkeypatch):
    whole, updates = run_study(arms(), [0], tmp_path / "whole", LOOK)
    assert len(whole) == 2 * 3 * 3  # arms, looks (steps 0, 1 and 2), puzzles
    assert len(updates) == 4
    assert set(METRICS) <= set(whole.columns)
    honest, calls = study.look_at, []

    def stops(*args):
        calls.append(1)
        if len(calls) == 5:
            raise RuntimeError("power cut")
        return honest(*args)

    monkeypatch.setattr(study, "look_at", stops)
    with pytest.raises(RuntimeError):
        run_study(arms(), [0], tmp_path / "cut", LOOK)
    looks, _ = run_study(arms(), [0], tmp_path / "cut", LOOK)
    assert len(calls) == 7  # six looks in all, one of them asked for twice
    pd.testing.assert_frame_equal(looks, whole)
    run_study(arms(), [0], tmp_path / "cut", LOOK)
    assert len(calls) == 7
    start = whole[whole["step"] == 0]
    assert (
        start[start["arm"] == "grpo"]["right"].tolist()
        == start[start["arm"] == "mupo"]["right"].tolist()
    )


def test_the_summary_pairs_by_seed_and_puzzle():
    generator = np.random.default_rng(0)
    rows = []
    hard = generator.random(50)
    for seed in range(3):
        for arm, gain in (("a", 0.0), ("b", 0.1)):
            for item in range(50):
                value = hard[item] + gain + 0.01 * generator.random()
                rows.append(
                    {"arm": arm, "seed": seed, "step": 9, "task": "t", "item": f"{item:02}"}
                )
                rows[-1] |= dict.fromkeys(METRICS, value)
    looks = pd.DataFrame(rows)
    found = summarise(looks.sample(frac=1, random_state=0), ["a", "b"], baseline="a")
    b = found[(found["arm"] == "b") & (found["metric"] == "acc@1")].iloc[0]
    means = looks[looks["arm"] == "b"].groupby("seed")["acc@1"].mean()
    assert b["value"] == pytest.approx(means.mean())
    assert json.loads(b["by_seed"]) == pytest.approx(means.tolist(), abs=1e-4)
    assert b["minus_baseline"] == pytest.approx(0.1, abs=0.003)
    assert (
        0.09 < b["minus_low"] < b["minus_baseline"] < b["minus_high"] < 0.11
    )  # puzzles differ, the gain does not
    assert b["high"] - b["low"] > 0.1
    a = found[(found["arm"] == "a") & (found["metric"] == "acc@1")].iloc[0]
    assert a["minus_baseline"] == 0
    assert math.isnan(a["minus_low"])  # nothing differs, so nothing is known of the spread
