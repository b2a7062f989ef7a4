"""From graded samples to numbers: acc@1, acc@k, maj@k, greedy, format, strategies, baselines, and
paired comparisons.

Every number is first made per prompt, then averaged over prompts; prompts, not draws, are the unit
of every interval and of every test, because the draws of one prompt are not independent. `all` is
the macro average over tasks: the mean of the tasks' means; `pooled` is the micro average, over all
prompts. A prompt is right when its score exceeds one half. Intervals and tests: franken/stats.

acc@1 is the mean over the n draws at temperature 1; acc@k is the unbiased 1 - C(n-c, k)/C(n, k),
first@k the literal one: is one of the first k draws right? maj@k is how often the most frequent
answer of k draws is right. The MUPO paper (arXiv 2604.00479, §3.1) calls greedy accuracy acc@1 in
its tables: that is `greedy` here.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Sequence
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from franken import stats
from franken.errors import FrankenError, UsageError
from franken.runs import layer_row
from franken.stats import Estimate
from franken.tasks.grading import normalise

if TYPE_CHECKING:
    import pandas as pd

    from franken.runs import LayerRow

    PromptValues = dict[str, pd.Series]
    """A number for each prompt (task, sample) of one model, by what it measures."""

GREEDY = -1  # the value of `draw` that marks the greedy answer
ALL = "all"  # the macro average over tasks
POOLED = "pooled"  # the micro average, over prompts
BINARY = ("greedy",)  # one answer a prompt, so that McNemar's test is exact
COUNTS = ("strategies",)  # means of counts, not rates
SHARES = {"format": "well_formed", "truncated": "truncated"}  # metric: column of yes and no
RIGHT = 0.5  # a score above this is a right answer
BY_PROMPT = ["task", "sample"]


def metric_names(k: tuple[int, ...]) -> list[str]:
    """The metrics of a run, in the order they are reported."""
    return [
        "acc@1",
        *[f"acc@{j}" for j in k if j > 1],
        "greedy",
        "format",
        "strategies",
        "truncated",
    ]


def per_prompt(samples: pd.DataFrame, metric: str) -> pd.Series:
    """One value per prompt, indexed by (task, sample), from the rows of ONE model and ONE arm.

    Rows with an error or marked ineligible do not count. For acc@k prompts with fewer than k draws
    are left out; the caller sees it in n. Units: rates in [0, 1]; `strategies` is a count from 1 to
    n. Raises UsageError on an unknown metric.
    """
    import pandas as pd

    rows = samples[samples["error"].isna() & samples["ineligible"].isna()]
    greedy = rows["draw"] == GREEDY
    rows = rows[greedy if metric == "greedy" else ~greedy]
    prompts = [rows[column] for column in BY_PROMPT]
    if metric in ("acc@1", "greedy"):
        return (rows["score"] > RIGHT).groupby(prompts, sort=False).mean()
    if metric in SHARES:
        return rows[SHARES[metric]].astype(bool).groupby(prompts, sort=False).mean()
    if metric == "strategies":
        return rows["strategy"].groupby(prompts, sort=False).nunique().astype(float)
    kind, _, number = metric.partition("@")
    if kind not in ("acc", "first", "maj") or not number.isdigit():
        raise UsageError(
            f"unknown metric {metric!r}",
            fix="acc@k, first@k, maj@k, greedy, format, strategies, truncated",
        )
    k = int(number)
    if kind == "first":
        first = rows[rows["draw"] < k].groupby(BY_PROMPT, sort=False)["score"]
        return first.max()[first.size() == k].gt(RIGHT).astype(float).rename("score")
    draws: dict[tuple[str, str], list[tuple[str | None, bool]]] = {}
    for task, sample, answer, score in zip(
        rows["task"], rows["sample"], rows["answer"], rows["score"], strict=True
    ):
        draws.setdefault((task, sample), []).append((answer, score > RIGHT))
    values = {
        prompt: _at_k(kind, answers, k) for prompt, answers in draws.items() if len(answers) >= k
    }
    tasks, names = zip(*values, strict=True) if values else ((), ())
    index = pd.MultiIndex.from_arrays([list(tasks), list(names)], names=BY_PROMPT)
    return pd.Series(list(values.values()), index=index, dtype=float, name="score")


def _at_k(kind: str, answers: Sequence[tuple[str | None, bool]], k: int) -> float:
    """acc@k or maj@k of one prompt's draws: what each answered, and whether that was right."""
    right = sum(ok for _, ok in answers)
    if kind == "acc":
        return stats.acc_at_k(len(answers), right, k)
    wrong = [answer for answer, ok in answers if not ok]
    votes = Counter(normalise(answer) for answer in wrong if isinstance(answer, str))
    return stats.maj_at_k(right, list(votes.values()), len(wrong) - votes.total(), k)


