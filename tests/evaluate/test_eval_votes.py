"""acc@k, first@k and maj@k against enumeration, intervals against simulation, baselines against
hand counts.
"""

import itertools
from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from franken import stats
from franken.errors import UsageError
from franken.evaluate.metrics import baselines, per_prompt, spread


def rows(
    answers: Mapping[tuple[str, str], Sequence[str | None]], gold: str = "1", **more
) -> pd.DataFrame:
    return pd.DataFrame(
        [
            {
                "model": "m",
                "method": "image",
                "task": task,
                "sample": sample,
                "draw": draw,
                "answer": answer,
                "gold": gold,
                "score": float(answer == gold),
                "error": None,
                "ineligible": None,
                **more,
            }
            for (task, sample), given_answers in answers.items()
            for draw, answer in enumerate(given_answers)
        ]
    )


def enumerated_majority(answers: list[str | None], k: int) -> float:
    """Over all subsets of k draws: the share of the right answer ("1") among the most frequent
    ones.
    """
    won = []
    for chosen in itertools.combinations(answers, k):
        counts = {a: chosen.count(a) for a in chosen if a is not None}
        best = [a for a, c in counts.items() if c == max(counts.values())]
        won.append(("1" in best) / len(best) if best else 0.0)
    return float(np.mean(won))


@settings(max_examples=60, deadline=None)
@given(st.lists(st.sampled_from(["1", "2", "3", "4", None]), min_size=1, max_size=8), st.data())
def test_maj_at_k_equals_enumeration(answers, data):
    k = data.draw(st.integers(1, len(answers)))
    found = per_prompt(rows({("t", "a"): answers}), f"maj@{k}").iloc[0]
    assert found == pytest.approx(enumerated_majority(answers, k), abs=1e-12)


def test_maj_at_one_is_acc_at_one_and_stays_quick_for_many_draws():
    assert stats.maj_at_k(3, [4, 1], 2, 1) == pytest.approx(0.3)
    assert 0.9 < stats.maj_at_k(40, [8] * 11, 0, 64) <= 1
    with pytest.raises(ValueError, match="at least 3 draws"):
        stats.maj_at_k(1, [1], 0, 3)


def test_votes_ignore_case_and_closing_stops():
    samples = rows({("t", "a"): ["Red", "red.", "blue", "blue", "RED"]}, gold="blue")
    assert per_prompt(samples, "maj@5").iloc[0] == 0


def test_first_k_is_literal_and_acc_at_k_is_its_mean_over_orders():
    answers = ["2", "1", "2", "2", "1"]
    for k in (1, 2, 3):
        orders = list(itertools.permutations(answers))
        literal = [
            per_prompt(rows({("t", "a"): list(o)}), f"first@{k}").iloc[0] for o in orders[::5]
        ]
        assert per_prompt(rows({("t", "a"): answers}), f"first@{k}").iloc[0] == float(
            "1" in answers[:k]
        )
        everywhere = np.mean(["1" in o[:k] for o in orders])
        assert per_prompt(rows({("t", "a"): answers}), f"acc@{k}").iloc[0] == pytest.approx(
            everywhere
        )
        assert np.mean(literal) == pytest.approx(everywhere, abs=0.15)


def test_prompts_with_fewer_than_k_draws_leave_every_metric_at_k():
    samples = rows({("t", "a"): ["1", "2", "1"], ("t", "b"): ["1"]})
    for metric in ("acc@2", "first@2", "maj@2"):
        assert list(per_prompt(samples, metric).index) == [("t", "a")]
    with pytest.raises(UsageError, match="unknown metric"):
        per_prompt(samples, "acc@many")


def test_macro_and_micro_averages_differ_with_the_sizes_of_the_tasks():
    samples = rows({**{("big", f"b{i}"): ["1"] for i in range(9)}, ("small", "s"): ["2"]})
    found = spread(
        per_prompt(samples, "acc@1"), ["big", "small"], "acc@1", model="m", arm="image", pooled=True
    )
    value = {row["task"]: row["value"] for row in found}
    assert value == {"big": 1.0, "small": 0.0, "all": 0.5, "pooled": 0.9}
    assert {row["task"]: row["n"] for row in found} == {
        "big": 9,
        "small": 1,
        "all": 10,
        "pooled": 10,
    }


def test_intervals_over_prompts_cover_and_intervals_over_draws_would_not():
    """Prompts differ in difficulty: 8 draws of one prompt are one unit. Beta(0.5, 0.5) difficulties
    have mean 0.5.
    """
    rng = np.random.default_rng(0)
    clustered = naive = 0
    for _ in range(150):
        right = rng.binomial(8, rng.beta(0.5, 0.5, 40))
        _, low, high = stats.mean_rate(right / 8)
        clustered += low <= 0.5 <= high
        _, low, high = stats.rate(int(right.sum()), 320)
        naive += low <= 0.5 <= high
    assert 0.88 <= clustered / 150 <= 0.99
    assert naive / 150 < 0.75


def test_baselines_by_hand():
    samples = pd.concat(
        [
            rows({("t", "a"): ["1", "1"], ("t", "b"): ["1"], ("t", "c"): ["1"]}),
            rows({("t", "d"): ["1"]}, gold="2"),
            rows({("mcq", "e"): ["1"]}, gold="A", options='["w", "x", "y", "z"]'),
        ]
    )
    value = {(row["task"], row["metric"]): row["value"] for row in baselines(samples)}
    assert value["t", "chance"] == 0.5
    assert value["t", "best_constant"] == 0.75
    assert value["mcq", "chance"] == 0.25
    assert value["all", "chance"] == 0.375


def test_a_model_whose_prompts_all_failed_has_no_number():
    samples = rows({("t", "a"): ["1", "1"]}, error="broken")
    for metric in ("acc@1", "acc@2", "first@2", "maj@2"):
        assert len(per_prompt(samples, metric)) == 0
        found = spread(
            per_prompt(samples, metric), ["t"], metric, model="m", arm="image", pooled=True
        )
        assert [(row["value"], row["n"]) for row in found] == [(None, 0)] * 3


def test_one_prompt_has_no_interval_unless_it_is_all_or_nothing():
    samples = rows({("t", "a"): ["1", "2"], ("u", "b"): ["1", "1"], ("u", "c"): ["1", "2"]})
    found = {
        r["task"]: r
        for r in spread(per_prompt(samples, "acc@1"), ["t", "u"], "acc@1", model="m", arm="image")
    }
    assert (found["t"]["value"], found["t"]["ci_low"]) == (0.5, None)
    assert (found["all"]["value"], found["all"]["ci_low"]) == (0.625, None)
    assert found["u"]["ci_low"] < found["u"]["value"]
