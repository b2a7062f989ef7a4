"""What the page's figures are made of: a Panel is one small plot, a Group is read together, a
Section answers a question.

Panels over text layers all have one frame (`FRAME`) and one x axis (the whole decoder), so that a
layer stands at the same place in every one of them, whatever it shows. A group can also be drawn as
one figure for a paper: its finding as the title, n, model and run as the subtitle.
"""

from __future__ import annotations

import textwrap
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from matplotlib.figure import Figure

from franken.report import theme as look
from franken.report.figures import plots
from franken.report.figures.sheet import save
from franken.runs import RunSet
from franken.runs.record import Models

if TYPE_CHECKING:
    import pandas as pd

SIZE = (4.2, 2.95)  # inches, of every panel unless it says otherwise
FRAME = (0.145, 0.155, 0.84, 0.67)  # left, bottom, width, height of a layered plot, as shares
COLUMNS = 3  # of a group's figure
PAPER_DPI = 160
KINDS = ("png", "pdf")  # the files of a group's figure


class Plot(Protocol):
    """Fills an Axes; most are a function of `franken.report.figures` with its rows given."""

    def __call__(self, *, mode: look.Mode, ax: Any) -> object: ...


@dataclass(frozen=True)
class Panel:
    """A plot with the line above it; `alt` is what a screen reader says.

    `layered` plots have the text layers on the x axis, in the frame that all of them share;
    `framed` ones take that frame without being about layers, which also spares the time of laying
    them out.
    """

    key: str
    title: str
    alt: str
    plot: Plot
    size: tuple[float, float] = SIZE
    layered: bool = False
    framed: bool = False
    projection: str | None = None
    legend: bool = True

    def draw(self, mode: look.Mode) -> Figure:
        """The panel by itself, in the theme that is active."""
        figure = Figure(figsize=self.size)
        if self.layered or self.framed:
            figure.set_layout_engine("none")  # the frame is fixed
            ax = figure.add_axes(FRAME)
        else:
            ax = figure.add_subplot(projection=self.projection)
        self.plot(mode=mode, ax=ax)
        if self.legend:
            plots.legend(ax)
        return figure


@dataclass(frozen=True)
class Group:
    """Panels that are read together. `finding` is a sentence with numbers, `basis` says n, models
    and runs.

    `runs` are the folders, relative to the study's, that the panels are drawn from.
    """

    key: str
    title: str
    reading: str
    panels: list[Panel]
    finding: str = ""
    basis: str = ""
    runs: Sequence[str] = ()


@dataclass(frozen=True)
class Section:
    """A question's figures; `notes` stand where there is something to say instead of something to
    draw.
    """

    key: str
    title: str
    lead: str
    groups: list[Group] = field(default_factory=list)
    notes: Sequence[str] = ()


def basis(
    runset: RunSet, runs: Sequence[str], rows: pd.DataFrame, unit: str, shown: Sequence[str] = ()
) -> str:
    """A figure's subtitle: n (of `rows`, and what it counts), the models `shown` (else those in
    `rows`), the runs.
    """
    counts = sorted({int(n) for n in rows["n"].dropna() if n > 0}) if len(rows) else []
    n = (
        f"n = {' to '.join(map(str, dict.fromkeys((counts[0], counts[-1]))))} {unit}; "
        if counts
        else ""
    )
    names = _short_names(runset.study.models)
    of_rows = set(rows["model"]) if len(rows) else set()
    labels = [m for m in shown if m in names] or [m for m in names if m in of_rows]
    models = ", ".join(f"{look.name(m)} = {names[m]}" for m in labels[:5]) or runset.study.title
    folders = [Path(run).name for run in runs]
    listed = ", ".join(folders[:4] if len(folders) > 5 else folders)
    more = f" and {len(folders) - 4} more" if len(folders) > 5 else ""
    return f"{n}{models}; {'run' if len(folders) == 1 else 'runs'} {listed}{more}"


def _short_names(models: Models) -> Models:
    """The last part of each checkpoint's path; the last two where others end alike."""
    last = {label: Path(path).name for label, path in models.items()}
    return {
        label: "/".join(Path(models[label]).parts[-2:])
        if list(last.values()).count(own) > 1
        else own
        for label, own in last.items()
    }


def group_figure(group: Group) -> Figure:
    """All panels of a group in one figure, as for a paper: title = finding, below it n, model and
    run.
    """
    columns = min(COLUMNS, len(group.panels))
    rows = [group.panels[i : i + columns] for i in range(0, len(group.panels), columns)]
    heights = [max(p.size[1] for p in row) for row in rows]
    width = max(sum(p.size[0] for p in row) for row in rows)
    title = textwrap.wrap(look.literal(group.finding or group.title), int(11.5 * width))
    below = textwrap.wrap(look.literal(group.basis), int(15.5 * width))
    head = 0.2 * len(title) + 0.17 * len(below) + 0.25
    figure = Figure(figsize=(width, sum(heights) + head))
    grid = figure.add_gridspec(len(rows), columns, height_ratios=heights)
    for y, row in enumerate(rows):
        for x, panel in enumerate(row):
            ax = figure.add_subplot(grid[y, x], projection=panel.projection)
            panel.plot(mode=look.LIGHT, ax=ax)
            rows_above = plots.legend(ax) if panel.legend else 0
            ax.set_title(look.literal(panel.title), fontsize=9, pad=8 + 12 * rows_above)
    figure.suptitle(
        "\n".join(title) + "\n" * len(below), x=0.01, ha="left", fontsize=11, fontweight="bold"
    )
    top = 1 - (0.1 + 0.2 * len(title)) / figure.get_figheight()
    figure.text(0.01, top, "\n".join(below), fontsize=8.5, color=look.LIGHT.muted, va="top")
    return figure


def save_figures(sections: Sequence[Section], folder: Path) -> dict[str, list[str]]:
    """Write each group's figure into `folder`, a file for each of KINDS. Returns the files' names
    by the group's key.
    """
    written: dict[str, list[str]] = {}
    for group in (g for s in sections for g in s.groups):
        written[group.key] = [f"{group.key}.{kind}" for kind in KINDS]
        with look.theme():
            figure = group_figure(group)
            for name in written[group.key]:
                save(figure, folder / name, dpi=PAPER_DPI)
                figure.set_layout_engine("none")  # it is laid out by now
    return written
