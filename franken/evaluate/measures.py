"""Everything that is measured of one model's evaluation, as one value a prompt: what intervals and
pairings are made from.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

from franken.evaluate.arms import DESCRIBE, view_of
from franken.evaluate.diversity import diversity_measures
from franken.evaluate.metrics import GREEDY, per_prompt
from franken.evaluate.mscores import NEEDS, m_scores
from franken.evaluate.perception import (
    BY_PROMPT,
    decomposition,
    error_shares,
    facts_right,
    levels,
    misled,
    usable,
)

if TYPE_CHECKING:
    import pandas as pd

    from franken.evaluate.embed import Embed

SHAPE = ("tokens", "steps", "reflections", "references")
DIVERSITY = ("diversity", "distinct-2", "self-overlap", "answer entropy")
NOT_RATES = {*SHAPE, *DIVERSITY, "strategies"}
STRATEGY = "strategy "  # before a strategy's name


@dataclass(frozen=True)
class Measure:
    """`values` are indexed by (task, sample). `arm` is an arm, or how answers were drawn for the M
    scores.
    """

    metric: str
    arm: str
    values: pd.Series

    @property
    def is_rate(self) -> bool:
        """Whether values lie in [0, 1] and mean a share of answers."""
        return self.metric not in NOT_RATES


def main_arm(arms: Collection[str]) -> str | None:
    """The arm in which diversity, shape and errors are measured: `image`, else the first that asks
    the question.
    """
    asked = [arm for arm in arms if arm != DESCRIBE]
    return "image" if "image" in asked else asked[0] if asked else None


def measures(
    samples: pd.DataFrame,
    *,
    k: Collection[int],
    curve: int = 0,
    embed: Embed | None = None,
    trained: Collection[str] = (),
    strategies: Collection[str] = (),
) -> Iterator[Measure]:
    """All measures of ONE model's rows. `curve`: acc@j for each j up to it, in the main arm. Empty
    ones are left out.

    `trained` names the tasks of the levels of generalisation; `strategies` those whose shares are
    asked for.
    """
    arms = list(dict.fromkeys(samples["method"]))
    main = main_arm(arms)
    for measure in _all(samples, arms, main, sorted(k), curve, embed, trained, strategies):
        if len(measure.values.dropna()):
            yield measure


def _all(
    samples: pd.DataFrame,
    arms: list[str],
    main: str | None,
    k: list[int],
    curve: int,
    embed: Embed | None,
    trained: Collection[str],
    strategies: Collection[str],
) -> Iterator[Measure]:
    for arm in arms:
        rows = samples[samples["method"] == arm]
        if arm == DESCRIBE:
            yield Measure("facts right", arm, facts_right(samples))
            continue
        several = [j for j in k if j > 1]
        names = [
            "acc@1",
            "greedy",
            *(f"{kind}@{j}" for kind in ("acc", "maj") for j in several),
            "format",
            "truncated",
        ]
        for name in names:
            yield Measure(name, arm, per_prompt(rows, name))
        if view_of(arm).description == "wrong":
            yield Measure("follows the wrong fact", arm, misled(samples, arm))
    if main is None:
        return
    rows = samples[samples["method"] == main]
    for j in k:
        yield Measure(f"first@{j}", main, per_prompt(rows, f"first@{j}"))
    for j in set(range(2, curve + 1)) - set(k):
        yield Measure(f"acc@{j}", main, per_prompt(rows, f"acc@{j}"))
    for name, values in decomposition(samples, main).items():
        yield Measure(name, main, values)
    for name, values in error_shares(samples, main).items():
        yield Measure(f"error: {name}", main, values)
    yield from _of_reasoning(usable(samples, main), main, embed, strategies)
    for greedy in (True, False):
        if any(set(needed) <= set(arms) for needed in NEEDS.values()):
            for name, values in m_scores(samples, greedy=greedy).items():
                yield Measure(name, "greedy" if greedy else "sampled", values)
    for name, values in (levels(samples, trained) if trained else {}).items():
        yield Measure(f"level: {name}", main, values)


def _of_reasoning(
    rows: pd.DataFrame, arm: str, embed: Embed | None, strategies: Collection[str]
) -> Iterator[Measure]:
    draws = rows[rows["draw"] != GREEDY]
    if not len(draws):
        return
    yield Measure("strategies", arm, per_prompt(rows, "strategies"))
    for name, values in diversity_measures(rows, embed).items():
        yield Measure(name, arm, values)
    for name in SHAPE:
        counted = draws.assign(count=draws[name].astype(float))
        yield Measure(name, arm, counted.groupby(BY_PROMPT, sort=False)["count"].mean())
    for name in strategies:
        used = draws.assign(used=(draws["strategy"] == name).astype(float))
        yield Measure(STRATEGY + name, arm, used.groupby(BY_PROMPT, sort=False)["used"].mean())
