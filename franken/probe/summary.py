"""From a probe's samples to estimates per layer and task, and to where a method acts most."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, TypedDict

import pandas as pd

from franken.probe import findings
from franken.probe.methods import of_rows
from franken.runs import RowHead

if TYPE_CHECKING:
    from franken.runs import LayerRow


class Peak(TypedDict):
    """Where a method acts most on a task: the layer with the highest value, and all layers whose
    interval overlaps its interval.
    """

    model: str
    method: str
    task: str
    metric: str
    best: int
    layers: list[int]


def layer_rows(samples: pd.DataFrame) -> list[LayerRow]:
    """One row a model, method, layer, task, metric and component, by the method's own metrics. A
    layer without data has null values and n = 0.
    """
    summary: list[LayerRow] = []
    for names, rows in samples.groupby(["model", "method", "part", "task"], sort=False):
        model, method, part, task = map(str, names)
        head = RowHead(model=model, method=method, part=part, task=task)
        summary += of_rows(method).summarise(rows, head)
    return summary


def peaks(summary: Sequence[LayerRow]) -> list[Peak]:
    """The peak of every model, method, task and metric that has one.

    A peak that holds every layer says that the samples do not tell the layers apart; one without
    data is left out, as is a curve that is zero everywhere.
    """
    table = pd.DataFrame(summary)
    peaked_at: list[Peak] = []
    if not len(table):
        return peaked_at
    table = table.loc[table["layer"].notna() & (table["n"] > 0)]
    for names, cell in table.groupby(["model", "method", "task", "metric"], sort=False):
        model, method, task, metric = map(str, names)
        peaked = {m.name for m in of_rows(method).metrics() if m.peaked}
        best = cell.iloc[int(cell["value"].to_numpy(float).argmax())]
        if metric not in peaked or best["value"] <= 0:
            continue
        layers = findings.peak(cell)
        peaked_at.append(
            Peak(
                model=model,
                method=method,
                task=task,
                metric=metric,
                best=int(best["layer"]),
                layers=layers,
            )
        )
    return peaked_at
