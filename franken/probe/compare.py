"""Two checkpoints under the same probe: what differs, layer by layer, paired by sample (the
Frankenstein paper's figure 3).

The two runs asked the same questions about the same images; the difference of each sample's values,
second − first, is averaged with its interval and tested by sign flips, Holm over the
layers (and heads) of one method, task and metric. What either run could not measure is kept as a
row that says why, and left out of the means.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING

import pandas as pd

from franken.errors import UsageError
from franken.probe.method import DIFFERENCE, Metric, usable
from franken.probe.methods import of_rows
from franken.runs import load_run, open_run
from franken.stats import holm, sign_flip_test

if TYPE_CHECKING:
    from franken.runs import LayerRow

KEY = ("method", "sample", "layer")
Key = tuple[str, str, int]


@dataclass(frozen=True)
class Sample:
    """One row of a run, and what it measured by (metric, component)."""

    task: str
    question: str
    error: str | None
    ineligible: str | None
    values: dict[tuple[str, str], float]


@dataclass(frozen=True)
class Difference:
    """One value of a sample in both runs, or why there is none."""

    method: str
    sample: str
    layer: int
    task: str
    question: str
    metric: str | None = None
    component: str | None = None
    first: float | None = None
    second: float | None = None
    ineligible: str | None = None
    error: str | None = None


def compare_probes(first: Path, second: Path, *, out: Path) -> Path:
    """The paired differences of two finished probe runs, as a run of its own. Returns its folder.

    Raises UsageError when they share no sample, or one sample asks different questions.
    """
    runs = load_run(first), load_run(second)
    names = [run.label for run in runs]
    label = "→".join(names if names[0] != names[1] else [first.name, second.name])
    identity = {"runs": [run.manifest.identity.stored() for run in runs]}
    models = dict(zip("ab", names, strict=True))
    run = open_run("probe-compare", label, identity, out, config=identity, models=models)
    if run.is_complete():
        return run.folder
    rows = list(_pairs(*(_read(r.samples) for r in runs)))
    if not any(row.metric for row in rows):
        raise UsageError(
            "nothing to compare",
            why="the runs share no sample that both measured",
            fix="probe both alike",
        )
    run.append([asdict(row) for row in rows])
    return run.finish(
        difference_rows(label, rows),
        n_requested=len(rows),
        extra={"compared": [str(first), str(second)]},
    )


def difference_rows(model: str, rows: Sequence[Difference]) -> list[LayerRow]:
    """The summary: mean difference per method, task, metric, component and layer, with interval and
    adjusted p.
    """
    table = pd.DataFrame([row for row in rows if not row.error and not row.ineligible])
    families: dict[tuple[str, ...], list[tuple[LayerRow, float]]] = {}
    cells = ["method", "task", "metric", "component", "layer"]
    for place, cell in table.groupby(cells, sort=False):
        method, task, metric, component, layer = map(str, place)
        differences = (cell["second"] - cell["first"]).to_numpy(float)
        head: LayerRow = {"model": model, "method": method, "part": "text", "task": task}
        rates = {m.name for m in of_rows(method).metrics() if m.rate}
        named = Metric(f"{metric}{DIFFERENCE}", "", rate_difference=metric in rates)
        row = named.estimate(head, int(layer), component, differences)
        family = method, task, metric, component.partition("head")[0]
        families.setdefault(family, []).append((row, sign_flip_test(differences)))
    for members in families.values():
        for (row, _), p in zip(members, holm([p for _, p in members]), strict=True):
            row["p_adjusted"] = p
    return [row for members in families.values() for row, _ in members]


def _pairs(ours: dict[Key, Sample], theirs: dict[Key, Sample]) -> Iterator[Difference]:
    for key in dict.fromkeys(chain(ours, theirs)):
        one, two = ours.get(key), theirs.get(key)
        known = one or two
        assert known is not None
        head = (*key, known.task, known.question)
        if one is None or two is None:
            only = f"only in the {'second' if one is None else 'first'} run"
            yield Difference(*head, error=only)
            continue
        if one.question != two.question:
            raise UsageError(
                f"{key[1]} is not the same question in both runs",
                why="the runs used different data",
            )
        error, ineligible = one.error or two.error, one.ineligible or two.ineligible
        if error or ineligible:
            yield Difference(*head, error=error, ineligible=ineligible)
            continue
        for place, value in one.values.items():
            if place in two.values:
                yield Difference(*head, *place, value, two.values[place])


def _read(samples: pd.DataFrame) -> dict[Key, Sample]:
    """Every row of a run, with what its method compares."""
    samples = samples.reset_index(drop=True)
    table = samples.astype(object).where(samples.notna(), None)
    keys = [(str(m), str(s), int(n)) for m, s, n in zip(*(table[c] for c in KEY), strict=True)]
    columns = zip(*(table[c] for c in ("task", "question", "error", "ineligible")), strict=True)
    read = [Sample(*row, values={}) for row in columns]
    for method, rows in table.groupby("method", sort=False):
        for metric in of_rows(str(method)).metrics(rows.columns):
            if metric.compared:
                for component, values in metric.values(usable(rows)):
                    for place, value in values.items():
                        read[int(str(place))].values[metric.name, component] = float(value)
    return dict(zip(keys, read, strict=True))