def summarise(samples: pd.DataFrame, *, k: tuple[int, ...]) -> list[LayerRow]:
    """The rows of layers.parquet: one per model, arm, task (and `all`) and metric.

    A task without a single usable prompt has a null value and n 0, never 0.
    """
    rows: list[LayerRow] = []
    for names, part in samples.groupby(["model", "method"], sort=False):
        model, arm = map(str, names)
        tasks = list(dict.fromkeys(part["task"]))
        for metric in metric_names(k):
            rows += spread(per_prompt(part, metric), tasks, metric, model=model, arm=arm)
    return rows


def spread(
    values: pd.Series,
    tasks: Sequence[str],
    metric: str,
    *,
    model: str,
    arm: str,
    pooled: bool = False,
    counts: bool | None = None,
) -> list[LayerRow]:
    """Rows of layers.parquet from one value a prompt: one a task, then `all` (macro) and, if asked
    for, `pooled` (micro).

    `values` is indexed by (task, sample); missing values are left out and lower n. `counts`: values
    are no rates in [0, 1] (by default, of the metrics that are counts).
    """
    average = stats.mean if (metric in COUNTS if counts is None else counts) else stats.mean_rate
    groups = [_of_task(values, task) for task in tasks]
    n = sum(map(len, groups))
    rows = [
        estimate_row(model, arm, task, metric, average(group), len(group))
        for task, group in zip(tasks, groups, strict=True)
    ]
    rows.append(estimate_row(model, arm, ALL, metric, average(*groups), n))
    if pooled:
        flat = np.concatenate(groups) if groups else np.zeros(0)
        rows.append(estimate_row(model, arm, POOLED, metric, average(flat), n))
    return rows


def estimate_row(
    model: str,
    arm: str | None,
    task: str,
    metric: str,
    estimate: Estimate,
    n: int,
    *,
    part: str | None = None,
    layer: int | None = None,
    p: float | None = None,
) -> LayerRow:
    """A row of layers.parquet; what is nan in the estimate is null."""
    return layer_row(
        model=model,
        method=arm,
        part=part,
        layer=layer,
        task=task,
        metric=metric,
        n=int(n),
        p_adjusted=p,
        **estimate.columns(),
    )


def baselines(samples: pd.DataFrame) -> list[LayerRow]:
    """What needs no model, per task and for `all`: `chance` and `best_constant`, as rows of
    layers.parquet (model `baseline`).

    chance: one over the number of options, else over the number of different right answers in the
    task. best_constant: always the most frequent right answer of these very questions, so chosen in
    hindsight; the `majority` of `franken tasks baselines` is learnt from other questions.
    """
    prompts = samples.drop_duplicates(BY_PROMPT)
    tasks = list(dict.fromkeys(prompts["task"]))
    sizes = [int((prompts["task"] == task).sum()) for task in tasks]
    shares: dict[str, list[float]] = {"chance": [], "best_constant": []}
    for task in tasks:
        of_task = prompts[prompts["task"] == task]
        gold = of_task["gold"].dropna().map(normalise)
        listed = of_task["options"] if "options" in of_task else [None] * len(of_task)
        options = np.array([len(json.loads(o)) if isinstance(o, str) else 0 for o in listed])
        guess = np.where(options > 0, 1 / np.maximum(options, 1), 1 / max(gold.nunique(), 1))
        shares["chance"].append(float(guess.mean()))
        most = float(gold.value_counts(normalize=True).iloc[0]) if len(gold) else float("nan")
        shares["best_constant"].append(most)
    nan = float("nan")
    return [
        estimate_row("baseline", None, task, metric, Estimate(value, nan, nan), n)
        for metric, values in shares.items()
        for task, value, n in [
            *zip(tasks, values, sizes, strict=True),
            (ALL, float(np.mean(values)), len(prompts)),
        ]
    ]


