"""Numbers of an evaluation against enumeration, closed forms and known effects."""

import itertools

import numpy as np
import pandas as pd
import pytest

from franken.errors import FrankenError, UsageError
from franken.evaluate.arms import obstacle, parse_arms, prompt_for
from franken.evaluate.metrics import (
    GREEDY,
    compare_samples,
    metric_names,
    per_prompt,
    summarise,
)
from franken.tasks import Item


def table(
    scores: dict[tuple[str, str], list[float]], *, model="m", arm="image", greedy=None
) -> pd.DataFrame:
    """Samples rows from (task, sample) → scores of the draws."""
    rows = []
    for (task, sample), draws in scores.items():
        first = [(GREEDY, greedy[(task, sample)])] if greedy else []
        for draw, score in [*first, *enumerate(draws)]:
            rows.append(
                {
                    "model": model,
                    "method": arm,
                    "task": task,
                    "sample": sample,
                    "draw": draw,
                    "output": "x",
                    "answer": "1",
                    "gold": "1",
                    "score": score,
                    "well_formed": bool(score),
                    "strategy": f"s{draw % 2}",
                    "truncated": False,
                    "error": None,
                    "ineligible": None,
                }
            )
    return pd.DataFrame(rows)


def test_acc_at_k_equals_enumeration_over_subsets():
    draws = [1, 0, 0, 1, 0]
    samples = table({("t", "a"): draws})
    for k in (1, 2, 3, 5):
        subsets = list(itertools.combinations(draws, k))
        expected = np.mean([max(s) for s in subsets])
        assert per_prompt(samples, f"acc@{k}").iloc[0] == pytest.approx(expected)


def test_every_k_above_one_is_reported_beside_acc_at_1():
    shares = ["greedy", "format", "strategies", "truncated"]
    assert metric_names((1, 2, 4)) == ["acc@1", "acc@2", "acc@4", *shares]


def test_prompts_with_too_few_draws_leave_acc_at_k_but_not_acc_at_1():
    samples = table({("t", "a"): [1, 0, 1, 1], ("t", "b"): [1, 0]})
    assert list(per_prompt(samples, "acc@4").index) == [("t", "a")]
    assert per_prompt(samples, "acc@1").to_dict() == {("t", "a"): 0.75, ("t", "b"): 0.5}


def test_failed_and_ineligible_rows_do_not_count():
    samples = table({("t", "a"): [1, 1], ("t", "b"): [0, 0], ("t", "c"): [0, 0]})
    samples.loc[samples["sample"] == "b", "error"] = "broken"
    samples.loc[samples["sample"] == "c", "ineligible"] = "no description"
    assert per_prompt(samples, "acc@1").to_dict() == {("t", "a"): 1.0}


def test_strategies_are_distinct_ones_per_prompt():
    assert per_prompt(
        table({("t", "a"): [1, 1, 0, 0], ("t", "b"): [1]}), "strategies"
    ).tolist() == [2.0, 1.0]


def test_all_is_the_mean_of_tasks_and_an_empty_task_is_null():
    samples = table(
        {("t", "a"): [1, 1], ("t", "b"): [1, 1], ("u", "c"): [0, 0], ("v", "d"): [0, 0]}
    )
    samples.loc[samples["task"] == "v", "error"] = "broken"
    rows = pd.DataFrame(summarise(samples, k=(1, 2)))
    acc = rows[rows["metric"] == "acc@1"].set_index("task")
    assert acc.loc["all", "value"] == 0.5
    assert acc.loc["all", "n"] == 3
    assert np.isnan(acc.loc["v", "value"])
    assert acc.loc["v", "n"] == 0


def test_paired_comparison_finds_a_planted_effect_and_corrects_over_tasks():
    rng = np.random.default_rng(0)
    one, two = {}, {}
    for i in range(80):
        for task, gain in (("same", 0.0), ("better", 0.25)):
            p = rng.uniform(0.2, 0.7)
            one[(task, f"{task}{i}")] = rng.binomial(1, p, 4).tolist()
            two[(task, f"{task}{i}")] = rng.binomial(1, p + gain, 4).tolist()
    result = compare_samples(table(one), table(two)).set_index("task")
    assert result.loc["better", "p_adjusted"] < 0.01
    assert result.loc["same", "p_adjusted"] > 0.05
    assert result.loc["all", "diff"] == pytest.approx(result.loc[["same", "better"], "diff"].mean())
    assert result.loc["all", "ci_low"] < 0.125 < result.loc["all", "ci_high"]
    assert result.loc["all", "n"] == 160
    back = compare_samples(table(two), table(one)).set_index("task")
    assert back.loc["all", "diff"] == pytest.approx(-result.loc["all", "diff"])


def test_greedy_is_compared_by_the_exact_mcnemar_test():
    from scipy.stats import binomtest

    scores = {("t", str(i)): [0.0] for i in range(12)}
    a = table(scores, greedy={key: float(int(key[1]) < 2) for key in scores})
    b = table(scores, greedy={key: float(int(key[1]) >= 1) for key in scores})
    result = compare_samples(a, b, "greedy").set_index("task")
    assert result.loc["t", "p"] == pytest.approx(binomtest(1, 11, 0.5).pvalue)
    assert result.loc["t", "test"] == "exact McNemar"


