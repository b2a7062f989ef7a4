"""Two checkpoints under the same probe: what differs, layer by layer, paired by sample (the
Frankenstein paper's figure 3).

The two runs asked the same questions about the same images; the difference of each sample's values,
second − first, is averaged with its interval and tested by sign flips, Holm over the
layers (and heads) of one method, task and metric. What either run could not measure is kept as a
row that says why, and left out of the means.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import pandas as pd

from franken.errors import UsageError
from franken.probe.method import DIFFERENCE, Metric, usable
from franken.probe.methods import of_rows
from franken.runs import RowHead, load_run, open_run
from franken.stats import holm, sign_flip_test

if TYPE_CHECKING:
    from franken.runs import LayerRow

KEY = ["method", "part", "sample", "layer"]  # of a row of a run
ABOUT = ["task", "question", "error", "ineligible"]
PAIRED = (  # columns of samples that two probes are compared by
    *("method", "part", "layer", "task", "sample", "question", "score", "baseline_score"),
    *("error", "ineligible"),
)


def compare_probes(first: Path, second: Path, *, out: Path) -> Path:
    """The paired differences of two finished probe runs, as a run of its own. Returns its folder.

    Raises UsageError when they share no sample, or one sample asks different questions.
    """
    runs = load_run(first), load_run(second)
    names = [run.label for run in runs]
    label = "→".join(names if names[0] != names[1] else [first.name, second.name])
    identity = {"runs": [run.manifest.identity.stored() for run in runs]}
    models = dict(zip("ab", names, strict=True))
    with open_run("probe-compare", label, identity, out, config=identity, models=models) as run:
        if run.is_complete():
            return run.folder
        rows = paired_rows(*(r.answers(*PAIRED) for r in runs))
        if rows["metric"].isna().all():
            raise UsageError(
                "nothing to compare",
                why="the runs share no sample that both measured",
                fix="probe both alike",
            )
        table = rows.astype(object).where(rows.notna(), None)
        run.append(table.to_dict("records"))  # pyright: ignore[reportArgumentType] - keys are strings
        return run.finish(
            difference_rows(label, rows),
            n_requested=len(rows),
            extra={"compared": [str(first), str(second)]},
        )


def paired_rows(first: pd.DataFrame, second: pd.DataFrame) -> pd.DataFrame:
    """A row for each value that both runs measured, with columns KEY, ABOUT, metric, component,
    `first` and `second`; and one for each sample without any, whose `error` or `ineligible` says
    why. Raises UsageError where one sample asks different questions.
    """
    ours, theirs = (run.set_index(KEY)[ABOUT].astype(object) for run in (first, second))
    shared = ours.index.intersection(theirs.index)
    if len(odd := shared[ours.loc[shared, "question"] != theirs.loc[shared, "question"]]):
        raise UsageError(
            f"{odd.get_level_values('sample')[0]} is not the same question in both runs",
            why="the runs used different data",
        )
    keys = ours.index.union(theirs.index, sort=False)
    rows = ours.combine_first(theirs).reindex(keys)
    for run, other in ((ours, "second"), (theirs, "first")):
        alone = f"only in the {other} run", None
        rows.loc[keys.difference(run.index), ["error", "ineligible"]] = alone
    values = _values(first, "first").merge(_values(second, "second"))
    rows = rows.reset_index().merge(values, on=KEY, how="left")
    return rows.loc[rows[["metric", "error", "ineligible"]].notna().any(axis=1)]


def _values(samples: pd.DataFrame, name: str) -> pd.DataFrame:
    """A row for each number that its method compares: KEY, metric, component, and it as `name`."""
    empty = pd.DataFrame(columns=[*KEY, "metric", "component", name])
    tables = [empty.astype({"layer": int, name: float})]
    for method, rows in samples.groupby("method", sort=False):
        for metric in of_rows(str(method)).metrics(rows.columns):
            for component, numbers in metric.values(usable(rows)) if metric.compared else ():
                place = {"metric": metric.name, "component": component, name: numbers}
                tables.append(rows.loc[numbers.index, KEY].assign(**place))
    return pd.concat(tables, ignore_index=True)


def difference_rows(model: str, rows: pd.DataFrame) -> list[LayerRow]:
    """The summary: mean difference per method, task, metric, component and layer, with interval and
    adjusted p.
    """
    measured = rows.loc[rows["metric"].notna()]
    families: dict[tuple[str, ...], list[tuple[LayerRow, float]]] = {}
    cells = ["method", "part", "task", "metric", "component", "layer"]
    for place, cell in measured.groupby(cells, sort=False):
        method, part, task, metric, component, layer = map(str, place)
        differences = (cell["second"] - cell["first"]).to_numpy(float)
        head = RowHead(model=model, method=method, part=part, task=task)
        rates = {m.name for m in of_rows(method).metrics() if m.rate}
        named = Metric(f"{metric}{DIFFERENCE}", "", rate_difference=metric in rates)
        row = named.estimate(head, int(layer), component, differences)
        family = method, part, task, metric, component.partition("head")[0]
        families.setdefault(family, []).append((row, sign_flip_test(differences)))
    for members in families.values():
        for (row, _), p in zip(members, holm([p for _, p in members]), strict=True):
            row["p_adjusted"] = p
    return [row for members in families.values() for row, _ in members]
