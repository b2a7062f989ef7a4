"""`patch-SITE` and `patch-SITE-noising`: activations of one image's run put into the other's, by
layer and token group. `patch` stands for both directions at each `--site`.

What is patched and how effects are measured is in `franken.probe.patch`.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np

from franken.plugins import register
from franken.probe import findings
from franken.probe.figure import Cells, Figure
from franken.probe.method import DIFFERENCE, Columns, Cost, Method, Metric, head_cells
from franken.stats import ALPHA, sign_flip_test

if TYPE_CHECKING:
    import pandas as pd

    from franken.probe.cost import TextShape
    from franken.probe.plan import ProbePlan
    from franken.probe.session import Session
    from franken.tasks import Pair

GROUPS = ("system", "image", "question", "answer", "last", "all")  # of tokens; `all` is every one
SITES = {  # site → what figures call it
    "residual": "residual stream",
    "attn": "attention outputs",
    "mlp": "MLP outputs",
    "heads": "single heads",
}
WAYS = {"": False, "-noising": True}  # what a name ends in → whether it is noising
ROWS = 32  # rows `[tokens, hidden]` that run at a time
NUMBERED = f"numbers where p < {ALPHA} after Holm"


def _p_value(_: pd.DataFrame, effects: np.ndarray) -> float:
    """Are the pairs' effects symmetric about 0? Those of less than 1e-4 are rounding (of a run that
    is resumed in rows) and count as none.
    """
    return sign_flip_test(np.round(effects, 4)) if len(effects) else math.nan


@dataclass(frozen=True)
class Patch(Method["Patch"]):
    """Denoising says what share of the logit difference comes back, noising what share is lost."""

    site: str
    noising: bool = False

    short = "patch"
    sites = tuple(SITES)
    needs_source = True
    shown = ()
    components = "share of the logit difference"

    @property
    def by_head(self) -> bool:
        """Whether every head is patched by itself."""
        return self.site == "heads"

    def metrics(self, columns: Collection[str] = ()) -> tuple[Metric, ...]:
        metric, column = (
            "lost" if self.noising else "restored",
            "heads" if self.by_head else "effect",
        )
        return tuple(
            Metric(metric, f"{column}_{group}", component=group, label=metric, test=_p_value)
            for group in GROUPS
        )

    @classmethod
    def spelled(cls, sites: Sequence[str]) -> tuple[str, ...]:
        return tuple(f"patch-{site}{way}" for site in sites for way in WAYS)

    @classmethod
    def cost(cls, methods: Sequence[Patch], plan: ProbePlan, shape: TextShape) -> Cost:
        """As if every two replies parted: a clean and a corrupt run a pair, then for every layer
        the layers above it, in rows.
        """
        pairs = [p for p in plan.pairs if not (p.error or p.ineligible)]
        naive = resumed = 0
        for method in methods:
            variants = len(GROUPS) * (shape.heads if method.by_head else 1)
            naive += 2 * plan.max_new_tokens + 2 + len(plan.layers) * variants
            skipped = 1 if method.site == "residual" else 0  # the patched layer itself
            above = sum(shape.depth - layer - skipped for layer in plan.layers)
            resumed += above * -(-variants // ROWS)
        return Cost(
            forwards=2 * len(methods) * len(pairs),
            naive=len(plan.pairs) * naive,
            resumed_layers=resumed * len(pairs),
            replies=frozenset(id(item) for p in pairs for item in (p.target, p.source)),
            activations=ROWS * shape.row + 4 * shape.stream,  # stream and site of two runs
        )

    @classmethod
    def check(cls, methods: Sequence[Patch], session: Session) -> list[str]:
        from franken.probe.controls import check_patching

        sites = sorted({method.site for method in methods})
        return check_patching(session.loaded, session.control_pairs, sites)

    def measure(self, session: Session, pair: Pair) -> Sequence[Columns]:
        from franken.probe.patch import patch_pair

        return patch_pair(
            session.loaded,
            (session.prompt(pair.target), session.prompt(pair.source)),
            (session.reply(pair.target), session.reply(pair.source)),
            self.site,
            session.plan.layers,
            denoising=not self.noising,
        )

    def title(self, rows: pd.DataFrame) -> str:
        """What is patched, and what carries most: the layer from which the last token carries more
        than the image's tokens, or the head that carries most; over all tasks.
        """
        compared = rows["metric"].iloc[0].endswith(DIFFERENCE)
        share = "Change in the share" if compared else "Share"
        if self.by_head:
            verb = "lose" if self.noising else "restore"
            text = f"{share} of the logit difference that single heads {verb}"
            return text if compared else text + _most(rows)
        verb = "lost to the corrupt" if self.noising else "restored by the clean"
        text = f"{share} of the logit difference {verb} {SITES[self.site]}"
        if compared or self.site != "residual" or not {"image", "last"} <= set(rows["component"]):
            return text
        pooled = rows.groupby(["component", "layer"])["value"].mean()
        image, last = pooled["image"], pooled["last"]
        over = [layer for layer in last.index if last[layer] > image.get(layer, 1.0)]
        if not over:
            return text
        return f"{text}: it has left the image for the last token by layer {int(over[0])}"

    @classmethod
    def figures(cls, methods: Sequence[Patch], rows: pd.DataFrame) -> list[Figure]:
        return [m._figure(findings.select(rows, method=m.name), m.name) for m in methods]

    def comparison(self, rows: pd.DataFrame, first: str, second: str) -> Figure:
        return self._figure(rows, f"{self.name}-shift")

    def _figure(self, rows: pd.DataFrame, name: str) -> Figure:
        """A plot a task; of heads a plot a token group."""
        plots = _by_group(rows) if self.by_head else _by_task(rows)
        columns = min(3, len(plots))
        plots = [replace(plot, bar=i % columns == 0) for i, plot in enumerate(plots, 1)]
        note, height = "mean over tasks", 3.0
        if not self.by_head:
            note, height = NUMBERED, 0.3 * len(plots[0].components) + 1.1
        return Figure(name, self.title(rows), plots, columns, rows, "pairs", note, height=height)


def _by_task(rows: pd.DataFrame) -> list[Cells]:
    groups = [group for group in GROUPS if group in set(rows["component"])]
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


def _most(rows: pd.DataFrame) -> str:
    """The head that carries most, over all tasks."""
    heads = rows.loc[~rows["component"].str.startswith("all")]
    pooled = heads.groupby(["component", "layer"])["value"].mean()
    if not len(pooled):
        return ""
    component, layer = pooled.index[int(pooled.to_numpy(float).argmax())]
    group, _, head = component.partition(", ")
    return f"; most: layer {int(layer)}, {head}, {group} tokens, {pooled.max():.2f}"


for _site in SITES:
    for _way, _noising in WAYS.items():
        _name = f"patch-{_site}{_way}"
        register("probe", _name, Patch(_name, _site, _noising))