def test_arms_of_one_run_can_be_compared():
    image = table({("t", str(i)): [1, 1] for i in range(12)})
    blind = table({("t", str(i)): [0, 0] for i in range(12)}, arm="blind")
    both = pd.concat([image, blind])
    result = compare_samples(both, both, arm_a="blind", arm_b="image").set_index("task")
    assert result.loc["t", "diff"] == 1
    assert result.loc["t", "p"] < 0.01


def test_runs_without_a_common_prompt_cannot_be_compared():
    with pytest.raises(FrankenError, match="share no prompt"):
        compare_samples(table({("t", "a"): [1]}), table({("t", "b"): [1]}))


def test_arms_are_parsed_in_a_fixed_order_and_checked():
    assert parse_arms("blind, image") == ("image", "blind")
    with pytest.raises(UsageError, match="unknown arm") as caught:
        parse_arms("images")
    assert "did you mean 'image'?" in caught.value.fix
    with pytest.raises(UsageError):
        parse_arms("")


def test_what_each_arm_shows():
    from PIL import Image

    item = Item("i", "count", "How many?", "1", Image.new("RGB", (4, 4)), "r1c1 red circle")
    image, text, blind = (prompt_for(item, arm) for arm in ("image", "text", "blind"))
    assert (len(image.images), len(text.images), len(blind.images)) == (1, 0, 0)
    assert text.text == "r1c1 red circle How many?"
    assert blind.text == image.text == "How many?"
    assert image.key == text.key == blind.key == "i"


def test_an_item_fails_only_where_what_is_broken_is_needed():
    broken = Item("i", "count", "How many?", "1", None, "", error="cannot be read")
    assert obstacle(broken, "image") == ("cannot be read", None)
    assert obstacle(broken, "text") == (None, "no description of the image")
    assert obstacle(broken, "blind") == (None, None)


def test_all_keeps_an_interval_when_every_prompt_fails():
    rows = pd.DataFrame(
        summarise(table({(t, f"{t}{i}"): [0, 0] for t in "tu" for i in range(20)}), k=(1,))
    )
    pooled = rows[(rows["metric"] == "acc@1") & (rows["task"] == "all")].iloc[0]
    assert pooled["value"] == pooled["ci_low"] == 0
    assert 0.05 < pooled["ci_high"] < 0.15
    varied = rows[(rows["metric"] == "strategies") & (rows["task"] == "all")].iloc[0]
    assert varied["value"] == 2
    assert np.isnan(varied["ci_low"])  # counts have no end: nothing bounds what was not seen


@pytest.mark.parametrize("metric", ["acc@1", "greedy"])
def test_differences_that_all_agree_have_an_interval_of_some_width(metric):
    same = table(
        {("t", str(i)): [1] for i in range(10)}, greedy={("t", str(i)): 1 for i in range(10)}
    )
    row = compare_samples(same, same, metric).iloc[0]
    assert row["diff"] == 0
    assert row["ci_low"] < -0.2 < 0.2 < row["ci_high"]


def test_all_tasks_count_the_same_in_a_comparison_and_in_its_test():
    """Three prompts of one task and two of another: by hand, over all signs of the five gaps."""
    before = {"t": [0.0, 0.5, 0.25], "u": [0.5, 0.0]}
    after = {"t": [0.5, 1.0, 0.0], "u": [1.0, 0.75]}

    def drawn(shares):
        return table(
            {
                (task, f"{task}{i}"): [float(j < 4 * share) for j in range(4)]
                for task in shares
                for i, share in enumerate(shares[task])
            }
        )

    row = compare_samples(drawn(before), drawn(after)).set_index("task").loc["all"]
    gaps = [(np.array(after[t]) - before[t]) / (2 * len(before[t])) for t in before]
    flat = np.concatenate(gaps)
    flipped = [abs(flat @ signs) for signs in itertools.product((-1, 1), repeat=5)]
    assert row["p"] == np.mean(np.array(flipped) >= abs(flat.sum()) - 1e-12)
    assert row["diff"] == pytest.approx(flat.sum())
    assert row["mean_a"] == pytest.approx((0.25 + 0.25) / 2)
    assert row["mean_b"] == pytest.approx((0.5 + 0.875) / 2)
    assert row["p_adjusted"] == row["p"]


def test_a_drawn_p_has_the_floor_of_ten_thousand_sign_patterns():
    one = {("t", str(i)): [0, 1] for i in range(30)}
    two = {("t", str(i)): [1, 1] for i in range(30)}
    assert compare_samples(table(one), table(two)).loc[0, "p"] == 1 / 10_001


def test_half_a_point_is_not_a_right_answer():
    assert per_prompt(table({("t", "a"): [0.5, 0.51]}), "acc@1").tolist() == [0.5]
