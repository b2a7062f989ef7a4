"""From graded samples to numbers: acc@1, acc@k, maj@k, greedy, format, strategies, baselines, and
paired comparisons.

Every number is first made per prompt, then averaged over prompts; prompts, not draws, are the unit
of every interval and of every test, because the draws of one prompt are not independent. `all` is
the macro average over tasks: the mean of the tasks' means, its interval from a bootstrap that
resamples prompts within each task; `pooled` is the micro average, over all prompts. A prompt is
right when its score exceeds one half.

acc@1 is the mean over the n draws at temperature 1; acc@k is the unbiased 1 - C(n-c, k)/C(n, k),
first@k the literal one: is one of the first k draws right? maj@k is how often the most frequent
answer of k draws is right. The MUPO paper (arXiv 2604.00479, §3.1) calls greedy accuracy acc@1 in
its tables: that is `greedy` here.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Collection, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from franken import stats
from franken.errors import FrankenError, UsageError
from franken.tasks.grading import normalise

Frame = (
    Any  # a pandas DataFrame or Series: pandas' own annotations are unions that no code can satisfy
)
GREEDY = -1  # the value of `draw` that marks the greedy answer
ALL = "all"  # the macro average over tasks
POOLED = "pooled"  # the micro average, over prompts
BINARY = ("greedy",)  # one answer a prompt, so that McNemar's test is exact
COUNTS = ("strategies",)  # means of counts, not rates: never a Wilson interval
RIGHT = 0.5  # a score above this is a right answer


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


def per_prompt(samples: Frame, metric: str) -> Frame:
    """One value per prompt, indexed by (task, sample), from the rows of ONE model and ONE arm.

    Rows with an error or marked ineligible do not count. For acc@k prompts with fewer than k draws
    are left out; the caller sees it in n. Units: rates in [0, 1]; `strategies` is a count from 1 to
    n. Raises UsageError on an unknown metric.
    """
    import pandas as pd

    rows = samples[samples["error"].isna() & samples["ineligible"].isna()]
    greedy = rows["draw"] == GREEDY
    rows = rows[greedy if metric == "greedy" else ~greedy]
    by = rows.groupby(["task", "sample"], sort=False)
    if metric in ("acc@1", "greedy"):
        return by["score"].apply(lambda s: float((s > RIGHT).mean()))
    if metric == "format":
        return by["well_formed"].apply(lambda s: float(s.astype(bool).mean()))
    if metric == "truncated":
        return by["truncated"].apply(lambda s: float(s.astype(bool).mean()))
    if metric == "strategies":
        return by["strategy"].nunique().astype(float)
    kind, _, number = metric.partition("@")
    if kind not in ("acc", "first", "maj") or not number.isdigit():
        raise UsageError(
            f"unknown metric {metric!r}",
            "",
            "acc@k, first@k, maj@k, greedy, format, strategies, truncated",
        )
    k = int(number)
    if kind == "first":
        first = rows[rows["draw"] < k].groupby(["task", "sample"], sort=False)["score"]
        return first.max()[first.size() == k].gt(RIGHT).astype(float).rename("score")
    draws: dict[tuple, list[tuple[str | None, bool]]] = {}
    for task, sample, answer, score in zip(
        rows["task"], rows["sample"], rows["answer"], rows["score"], strict=True
    ):
        draws.setdefault((task, sample), []).append((answer, score > RIGHT))
    found: dict[tuple, float] = {}
    for prompt, said in draws.items():
        if len(said) < k:
            continue
        right = sum(ok for _, ok in said)
        found[prompt] = (
            stats.acc_at_k(len(said), right, k)
            if kind == "acc"
            else stats.maj_at_k(right, *_wrong_votes(said), k)
        )
    return pd.Series(list(found.values()), index=_index(found), dtype=float, name="score")


def _index(prompts: Collection[tuple]) -> Any:
    import pandas as pd

    tasks, samples = zip(*prompts, strict=True) if prompts else ((), ())
    return pd.MultiIndex.from_arrays([list(tasks), list(samples)], names=["task", "sample"])


def _wrong_votes(draws: Sequence[tuple[str | None, bool]]) -> tuple[list[int], int]:
    """How many draws gave each wrong answer, and how many none."""
    wrong = [answer for answer, right in draws if not right]
    said = Counter(normalise(answer) for answer in wrong if isinstance(answer, str))
    return list(said.values()), len(wrong) - said.total()


def mean_interval(values: np.ndarray, *, seed: int = 0) -> tuple[float, float, float]:
    """Mean and 95 % interval over prompts: Wilson when every value is 0 or 1, else a bootstrap.

    Wilson keeps an interval of some width when all values agree, where the bootstrap collapses.
    """
    values = np.asarray(values, dtype=float)
    if values.size == 0:
        return float("nan"), float("nan"), float("nan")
    if np.isin(values, (0.0, 1.0)).all():
        low, high = stats.wilson(int(values.sum()), int(values.size))
        return float(values.mean()), low, high
    mean, low, high = stats.bootstrap_mean(values.tolist(), seed=seed)
    return float(mean), float(low), float(high)


def macro_interval(
    groups: list[np.ndarray], *, n_boot: int = 2000, seed: int = 0
) -> tuple[float, float, float]:
    """Mean of the groups' means with a 95 % percentile interval; units are resampled within each
    group.
    """
    groups = [np.asarray(g, dtype=float) for g in groups if len(g)]
    if not groups:
        return float("nan"), float("nan"), float("nan")
    rng = np.random.default_rng(seed)
    draws = np.zeros(n_boot)
    for g in groups:
        draws += g[rng.integers(0, g.size, (n_boot, g.size))].mean(axis=1)
    low, high = np.quantile(draws / len(groups), [0.025, 0.975])
    return float(np.mean([g.mean() for g in groups])), float(low), float(high)


def summarise(samples: Frame, *, k: tuple[int, ...], seed: int = 0) -> list[dict]:
    """The rows of layers.parquet: one per model, arm, task (and `all`) and metric.

    A task without a single usable prompt has a null value and n 0, never 0.
    """
    rows: list[dict] = []
    for (model, arm), part in samples.groupby(["model", "method"], sort=False):
        tasks = list(dict.fromkeys(part["task"]))
        for metric in metric_names(k):
            rows += spread(per_prompt(part, metric), tasks, metric, model=model, arm=arm, seed=seed)
    return rows


def spread(
    values: Frame,
    tasks: Sequence[str],
    metric: str,
    *,
    model: str,
    arm: str,
    seed: int = 0,
    pooled: bool = False,
    counts: bool | None = None,
) -> list[dict]:
    """One row of layers.parquet a task, then `all` (macro) and, if asked for, `pooled` (micro),
    from one value a prompt.

    `values` is indexed by (task, sample); missing values are left out and lower n. `counts`: not a
    rate, so never a
    Wilson interval (by default, of the metrics that are counts).
    """
    head = {"model": model, "method": arm, "part": None, "layer": None, "component": ALL}
    counts = metric in COUNTS if counts is None else counts
    groups = [_of_task(values, t) for t in tasks]

    def interval(found: np.ndarray) -> Sequence[float]:
        if len(found) == 1 and (counts or found[0] not in (0.0, 1.0)):
            return (
                found[0],
                float("nan"),
                float("nan"),
            )  # one prompt says nothing about the spread over prompts
        return stats.bootstrap_mean(found, seed=seed) if counts else mean_interval(found, seed=seed)

    rows = [
        {**head, **_row(t, metric, interval(g), len(g))} for t, g in zip(tasks, groups, strict=True)
    ]
    flat = np.concatenate(groups) if groups else np.zeros(0)
    alike = len(flat) > 0 and not counts and (flat == flat[0]).all()
    macro = mean_interval(flat) if alike else macro_interval(groups, seed=seed)
    if not alike and any(len(g) == 1 for g in groups):
        macro = macro[0], float("nan"), float("nan")
    rows.append({**head, **_row(ALL, metric, macro, len(flat))})
    if pooled:
        rows.append({**head, **_row(POOLED, metric, interval(flat), len(flat))})
    return rows


def baselines(samples: Frame) -> list[dict]:
    """What needs no model, per task and for `all`: `chance` and `best_constant`, as rows of
    layers.parquet (model `baseline`).

    chance: one over the number of options, else over the number of different right answers in the
    task. best_constant: always the most frequent right answer of these very questions, so chosen in
    hindsight; the `majority` of `franken tasks baselines` is learnt from other questions.
    """
    prompts = samples.drop_duplicates(["task", "sample"])
    tasks = list(dict.fromkeys(prompts["task"]))
    found: dict[str, list[float]] = {"chance": [], "best_constant": []}
    for task in tasks:
        of_task = prompts[prompts["task"] == task]
        gold = of_task["gold"].dropna().map(normalise)
        listed = of_task["options"] if "options" in of_task else [None] * len(of_task)
        options = np.array([len(json.loads(o)) if isinstance(o, str) else 0 for o in listed])
        guess = np.where(options > 0, 1 / np.maximum(options, 1), 1 / max(gold.nunique(), 1))
        found["chance"].append(float(guess.mean()))
        found["best_constant"].append(
            float(gold.value_counts(normalize=True).iloc[0]) if len(gold) else float("nan")
        )
    head = {"model": "baseline", "method": None, "part": None, "layer": None, "component": ALL}
    nan = float("nan")
    return [
        {
            **head,
            **_row(
                task,
                metric,
                (value, nan, nan),
                len(prompts) if task == ALL else int((prompts["task"] == task).sum()),
            ),
        }
        for metric, values in found.items()
        for task, value in [*zip(tasks, values, strict=True), (ALL, float(np.mean(values)))]
    ]


def _of_task(values: Frame, task: str) -> np.ndarray:
    if len(values) == 0:
        return np.zeros(0)
    found = values[values.index.get_level_values("task") == task].to_numpy(dtype=float)
    return found[~np.isnan(found)]


def _row(task: str, metric: str, triple: Sequence[float], n: int) -> dict:
    value, low, high = (None if np.isnan(x) else float(x) for x in triple)
    return {
        "task": task,
        "metric": metric,
        "value": value,
        "ci_low": low,
        "ci_high": high,
        "n": int(n),
        "p_adjusted": None,
    }


def compare_samples(
    a: Frame,
    b: Frame,
    metric: str = "acc@1",
    *,
    arm_a: str = "image",
    arm_b: str = "image",
    seed: int = 0,
    n_perm: int = 10_000,
) -> Frame:
    """Paired comparison b - a over the prompts that both answered, per task and for `all`: see
    `compare_values`.
    """
    left = per_prompt(a[a["method"] == arm_a], metric)
    right = per_prompt(b[b["method"] == arm_b], metric)
    return compare_values(left, right, metric, seed=seed, n_perm=n_perm)


def compare_values(
    left: Frame, right: Frame, metric: str, *, seed: int = 0, n_perm: int = 10_000
) -> Frame:
    """Paired comparison right - left of two sets of values, one a prompt, indexed by (task,
    sample); nan is no value.

    Columns: task, metric, mean_a, mean_b, diff, ci_low, ci_high, p, p_adjusted, n, test. The test
    is the sign-flip permutation test over prompts; for one answer a prompt (`BINARY`) it is
    McNemar's exact test. p_adjusted is Holm over the tasks; `all` is one test by itself and keeps
    its p. The interval is a bootstrap over prompts, within tasks for `all`. The weights of `all`
    make every task count the same in the test as well. Raises FrankenError when no prompt has a
    value on both sides.
    """
    import pandas as pd

    both = pd.concat([left.rename("a"), right.rename("b")], axis=1, join="inner").dropna()
    if len(both) == 0:
        raise FrankenError(
            "the two runs share no prompt",
            f"{len(left)} prompts with {metric} on one side, {len(right)} on the other, none in common",
            "evaluate both models with the same tasks, samples and seed",
        )
    names = list(dict.fromkeys(both.index.get_level_values("task")))
    groups: dict[str, Frame] = {t: both[both.index.get_level_values("task") == t] for t in names}
    binary = metric in BINARY
    rows = [_paired_row(t, metric, groups[t], binary, seed=seed, n_perm=n_perm) for t in names]
    adjusted = stats.holm([r["p"] for r in rows])
    rows = [{**r, "p_adjusted": p} for r, p in zip(rows, adjusted, strict=True)]
    diffs = {t: (g["b"] - g["a"]).to_numpy() for t, g in groups.items()}
    weighted = [d * (len(both) / (len(names) * d.size)) for d in diffs.values()]
    _, low, high = macro_interval(list(diffs.values()), seed=seed)
    if binary:
        p, test = _mcnemar(both), "exact McNemar"
    else:
        p, test = (
            stats.sign_flip_test(np.concatenate(weighted).tolist(), n_perm=n_perm, seed=seed),
            "sign-flip",
        )
    mean_a, mean_b = (float(np.mean([g[c].mean() for g in groups.values()])) for c in ("a", "b"))
    rows.append(
        {
            "task": ALL,
            "metric": metric,
            "mean_a": mean_a,
            "mean_b": mean_b,
            "diff": mean_b - mean_a,
            "ci_low": low,
            "ci_high": high,
            "p": p,
            "p_adjusted": p,
            "n": len(both),
            "test": test,
        }
    )
    return pd.DataFrame(rows)


def _paired_row(
    task: str, metric: str, pairs: Frame, binary: bool, *, seed: int, n_perm: int
) -> dict:
    diffs = (pairs["b"] - pairs["a"]).to_numpy(float).tolist()
    diff, low, high = stats.bootstrap_mean(diffs, seed=seed)
    if binary:
        p, test = _mcnemar(pairs), "exact McNemar"
    else:
        p, test = stats.sign_flip_test(diffs, n_perm=n_perm, seed=seed), "sign-flip"
    return {
        "task": task,
        "metric": metric,
        "mean_a": float(pairs["a"].mean()),
        "mean_b": float(pairs["b"].mean()),
        "diff": float(diff),
        "ci_low": float(low),
        "ci_high": float(high),
        "p": float(p),
        "p_adjusted": None,
        "n": len(pairs),
        "test": test,
    }


def _mcnemar(pairs: Frame) -> float:
    only_a = int(((pairs["a"] > RIGHT) & (pairs["b"] <= RIGHT)).sum())
    only_b = int(((pairs["b"] > RIGHT) & (pairs["a"] <= RIGHT)).sum())
    return stats.mcnemar_exact(only_a, only_b)


def compare(run_a: Path, run_b: Path, metric: str = "acc@1", **options) -> Frame:
    """`compare_samples` on two run folders of `franken eval`; options are passed on."""
    from franken.runs import load_run

    return compare_samples(load_run(run_a).samples, load_run(run_b).samples, metric, **options)
