"""M_vis, M_v2r and M_rea against a loop over prompts that follows the paper's words."""

import numpy as np
import pandas as pd
import pytest

from franken.errors import UsageError
from franken.evaluate.metrics import GREEDY
from franken.evaluate.mscores import ARMS, compare_m, m_rows, m_scores


def answers(
    seed: int, prompts: int = 30, arms=ARMS, draws=(GREEDY, 0, 1), shift: float = 0.0
) -> pd.DataFrame:
    rng = np.random.default_rng(seed)
    chance = {"image": 0.7, "black": 0.2, "black-text": 0.6, "text": 0.5}
    return pd.DataFrame(
        [
            {
                "model": "m",
                "method": arm,
                "task": f"t{i % 2}",
                "sample": f"s{i}",
                "draw": draw,
                "answer": "x",
                "score": float(rng.random() < chance[arm] + shift * (arm == "text")),
                "error": None,
                "ineligible": None,
            }
            for i in range(prompts)
            for arm in arms
            for draw in draws
        ]
    )


def counted(samples: pd.DataFrame, draw: int) -> dict[str, float]:
    right = {
        (r.sample, r.method): r.score == 1 for r in samples[samples["draw"] == draw].itertuples()
    }
    names = list(dict.fromkeys(samples["sample"]))
    return {
        "M_vis": float(np.mean([right[s, "image"] and not right[s, "black"] for s in names])),
        "M_v2r": float(np.mean([right[s, "image"] and right[s, "black-text"] for s in names])),
        "M_rea": float(np.mean([right[s, "text"] for s in names])),
    }


def test_scores_equal_the_counts_of_the_paper():
    samples = answers(0).sample(frac=1, random_state=1)
    greedy = {name: v.mean() for name, v in m_scores(samples).items()}
    assert greedy == pytest.approx(counted(samples, GREEDY))
    drawn = {name: v.mean() for name, v in m_scores(samples, greedy=False).items()}
    expected = {
        name: (counted(samples, 0)[name] + counted(samples, 1)[name]) / 2 for name in greedy
    }
    assert drawn == pytest.approx(expected)


def test_a_prompt_that_failed_in_an_arm_lowers_n_of_the_scores_that_need_it():
    samples = answers(0)
    samples.loc[(samples["sample"] == "s0") & (samples["method"] == "black"), "error"] = "broken"
    n = {r["metric"]: r["n"] for r in m_rows(samples, "m") if r["task"] == "all"}
    assert n == {"M_vis": 29, "M_v2r": 30, "M_rea": 30}
    assert m_rows(samples, "m")[0]["ci_low"] is not None


def test_scores_without_their_arms_are_left_out():
    assert set(m_scores(answers(0, arms=("image", "black")))) == {"M_vis"}
    with pytest.raises(UsageError, match="no M score"):
        m_scores(answers(0, arms=("image",)))


def test_paired_differences_find_what_was_planted_and_nothing_else():
    found = compare_m(answers(0, 200), answers(1, 200, shift=0.3))
    pooled = found[found["task"] == "all"].set_index("metric")
    assert list(pooled.index) == ["M_vis", "M_v2r", "M_rea"]
    assert pooled.loc["M_rea", "p"] < 0.001
    assert pooled.loc["M_rea", "diff"] == pytest.approx(0.3, abs=0.12)
    assert pooled.loc["M_vis", "p"] > 0.01
