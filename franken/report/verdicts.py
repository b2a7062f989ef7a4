"""What verdicts are made of: paired differences, tests, and numbers as text. Pure functions; the
rules are in `headlines`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, TypeVar

import pandas as pd

from franken.evaluate.metrics import compare_samples, compare_values, per_prompt
from franken.report.sources import Sentence, say
from franken.runs import RunSet
from franken.runs.manifest import FallTest
from franken.stats import ALPHA, Estimate, holm

Key = TypeVar("Key")
NB = "\N{NO-BREAK SPACE}"
SUPPORTED, AGAINST, OPEN, ABSENT = "supported", "not supported", "inconclusive", "not measured"
ONE_RUN = (
    "Each checkpoint is one training run: the test is over prompts, so it does not cover another "
    "seed of training."
)


@dataclass
class Headline:
    """An answer: `key` is its anchor on the page, `claim` what the verdict is about, `test` how it
    was decided.
    """

    key: str
    question: str
    answer: str
    claim: str
    verdict: str
    test: str = ""
    facts: list[str] = field(default_factory=list)


def points(x: float) -> str:
    """A share as signed percentage points: 0.102 → `+10.2`."""
    text = f"{100 * x:+.1f}"
    return ("0.0" if text in ("-0.0", "+0.0") else text).replace("-", "\N{MINUS SIGN}")


def percent(x: float) -> str:
    """A share as a percentage: 0.726 → `72.6 %`."""
    return f"{100 * x:.1f}{NB}%"


def p_text(p: float) -> str:
    """`p = 0.03`, or `p < 0.001`."""
    text = "p < 0.001" if p < 0.001 else f"p = {p:.2g}" if p < 0.1 else f"p = {p:.2f}"
    return text.replace(" ", NB)


def n_text(n: int) -> str:
    """`n = 500`, unbroken."""
    return f"n{NB}={NB}{n}"


def interval(row: Any) -> str:
    """A difference with its interval, in points: `+10.2 points (95 % +8.1 to +12.2)`."""
    low, high = row["ci_low"], row["ci_high"]
    if low != low:
        return f"{points(row['diff'])} points"
    return f"{points(row['diff'])} points (95{NB}% {points(low)} to {points(high)})"


def paired(runset: RunSet, a: str, b: str, metric: str = "acc@1") -> Any | None:
    """The paired comparison b - a in the image arm over all tasks, as a row; None when the two
    share no prompt.

    Every pair is compared once per set of runs: the page, its figures and its tables ask for the
    same ones.
    """
    known: dict[tuple[str, str, str], Any] = vars(runset).setdefault("_compared", {})
    if (a, b, metric) not in known:
        left, right = values(runset, a, metric), values(runset, b, metric)
        shared = len(left.index.intersection(right.index)) > 0
        known[a, b, metric] = (
            compare_samples(runset.samples("eval", a), runset.samples("eval", b), metric).set_index(
                "task"
            )
            if shared
            else None
        )
    table = known[a, b, metric]
    return None if table is None or "all" not in table.index else table.loc["all"]


def holm_of(rows: Mapping[Key, Any]) -> dict[Key, float]:
    """Holm-adjusted p of a family of comparisons, by their names."""
    return dict(zip(rows, holm([float(row["p"]) for row in rows.values()]), strict=True))


def values(runset: RunSet, label: str, metric: str = "acc@1") -> Any:
    """A model's value per prompt in the image arm, indexed by (task, sample); empty when it was not
    evaluated.
    """
    rows = runset.samples("eval", label)
    if len(rows) == 0 or not (rows["method"] == "image").any():
        return pd.Series(dtype=float)
    return per_prompt(rows[rows["method"] == "image"], metric).dropna()


def above_half(runset: RunSet, label: str) -> Any | None:
    """A model against the middle between RL and its parent, paired by prompt: above 0, it keeps
    over half of RL's gain.

    Unlike a ratio of two differences, this contrast has an ordinary paired interval, also where
    RL's gain is small.
    """
    parent, rl, own = (values(runset, m) for m in (runset.study.parent, "rl", label))
    half = (parent + rl).dropna() / 2
    if len(half.index.intersection(own.index)) == 0:
        return None
    return compare_values(half, own, "acc@1").set_index("task").loc["all"]


def side_of_half(half: Any) -> int:
    """1 above half of RL's gain, -1 below it, 0 open: by the interval and the test, since few
    prompts make narrow intervals.
    """
    if not half["p"] < ALPHA:
        return 0
    return 1 if half["ci_low"] > 0 else -1 if half["ci_high"] < 0 else 0


def keeps_text(row: Any, runs: tuple[str, ...]) -> Sentence:
    """`above_half` in words."""
    return say("Against half of RL's gain: {diff:n}.", runs, diff=interval(row))


def judged(row: Any, p: float) -> str:
    """The verdict on `b is better than a`: at the 5 % level, by the sign of the difference."""
    if not p < ALPHA:
        return OPEN
    return SUPPORTED if row["diff"] > 0 else AGAINST


def paired_gap(test: FallTest, later: str) -> Estimate:
    """The difference over shared images and its interval, as the probe tested it, `later` minus the
    other task.
    """
    gap, (low, high) = test.difference, test.ci
    return Estimate(gap, low, high) if test.tasks[1] == later else Estimate(-gap, -high, -low)
