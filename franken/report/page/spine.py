"""The spine: everything about a layer stands above that layer, one plot above the other."""

from __future__ import annotations

from functools import partial
from typing import NamedTuple

from matplotlib.figure import Figure

from franken.probe.findings import of_decoder
from franken.report import ranges
from franken.report import theme as look
from franken.report.figures import plots, updates
from franken.report.page.layer_sets import effects_plot
from franken.report.page.panels import FRAME, SIZE, Plot
from franken.runs import RunSet

ROW = 1.42  # inches, of one plot of the spine
EDGES = 0.75  # inches, above and below
SMALL = 7.5  # points, of its labels


class Row(NamedTuple):
    """One plot of the spine, with its name and how it is read."""

    name: str
    reading: str
    label: str
    plot: Plot


class Spine:
    """Swaps, skips, attention, energy, merging and freezing on one x axis, one above the other.

    `rows` are drawn top to bottom. They have the frame of all layered panels, so that the page's
    panels continue them downwards.
    """

    key, title, legend, layered = "spine", "One axis: the layers", False, True

    def __init__(self, runset: RunSet) -> None:
        self.rows = _rows(runset)
        self.size = (SIZE[0], ROW * len(self.rows) + EDGES)
        names = ", ".join(row.name.lower() for row in self.rows)
        self.alt = f"By text layer, one above the other: {names}"

    def draw(self, mode: look.Mode) -> Figure:
        """The figure, in the theme that is active."""
        height = self.size[1]
        figure = Figure(figsize=self.size)
        figure.set_layout_engine("none")
        for number, row in enumerate(self.rows):
            bottom = (height - EDGES / 2 - ROW * (number + 1) + 0.14) / height
            ax = figure.add_axes((FRAME[0], bottom, FRAME[2], (ROW - 0.24) / height))
            row.plot(mode=mode, ax=ax)
            ax.set_ylabel(row.label)
            ax.tick_params(labelsize=SMALL)
            ax.yaxis.label.set_fontsize(SMALL)
            if number == 0:
                plots.legend(ax)
            if number < len(self.rows) - 1:
                ax.set_xlabel("")
                ax.set_xticklabels([])
        return figure


def spine(runset: RunSet) -> Spine | None:
    """The spine, or None without anything measured by layer."""
    made = Spine(runset)
    return made if made.rows else None


def _rows(runset: RunSet) -> list[Row]:
    study, depth = runset.study, runset.study.depth
    probe, diff = of_decoder(runset.layers("probe")), runset.layers("diff")
    models = [m for m in study.stages if len(probe) and m in set(probe["model"])]
    by_model = partial(plots.plot_by_model, models=models, depth=depth, label="")
    swap = probe.loc[(probe["method"] == "swap-suffix") & (probe["metric"] == "change_rate")]
    seen = probe.loc[(probe["metric"] == "attention_mass") & (probe["component"] == "all")]
    moved = diff.loc[(diff["part"] == "text") & diff["layer"].notna()]
    rows = []
    if len(swap):
        reading = (
            "Answers that change when the image is exchanged from this layer up, mean over tasks: "
            "how long the image is still being read."
        )
        rows.append(Row("Swap", reading, "changed, %", partial(by_model, swap, rate=True)))
    if len(probe) and (probe["method"] == "zero").any():
        reading = "Accuracy lost without the layer, mean over tasks: what depends on it."
        skip = partial(plots.plot_zero, probe, models=models, depth=depth)
        rows.append(Row("Skip", reading, "lost, points", skip))
    if len(seen):
        reading = (
            "Share of the attention of written tokens that falls on the image, mean over tasks."
        )
        rows.append(Row("Look", reading, "to the image, %", partial(by_model, seen)))
    if len(moved):
        reading = "How far RL moved the layer's weights. The band spans attention and MLP."
        move = partial(updates.plot_update, moved, delta=study.delta, depth=depth)
        rows.append(Row("Move", reading, "‖Δ‖ / ‖W‖, %", move))
    same = ranges.effects(runset)
    if grafts := [e for e in same if e.kind == "graft"]:
        reading = (
            f"RL's layers put into {look.name(study.parent)}: what they gain alone, in points of "
            "acc@1. Dashed: all of RL."
        )
        label = "gain, points"
        rows.append(
            Row("Transplant", reading, label, effects_plot(runset, grafts, label, gain=True))
        )
    if losses := [e for e in same if e.kind != "graft"]:
        reading = (
            "What RL loses when these layers are frozen in training (orange), or put back after "
            "it (blue)."
        )
        label = "loss, points"
        rows.append(Row("Freeze", reading, label, effects_plot(runset, losses, label)))
    return rows