def compare_samples(
    a: pd.DataFrame,
    b: pd.DataFrame,
    metric: str = "acc@1",
    *,
    arm_a: str = "image",
    arm_b: str = "image",
    seed: int = 0,
    n_perm: int = 10_000,
) -> pd.DataFrame:
    """Paired comparison b - a over the prompts that both answered, per task and for `all`: see
    `compare_values`.
    """
    left = per_prompt(a[a["method"] == arm_a], metric)
    right = per_prompt(b[b["method"] == arm_b], metric)
    return compare_values(left, right, metric, seed=seed, n_perm=n_perm)


class Comparison(NamedTuple):
    """A paired difference b - a: a row of `compare_values`."""

    task: str
    metric: str
    mean_a: float
    mean_b: float
    diff: float
    ci_low: float
    ci_high: float
    p: float
    p_adjusted: float
    n: int
    test: str


def compare_values(
    left: pd.Series,
    right: pd.Series,
    metric: str,
    *,
    counts: bool | None = None,
    seed: int = 0,
    n_perm: int = 10_000,
) -> pd.DataFrame:
    """Paired comparison right - left of two sets of values, one a prompt, indexed by (task,
    sample); nan is no value.

    A `Comparison` a row, a task each and `all`, in which every task counts the same. The test is
    the sign-flip permutation test over prompts; for one answer a prompt (`BINARY`) it is McNemar's
    exact test. p_adjusted is Holm over the tasks; `all` is one test by itself and keeps its p.
    `counts` as in `spread`. Raises FrankenError when no prompt has a value on both sides.
    """
    import pandas as pd

    both = pd.concat([left.rename("a"), right.rename("b")], axis=1, join="inner").dropna()
    if len(both) == 0:
        raise FrankenError(
            "the two runs share no prompt",
            f"{len(left)} prompts with {metric} on one side, {len(right)} on the other, none in "
            "common",
            "evaluate both models with the same tasks, samples and seed",
        )
    rates = not (metric in COUNTS if counts is None else counts)
    task_of = both.index.get_level_values("task")
    groups = {task: both[task_of == task].to_numpy(float) for task in dict.fromkeys(task_of)}
    rows = [_compared(task, metric, [g], rates, seed, n_perm) for task, g in groups.items()]
    adjusted = stats.holm([row.p for row in rows])
    rows = [row._replace(p_adjusted=p) for row, p in zip(rows, adjusted, strict=True)]
    rows.append(_compared(ALL, metric, list(groups.values()), rates, seed, n_perm))
    return pd.DataFrame(rows, columns=list(Comparison._fields))


def _compared(
    task: str, metric: str, groups: Sequence[np.ndarray], rates: bool, seed: int, n_perm: int
) -> Comparison:
    """The comparison over tables [prompts, 2] of both sides' values, a table a task."""
    n = sum(map(len, groups))
    if metric in BINARY:
        right = np.concatenate(groups) > RIGHT
        only = [int((right[:, i] & ~right[:, 1 - i]).sum()) for i in (0, 1)]
        p, test = stats.mcnemar_exact(*only), "exact McNemar"
    else:
        weighted = [(g[:, 1] - g[:, 0]) * (n / (len(groups) * len(g))) for g in groups]
        p = stats.sign_flip_test(np.concatenate(weighted), n_perm=n_perm, seed=seed)
        test = "sign-flip"
    sides = [group[:, i] for group in groups for i in (0, 1)]
    _, low, high = stats.difference(*sides, rates=rates)
    a, b = (float(np.mean([g[:, i].mean() for g in groups])) for i in (0, 1))
    return Comparison(task, metric, a, b, b - a, low, high, p, p, n, test)


def _of_task(values: pd.Series, task: str) -> np.ndarray:
    """The values of one task that are there."""
    if len(values) == 0:
        return np.zeros(0)
    own = values[values.index.get_level_values("task") == task].to_numpy(dtype=float)
    return own[~np.isnan(own)]
