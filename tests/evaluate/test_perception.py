"""The decomposition, error shares and levels on rows whose answers are known."""

import numpy as np
import pandas as pd
import pytest

from franken.evaluate.metrics import GREEDY, per_prompt
from franken.evaluate.perception import (
    DECOMPOSITION,
    decomposition,
    error_shares,
    facts_right,
    levels,
    misled,
)
from franken.evaluate.reading import KINDS

DRAWS = 8


def model(see: float, reason: float, guess: float, prompts: int, seed: int = 0) -> pd.DataFrame:
    """A model that sees the needed facts of a prompt or not, then answers rightly with `reason` or
    `guess`.
    """
    rng = np.random.default_rng(seed)
    rows = []
    for i in range(prompts):
        sees = rng.random() < see
        head = {
            "model": "m",
            "task": f"t{i % 2}",
            "sample": f"s{i}",
            "error": None,
            "ineligible": None,
            "answer": "x",
        }
        for draw in (GREEDY, *range(DRAWS)):
            right = rng.random() < (reason if sees else guess)
            kind = None if right else KINDS[1 + int(sees)]
            rows.append(
                {**head, "method": "image", "draw": draw, "score": float(right), "kind": kind}
            )
            share = 1.0 if sees else 0.5
            rows.append(
                {
                    **head,
                    "method": "describe",
                    "draw": draw,
                    "score": float(sees),
                    "facts_right": share,
                }
            )
    return pd.DataFrame(rows)


def test_the_decomposition_finds_what_was_planted_and_adds_up():
    samples = model(0.6, 0.9, 0.2, 400)
    found = decomposition(samples)
    means = [found[name].mean() for name in DECOMPOSITION]
    assert means == pytest.approx([0.6, 0.9, 0.2], abs=0.07)
    seen, given, otherwise = means
    total = per_prompt(samples[samples["method"] == "image"], "acc@1").mean()
    assert seen * given + (1 - seen) * otherwise == pytest.approx(total)
    assert facts_right(samples).mean() == pytest.approx(seen + (1 - seen) / 2)


def test_prompts_without_a_description_are_in_neither_condition():
    samples = model(0.5, 0.9, 0.2, 40)
    samples.loc[(samples["sample"] == "s3") & (samples["method"] == "describe"), "error"] = "broken"
    found = decomposition(samples)
    assert len(found[DECOMPOSITION[0]]) == 39
    assert len(found[DECOMPOSITION[1]]) + len(found[DECOMPOSITION[2]]) == 39
    assert decomposition(samples[samples["method"] == "image"]) == {}


def test_error_shares_and_accuracy_add_up_to_one():
    samples = model(0.5, 0.7, 0.1, 60)
    shares = error_shares(samples)
    total = sum(shares.values()) + per_prompt(samples[samples["method"] == "image"], "acc@1")
    assert total.tolist() == pytest.approx([1.0] * 60)
    assert shares[KINDS[1]].mean() > shares[KINDS[2]].mean() > 0
    assert shares[KINDS[0]].sum() == 0


def test_levels_split_by_training_and_rendering():
    samples = model(1, 1, 1, 20)
    restyled = samples[samples["method"] == "image"].assign(method="restyled", score=0.0)
    found = levels(pd.concat([samples, restyled]), ["t0"])
    assert {level: (v.mean(), len(v)) for level, v in found.items()} == {
        "new state": (1.0, 10),
        "new rendering": (0.0, 10),
        "new puzzle type": (1.0, 10),
    }
    assert list(levels(samples, ["t0", "t1"])) == ["new state"]


def test_misled_is_a_share_of_the_draws():
    samples = model(1, 1, 1, 2)
    samples = samples[samples["method"] == "image"].assign(method="conflict")
    samples["misled"] = (samples["draw"] % 2 == 0).astype(object)
    assert misled(samples, "conflict").tolist() == [0.5, 0.5]
