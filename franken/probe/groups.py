"""Effects by token group, or by single head: the rows, estimates and figures that patching within
one model and across two have in common. No torch, as in the methods' own files.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, ClassVar, Self, TypeVar

import numpy as np

from franken.models.families import keyless
from franken.probe import findings
from franken.probe.figure import Cells, Figure
from franken.probe.method import Method, Metric, head_cells
from franken.stats import ALPHA, sign_flip_test

if TYPE_CHECKING:
    import pandas as pd

M = TypeVar("M", bound="ByGroup[Any]")
WHOLE = findings.WHOLE
GROUPS = ("system", "image", "question", "answer", "last", WHOLE)  # of tokens; `all` is every one
# Of patches in the vision tower: whether their own pixels differ between two images.
CHANGED, UNCHANGED = "changed", "unchanged"
PATCHES = (CHANGED, UNCHANGED, WHOLE)
SITES = {  # site → what figures call it
    "residual": "residual stream",
    "attn": "attention outputs",
    "mlp": "MLP outputs",
    "heads": "single heads",
}
ROWS = 32  # rows `[tokens, hidden]` that run at a time
NUMBERED = f"numbers where p < {ALPHA} after Holm"


def groups_of(columns: Collection[str]) -> tuple[str, ...]:
    """The groups that samples with these columns are of: patches in the tower, one at the
    projector, else tokens.
    """
    known = {name.removeprefix("effect_") for name in columns if name.startswith("effect_")}
    if CHANGED in known or UNCHANGED in known:
        return PATCHES
    return (WHOLE,) if WHOLE in known and "last" not in known else GROUPS


def p_value(_: pd.DataFrame, effects: np.ndarray) -> float:
    """Are the samples' effects symmetric about 0? Those of less than 1e-4 are rounding (of a run
    that is resumed in rows) and count as none.
    """
    return sign_flip_test(np.round(effects, 4)) if len(effects) else math.nan


@dataclass(frozen=True)
class ByGroup(Method[M]):
    """A method whose rows have a share of something for every token group (`effect_GROUP`), or for
    every head of one (`heads_GROUP`), at one site of a layer.
    """

    site: str

    sites = tuple(SITES)
    shown = ()
    share: ClassVar[str] = "share"  # what figures call the effect
    unit: ClassVar[str] = "questions"  # what there are n of

    @property
    def by_head(self) -> bool:
        """Whether every head is patched by itself."""
        return self.site == "heads"

    def obstacle(self, linear: int, shared: int) -> str | None:
        if shared:
            return f"layers run again by themselves, and {keyless(0, shared)}"
        if linear and self.by_head:
            return f"{keyless(linear, 0)}: their heads are others"
        return None

    @property
    def measures(self) -> str:
        """The name of its metric."""
        return "restored"

    def metrics(self, columns: Collection[str] = ()) -> tuple[Metric, ...]:
        name, column = self.measures, "heads" if self.by_head else "effect"
        return tuple(
            Metric(name, f"{column}_{group}", component=group, label=name, test=p_value)
            for group in groups_of(columns)
        )

    @classmethod
    def figures(cls, methods: Sequence[Self], rows: pd.DataFrame) -> list[Figure]:
        return [m.figure(findings.select(rows, method=m.name), m.name) for m in methods]

    def comparison(self, rows: pd.DataFrame, first: str, second: str) -> Figure:
        return self.figure(rows, f"{self.name}-shift")

    def figure(self, rows: pd.DataFrame, name: str) -> Figure:
        """A plot a task; of heads a plot a token group."""
        plots = _by_group(rows) if self.by_head else _by_task(rows)
        columns = min(3, len(plots))
        plots = [replace(plot, bar=i % columns == 0) for i, plot in enumerate(plots, 1)]
        note, height = "mean over tasks", 3.0
        if not self.by_head:
            note, height = NUMBERED, 0.3 * len(plots[0].components) + 1.1
        title = self.title(rows)
        return Figure(name, title, plots, columns, rows, self.unit, note, height=height)


def _by_task(rows: pd.DataFrame) -> list[Cells]:
    known = dict.fromkeys((*GROUPS[:-1], *PATCHES))
    groups = [group for group in known if group in set(rows["component"])]
    return [
        Cells(findings.select(rows, task=task), groups, task, tested=True)
        for task in findings.task_names(rows)
    ]


def _by_group(rows: pd.DataFrame) -> list[Cells]:
    top = max(0.05, float(rows["value"].abs().max()))
    plots = []
    for group in GROUPS:
        part = rows.loc[rows["component"].str.startswith(f"{group}, head")]
        if len(part):
            title = "last token" if group == "last" else f"{group} tokens"
            plots.append(head_cells(part, title=title, label="share", scale=1, limits=(-top, top)))
    return plots


def most(rows: pd.DataFrame) -> str:
    """The head that carries most, over all tasks."""
    heads = rows.loc[~rows["component"].str.startswith("all")]
    pooled = heads.groupby(["component", "layer"])["value"].mean()
    if not len(pooled):
        return ""
    component, layer = pooled.index[int(pooled.to_numpy(float).argmax())]
    group, _, head = component.partition(", ")
    return f"; most: layer {int(layer)}, {head}, {group} tokens, {pooled.max():.2f}"
