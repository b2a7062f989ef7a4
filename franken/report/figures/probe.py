"""The figures of one `franken probe`, and of two compared: drawn from the methods' descriptions
(`franken.probe.figure`). Each says in its title what was found, of which model, and n.

Curves by layer have 95 % bands and the decoder's thirds shaded. A "peak" is the set of layers whose
interval overlaps the best one's, since the best layer alone is mostly noise.
"""

from __future__ import annotations

import textwrap
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import seaborn as sns
from matplotlib.figure import Figure as Drawing

from franken.probe.figure import Cells, Curves, Figure
from franken.probe.findings import task_names
from franken.probe.methods import by_class, of_rows
from franken.report import theme as look
from franken.report.figures import plots
from franken.report.figures.sheet import save
from franken.runs import load_run
from franken.stats import ALPHA

if TYPE_CHECKING:
    import numpy as np
    import pandas as pd
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure as Drawing

MOST_NUMBERS = 200  # cells of a heatmap that still get their numbers
MOST_TICKS = 16  # layers, or heads, that are all named


def draw_probe(folder: Path) -> list[Path]:
    """Draw the figures of a finished probe into its `figures/`. Returns their paths."""
    run = load_run(folder)
    rows = run.layers.loc[run.layers["value"].notna()]
    figures: list[Figure] = []
    for methods in by_class([of_rows(str(name)) for name in dict.fromkeys(rows["method"])]):
        own = rows.loc[rows["method"].isin([method.name for method in methods])]
        figures += type(methods[0]).figures(methods, own)
    return _save(folder, figures)


def draw_comparison(folder: Path) -> list[Path]:
    """Draw the figures of a finished `probe-compare`: a picture a method, second checkpoint −
    first.
    """
    run = load_run(folder)
    first, second = run.label.split("→")
    figures = [
        of_rows(str(name)).comparison(rows, first, second)
        for name, rows in run.layers.groupby("method", sort=False)
    ]
    return _save(folder, figures)


def _save(folder: Path, figures: Sequence[Figure]) -> list[Path]:
    run, drawn = load_run(folder), []
    depth = int(run.layers["layer"].max()) + 1  # as far as the run tells
    second = run.manifest.models.get("against")
    label = f"{run.label} against {second}" if second else run.label
    for figure in figures:
        with look.theme():
            drawing = draw(figure, label, depth)
            drawn.append(save(drawing, folder / "figures" / f"{figure.name}.png"))
    return drawn


def draw(figure: Figure, model: str, depth: int) -> Drawing:
    """The figure in the theme that is active, with one legend for the lines of all its plots."""
    lines = -(-len(figure.plots) // figure.columns)
    size = max(6.4, figure.width * figure.columns), figure.height * lines + 0.9
    drawing = Drawing(figsize=size)
    grid = drawing.subplots(lines, figure.columns, squeeze=False, sharey=figure.shared_y)
    for ax in grid.flat[len(figure.plots) :]:
        ax.set_visible(False)
    legend = None
    for ax, plot in zip(grid.flat, figure.plots, strict=False):
        if isinstance(plot, Curves):
            _draw_curves(ax, plot, depth)
            legend = legend or ax.get_legend_handles_labels()
        else:
            _draw_cells(ax, plot)
        if plot.title:
            ax.set_title(plot.title)
    _write_title(drawing, figure, model)
    if legend:
        drawing.legend(*legend, loc="outside lower left", ncols=max(1, len(legend[1])))
    return drawing


def _draw_curves(ax: Axes, plot: Curves, depth: int) -> None:
    tasks = task_names(plot.rows)
    for task in tasks:
        tint, marker = look.task_style(task, tasks)
        rows = plot.rows.loc[plot.rows["task"] == task]
        plots.draw_line(ax, rows, tint, task, marker=marker, scale=plot.scale)
    plots.layer_axis(ax, depth, look.LIGHT, _part(plot.rows))
    if plot.axis == "rate":
        plots.percent_axis(ax, headroom=True)
    else:
        ax.margins(y=0.14)
    if plot.axis == "positive":
        ax.set_ylim(bottom=0)
    elif plot.axis == "signed":
        ax.axhline(0, color=look.LIGHT.muted, linewidth=0.8)
    elif plot.axis == "log":
        ax.set_yscale("log")
    if plot.label:
        ax.set_ylabel(textwrap.fill(plot.label, 28))
    if plot.ringed:
        plots.draw_rings(ax, plot.rows, scale=plot.scale)


def _draw_cells(ax: Axes, plot: Cells) -> None:
    """Few enough cells get their number, but where p is tested those that are not sure do not."""
    table = _by_layer(plot, "value") * plot.scale
    low, high = plot.limits
    sns.heatmap(
        table,
        ax=ax,
        cmap=plot.palette,
        vmin=low,
        vmax=high,
        center=0 if low is None and high is None else None,
        annot=_numbers(plot, table) if table.size <= MOST_NUMBERS else False,
        fmt="",
        annot_kws={"fontsize": 6.5},
        cbar=plot.bar,
        cbar_kws={"label": plot.label, "pad": 0.02} if plot.bar else None,
    )
    step = 1 if table.shape[1] <= MOST_TICKS else 4
    ax.set_xticks(
        [i + 0.5 for i in range(0, table.shape[1], step)], [str(c) for c in table.columns[::step]]
    )
    if plot.heads and len(table) <= MOST_TICKS:
        names = [name.split()[-1] for name in plot.components]
        ax.set_yticks([i + 0.5 for i in range(len(names))], names)
    ax.tick_params(axis="both", rotation=0, length=0)
    ax.set_ylabel("head" if plot.heads else "")
    ax.set_xlabel(f"{_part(plot.rows)} layer")


def _part(rows: pd.DataFrame) -> str:
    """The part whose layers some rows are of; means over tasks do not say, and are of text."""
    return str(rows["part"].iloc[0]) if "part" in rows and len(rows) else "text"


def _by_layer(plot: Cells, column: str) -> pd.DataFrame:
    table = plot.rows.pivot_table(index="component", columns="layer", values=column, dropna=False)
    return table.reindex(list(plot.components)).astype(float)


def _numbers(plot: Cells, table: pd.DataFrame) -> np.ndarray:
    """What is written into the cells: shares with two digits, percentages with none, never 0.00."""
    share = plot.scale == 1
    spell: Callable[[float], str] = "{:.2f}".format if share else "{:.0f}".format
    texts = table.map(spell).replace("-0", "0")
    texts = texts.where(table.abs() >= (0.005 if share else 0), "")
    if plot.tested:
        texts = texts.where(_by_layer(plot, "p_adjusted") < ALPHA, "")
    return texts.to_numpy()


def _write_title(drawing: Drawing, figure: Figure, model: str) -> None:
    """Title (what was found) and subtitle: model, n, how to read it."""
    counts = sorted({int(n) for n in figure.counted["n"]})
    n = str(counts[0]) if len(counts) == 1 else f"{counts[0]} to {counts[-1]}"
    lines = textwrap.wrap(figure.title, int(11.5 * drawing.get_figwidth()))
    drawing.suptitle("\n".join(lines) + "\n\n", x=0.01, ha="left", fontsize=11, fontweight="bold")
    below = f"{model}, n = {n} {figure.unit} a task" + (f"; {figure.note}" if figure.note else "")
    at = 1 - (0.14 + 0.19 * len(lines)) / drawing.get_figheight()
    drawing.text(0.01, at, below, fontsize=9, color=look.LIGHT.muted, va="top")
