"""Which figures the page shows, in what order; and the spine, where everything about a layer stands
above that layer.

The sections are made in `where`, `what`, `layer_sets` and `answers`,
of the parts in `panels`.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from franken.report import ranges
from franken.report import theme as look
from franken.report.evidence import Evidence
from franken.report.figures import plots
from franken.report.page.answers import how_good
from franken.report.page.layer_sets import necessary, transfer
from franken.report.page.panels import FRAME, SIZE, Section
from franken.report.page.what import what
from franken.report.page.where import where
from franken.report.verdicts import paired

if TYPE_CHECKING:
    from matplotlib.figure import Figure

ROW = 1.42  # inches, of one plot of the spine
EDGES = 0.75  # inches, above and below


def sections(found: Evidence) -> list[Section]:
    """All sections of a page, those without runs with a note instead of figures."""
    return [where(found), what(found), transfer(found), necessary(found), how_good(found)]


class Spine:
    """Swaps, skips, attention, energy, merging and freezing on one x axis, one above the other.

    `rows` are (name, reading) of what is drawn, top to bottom. Its plots have the frame of all
    layered panels, so that the
    page's panels continue it downwards.
    """

    key, title, legend, layered = "spine", "One axis: the layers", False, True

    def __init__(self, found: Evidence) -> None:
        self.plots = _spine_rows(found)
        self.depth = found.study.depth
        self.rows = [(name, reading) for name, reading, _ in self.plots]
        self.size = (SIZE[0], ROW * len(self.plots) + EDGES)
        self.alt = f"By text layer, one above the other: {', '.join(name.lower() for name, _ in self.rows)}"

    def draw(self, mode: look.Mode) -> Figure:
        """The figure, in the theme that is active."""
        from matplotlib.figure import Figure

        height = self.size[1]
        figure = Figure(figsize=self.size)
        figure.set_layout_engine("none")
        for number, (_, _, plot) in enumerate(self.plots):
            bottom = (height - EDGES / 2 - ROW * (number + 1) + 0.14) / height
            ax: Any = figure.add_axes((FRAME[0], bottom, FRAME[2], (ROW - 0.24) / height))
            plot(ax, mode)
            ax.tick_params(labelsize=7.5)
            ax.yaxis.label.set_size(7.5)
            if number == 0:
                plots.legend(ax)
            if number < len(self.plots) - 1:
                ax.set_xlabel("")
                ax.set_xticklabels([])
        return figure


def spine(found: Evidence) -> Spine | None:
    """The spine, or None without anything measured by layer."""
    made = Spine(found)
    return made if made.plots else None


def _spine_rows(found: Evidence) -> list[tuple[str, str, Callable[[Any, look.Mode], Any]]]:
    study, depth = found.study, found.study.depth
    probe, diff = found.layers("probe"), found.layers("diff")
    models = [m for m in study.stages if len(probe) and m in set(probe["model"])]
    swap = probe[(probe["method"] == "swap-suffix") & (probe["metric"] == "change_rate")]
    seen = probe[(probe["metric"] == "attention_mass") & (probe["component"] == "all")]
    moved = diff[(diff["part"] == "text") & diff["layer"].notna()] if len(diff) else diff
    same = ranges.effects(found)
    rows: list[tuple[str, str, Callable[[Any, look.Mode], Any]]] = []
    if len(swap):
        rows.append(
            (
                "Swap",
                "Answers that change when the image is exchanged from this layer up, mean over tasks: how long the image is still "
                "being read.",
                lambda ax, mode: _draw_models(ax, mode, swap, models, depth, "changed, %"),
            )
        )
    if len(probe) and (probe["method"] == "zero").any():
        rows.append(
            (
                "Skip",
                "Accuracy lost without the layer, mean over tasks: what depends on it.",
                lambda ax, mode: plots.plot_zero(
                    probe, models=models, depth=depth, mode=mode, ax=ax
                ).set_ylabel("lost, points"),
            )
        )
    if len(seen):
        rows.append(
            (
                "Look",
                "Share of the attention of written tokens that falls on the image, mean over tasks.",
                lambda ax, mode: _draw_models(
                    ax, mode, seen, models, depth, "to the image, %", free=True
                ),
            )
        )
    if len(moved):
        rows.append(
            (
                "Move",
                "How far RL moved the layer's weights. The band spans attention and MLP.",
                lambda ax, mode: plots.plot_update(
                    moved, delta=study.delta, depth=depth, mode=mode, ax=ax
                ).set_ylabel("‖Δ‖ / ‖W‖, %"),
            )
        )
    for kinds, title, reading, label in (
        (
            ("graft",),
            "Transplant",
            f"RL's layers put into {look.name(study.parent)}: what they gain alone, in points of "
            "acc@1. Dashed: all of RL.",
            "gain, points",
        ),
        (
            ("freeze", "revert"),
            "Freeze",
            "What RL loses when these layers are frozen in training (orange), or put back after "
            "it (blue).",
            "loss, points",
        ),
    ):
        own = [e for e in same if e.kind in kinds]
        if own:
            rows.append((title, reading, _drawer(found, own, label, "graft" in kinds)))
    return rows


def _drawer(
    found: Evidence, own: list[ranges.Effect], label: str, gains: bool
) -> Callable[[Any, look.Mode], Any]:
    whole = paired(found, found.study.parent, "rl") if gains else None
    total = None if whole is None else float(whole["diff"])

    def draw(ax: Any, mode: look.Mode) -> None:
        ranges.plot_effects(
            own, depth=found.study.depth, parent=found.study.parent, whole=total, mode=mode, ax=ax
        ).set_ylabel(label)

    return draw


def _draw_models(
    ax: Any,
    mode: look.Mode,
    rows: Any,
    models: list[str],
    depth: int,
    label: str,
    *,
    free: bool = False,
) -> None:
    for m in models:
        plots.draw_line(
            ax, plots.pool_tasks(rows[rows["model"] == m]), look.colour(m), look.name(m)
        )
    plots.layer_axis(ax, depth, mode)
    if free:
        ax.set_ylim(bottom=0)
        ax.margins(y=0.2)
    else:
        plots.percent_axis(ax, headroom=True)
    ax.set_ylabel(label)
