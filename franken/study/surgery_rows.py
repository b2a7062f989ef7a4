"""From answers to the two curves of `franken.study.surgery`: what a part of an update recovers
alone, what is left without it, and what random parts of equal size do.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from franken import stats
from franken.evaluate.metrics import ALL, compare_values
from franken.merge.parts import DROP, KEEP, Part
from franken.runs import layer_row
from franken.runs.rows import LayerRow
from franken.study.gains import adjust

if TYPE_CHECKING:
    import pandas as pd

    Values = Mapping[str, pd.Series]
    """A number a prompt (task, sample) by the model's label."""

METRIC = "acc@1"
RANDOM = "random"  # the word of `--along` for nulls, and their method: `random, keep`


@dataclass(frozen=True)
class Cut:
    """A hybrid: the base with a part of the update (`keep`), or the donor without it (`drop`).
    `null`: the part is a random one, of the size of `beside`.
    """

    how: str
    part: Part
    beside: Part
    draw: int = 0

    @property
    def null(self) -> bool:
        """Whether it stands beside another part."""
        return self.part != self.beside

    @property
    def label(self) -> str:
        """What tables call it: `keep rank:1`, `drop random:1% #2`."""
        return f"{self.how} {self.part}" + (f" #{self.draw + 1}" if self.null else "")


def rows_of(cuts: Sequence[Cut], values: Values) -> list[LayerRow]:
    """The rows of layers.parquet; `values` has `base`, `donor` and every cut's label."""
    base, donor = values["base"], values["donor"]
    rows = _gains("donor", "donor", ALL, base, donor)
    for cut in cuts:
        method = f"{RANDOM}, {cut.how}" if cut.null else cut.how
        part, own = str(cut.beside), values[cut.label]
        rows += _gains(cut.label, method, part, base, own)
        rows.append(_over_tasks(cut.label, method, part, "recovered", base, donor, own))
    rows = adjust(adjust(rows, KEEP), DROP)
    for part in dict.fromkeys(cut.beside for cut in cuts):
        kept, dropped = (values[Cut(how, part, part).label] for how in (KEEP, DROP))
        own, name = kept + dropped - donor, str(part)
        rows.append(_over_tasks(name, "both", name, "redundancy", base, donor, own))
    return [*rows, *_against_random(cuts, values)]


def _gains(
    label: str,
    method: str,
    part: str,
    base: pd.Series,
    own: pd.Series,
    metric: str = f"gain {METRIC}",
) -> list[LayerRow]:
    """A row a task, then `all`: the paired difference from the base, its p not yet adjusted."""
    return [
        layer_row(
            model=label,
            method=method,
            component=part,
            task=row["task"],
            metric=metric,
            value=row["diff"],
            ci_low=row["ci_low"],
            ci_high=row["ci_high"],
            n=row["n"],
            p_adjusted=row["p"],
        )
        for row in compare_values(base, own, METRIC).to_dict("records")
    ]


def _over_tasks(
    label: str,
    method: str,
    part: str,
    metric: str,
    base: pd.Series,
    donor: pd.Series,
    own: pd.Series,
) -> LayerRow:
    """A share of the donor's gain, over tasks that weigh the same."""
    import pandas as pd

    sides = pd.concat([base, donor, own], axis=1, join="inner").dropna()
    task_of = sides.index.get_level_values("task")
    groups = [sides[task_of == task].to_numpy(float).T for task in dict.fromkeys(task_of)]
    share = stats.recovered(*[side for group in groups for side in group])
    return layer_row(
        model=label,
        method=method,
        component=part,
        task=ALL,
        metric=metric,
        n=len(sides),
        **share.columns(),
    )


def _against_random(cuts: Sequence[Cut], values: Values) -> list[LayerRow]:
    """`over random`, what a part keeps against what random parts of its size do, and `below
    random`, what is left without it against what is left without those: paired by prompt, the mean
    over random parts, Holm over the parts.
    """
    rows: list[LayerRow] = []
    for how, metric in ((KEEP, "over random"), (DROP, "below random")):
        found: list[LayerRow] = []
        for cut in (c for c in cuts if c.how == how and not c.null):
            nulls = [c for c in cuts if c.null and c.how == how and c.beside == cut.beside]
            if not nulls:
                continue
            usual = sum([values[c.label] for c in nulls[1:]], values[nulls[0].label]) / len(nulls)
            own = values[cut.label]
            low, high = (usual, own) if how == KEEP else (own, usual)
            *_, whole = _gains(cut.label, how, str(cut.part), low, high, metric)
            found.append(whole)
        rows += adjust(found, how)
    return rows


def verdict(rows: pd.DataFrame) -> str:
    """What the curves say, a sentence a kind of part: the smallest part that is enough for half of
    the gain, and the smallest without which less than half is left, both by their intervals.
    """
    shares = rows[rows["metric"] == "recovered"]
    if shares["ci_low"].isna().all():
        return "The donor shows no sure gain over the base, so there is none to recover."
    told = []
    for kind, own in shares.groupby(shares["component"].str.partition(":")[0], sort=False):
        kept, dropped = (own[own["method"] == how] for how in (KEEP, DROP))
        enough = [*kept.loc[kept["ci_low"] > 0.5, "component"]]
        needed = [*dropped.loc[dropped["ci_high"] < 0.5, "component"]]
        alone = (
            f"{enough[0]} is enough for over half of the gain"
            if enough
            else ("no part of these sizes is surely enough for half of the gain")
        )
        without = (
            f"without {needed[0]} less than half is left"
            if needed
            else ("none is surely needed for half of it")
        )
        told.append(f"Along {kind}, {alone}; {without}.")
    return " ".join(told)
