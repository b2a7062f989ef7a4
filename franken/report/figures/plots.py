"""Plots over layers: tidy rows of layers.parquet in, a matplotlib Axes out. No function reads a
file or shows a window.

Shared rules: the x axis of a layer plot is the 0-based layer with the thirds of the stack shaded;
every line has its 95 % band and every point its 95 % bar; colours are those of `theme`. The columns
used are model, method, part, layer, component, task, metric, value, ci_low, ci_high, n (see the
design, §4.3). Updates of the weights are in `updates`, answers in `answers`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
import seaborn as sns
from matplotlib.figure import Figure

from franken.layers import thirds
from franken.probe.findings import pool_tasks, task_names
from franken.report import theme as look
from franken.runs import STAGES
from franken.stats import ALPHA

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.axes import Axes
    from matplotlib.typing import LineStyleType

PERCENT = 100.0


def plot_swap(
    df: pd.DataFrame,
    *,
    model: str,
    method: str = "swap-suffix",
    metric: str = "change_rate",
    tasks: Sequence[str] | None = None,
    depth: int | None = None,
    mode: look.Mode = look.LIGHT,
    ax: Axes | None = None,
) -> Axes:
    """Share of answers that a visual-token swap changes (or turns into the source's), by layer; a
    line per task.

    `df`: rows of `franken probe`. y in percent. `depth`: of the whole decoder, where the rows do
    not reach its last layer.
    """
    ax = new_axes(ax)
    rows = select(df, model=model, method=method, metric=metric)
    order = list(tasks or task_names(rows))
    for task in (t for t in order if t in set(rows["task"])):
        tint, marker = look.task_style(task, order)
        draw_line(ax, rows[rows["task"] == task], tint, task, marker=marker)
    measured_layers(ax, rows, mode, depth)
    percent_axis(ax, headroom=True)
    ax.set_ylabel(
        {"change_rate": "answers changed, %", "flip_to_source_rate": "answers turned, %"}[metric]
    )
    return ax


def plot_stitch(
    df: pd.DataFrame,
    *,
    method: str,
    metric: str,
    tasks: Sequence[str] | None = None,
    depth: int | None = None,
    mode: look.Mode = look.LIGHT,
    ax: Axes | None = None,
) -> Axes:
    """What a model's layers bring back in another, in percent, by layer: a line per task, ringed
    where it is sure. `metric`: `restored` or `gain`.
    """
    ax = new_axes(ax)
    rows = select(df, method=method, metric=metric)
    order = list(tasks or task_names(rows))
    for task in (t for t in order if t in set(rows["task"])):
        tint, marker = look.task_style(task, order)
        draw_line(ax, rows[rows["task"] == task], tint, task, marker=marker)
    draw_rings(ax, rows, mode)
    ax.axhline(0, color=mode.muted, linewidth=0.8)
    measured_layers(ax, rows, mode, depth)
    ax.margins(y=0.16)
    ax.set_ylabel({"restored": "divergence restored, %", "gain": "accuracy gained, points"}[metric])
    return ax


def plot_zero(
    df: pd.DataFrame,
    *,
    models: Sequence[str] = STAGES,
    task: str = "all",
    depth: int | None = None,
    mode: look.Mode = look.LIGHT,
    ax: Axes | None = None,
) -> Axes:
    """Accuracy lost, in points, when one decoder layer is replaced by the identity; a line per
    checkpoint.

    `task="all"` is the mean over tasks; where the run holds no such row it is made from the tasks'
    rows, with the interval of a mean of independent estimates.
    """
    ax = new_axes(ax)
    rows = select(df, method="zero", metric="accuracy_drop")
    for model in models:
        part = rows[rows["model"] == model]
        line = part[part["task"] == task] if task in set(part["task"]) else pool_tasks(part)
        draw_line(ax, line, look.colour(model), look.name(model), marker="o")
    ax.axhline(0, color=mode.muted, linewidth=0.8)
    measured_layers(ax, rows, mode, depth)
    low = min(-12.0, PERCENT * float(rows["ci_low"].min())) if len(rows) else -12.0
    ax.set_ylim(low, 100 + 0.125 * (100 - low))  # room for the names of the thirds
    ax.set_ylabel("accuracy lost, points")
    return ax


def plot_by_model(
    df: pd.DataFrame,
    *,
    models: Sequence[str],
    depth: int,
    label: str,
    rate: bool = False,
    mode: look.Mode = look.LIGHT,
    ax: Axes | None = None,
) -> Axes:
    """The mean over tasks by text layer, a line per checkpoint, y in percent from 0; `rate`: to
    100.

    `df`: rows of one method and metric.
    """
    ax = new_axes(ax)
    for model in models:
        line = pool_tasks(df.loc[df["model"] == model])
        draw_line(ax, line, look.colour(model), look.name(model))
    layer_axis(ax, depth, mode)
    if rate:
        percent_axis(ax, headroom=True)
    else:
        ax.set_ylim(bottom=0)
        ax.margins(y=0.16)
    ax.set_ylabel(label)
    return ax


def plot_shift(
    shift: pd.DataFrame, *, depth: int, mode: look.Mode = look.LIGHT, ax: Axes | None = None
) -> Axes:
    """A difference between two checkpoints by text layer, in points; ringed where it is sure.

    `shift`: layer, value, ci_low, ci_high, p_adjusted.
    """
    ax = new_axes(ax)
    draw_line(ax, shift, look.colour("rl"), "difference")
    draw_rings(ax, shift, mode, label=f"p < {ALPHA}")
    ax.axhline(0, color=mode.muted, linewidth=0.8)
    layer_axis(ax, depth, mode)
    ax.margins(y=0.16)
    ax.set_ylabel("difference, points")
    return ax


def plot_heads(
    df: pd.DataFrame,
    *,
    depth: int,
    top: float,
    mode: look.Mode = look.LIGHT,
    ax: Axes | None = None,
) -> Axes:
    """Layer × head, the mean over tasks in percent, coloured from 0 to `top`."""
    ax = new_axes(ax)
    mean = df.groupby(["component", "layer"])["value"].mean().unstack("layer")
    order = sorted(mean.index, key=lambda text: int(text.split()[-1]))
    table = 100 * mean.reindex(index=order, columns=range(depth)).to_numpy(float)
    draw_cells(ax, table, depth, mode, "%", (0.0, top))
    step = 1 if len(order) <= 16 else 4
    ax.set_yticks(range(0, len(order), step), [name.split()[-1] for name in order[::step]])
    ax.set_ylabel("head")
    return ax


def draw_line(
    ax: Axes,
    rows: pd.DataFrame,
    tint: str,
    label: str | None,
    *,
    x: Sequence[float] | pd.Series | None = None,
    scale: float = PERCENT,
    marker: str = "o",
    linestyle: LineStyleType = "-",
) -> None:
    """A line with its interval band; without `x` the rows' layer is on the x axis."""
    if len(rows) == 0:
        return
    rows = rows.sort_values("layer") if x is None else rows
    at = rows["layer"].to_numpy(float) if x is None else np.asarray(x, float)
    value, low, high = (rows[c].to_numpy(float) * scale for c in ("value", "ci_low", "ci_high"))
    ax.fill_between(at, low, high, color=tint, alpha=0.16, linewidth=0)
    label = None if label is None else look.literal(label)
    ax.plot(
        at, value, color=tint, label=label, marker=marker, markeredgewidth=0, linestyle=linestyle
    )


def draw_rings(
    ax: Axes,
    rows: pd.DataFrame,
    mode: look.Mode = look.LIGHT,
    *,
    scale: float = PERCENT,
    label: str | None = None,
) -> None:
    """A ring around every point whose adjusted p is significant."""
    sure = rows.loc[rows["p_adjusted"] < ALPHA]
    ax.plot(
        sure["layer"].astype(float),
        scale * sure["value"],
        linestyle="",
        marker="o",
        markersize=9,
        markerfacecolor="none",
        markeredgecolor=mode.ink,
        markeredgewidth=0.9,
        label=label,
    )


def draw_cells(
    ax: Axes,
    table: np.ndarray,
    depth: int,
    mode: look.Mode,
    unit: str,
    limits: tuple[float, float],
    *,
    palette: str = "mako_r",
) -> None:
    """Cells over the shared layer axis: `table` is [row, layer], the row 0 at the bottom; `limits`
    of the scale above it.
    """
    layer_axis(ax, depth, mode)
    colours = sns.color_palette(palette, as_cmap=True)
    edges = (np.arange(depth + 1) - 0.5, np.arange(len(table) + 1) - 0.5)
    mesh = ax.pcolormesh(
        *edges, table, cmap=colours, vmin=limits[0], vmax=limits[1], rasterized=True
    )
    bar = ax.inset_axes((0.0, 1.03, 0.45, 0.035))
    ax.figure.colorbar(mesh, cax=bar, orientation="horizontal", ticklocation="top")
    bar.tick_params(labelsize=7, length=2, pad=1)
    bar.set_xlabel("")
    ax.annotate(unit, (0.48, 1.03), xycoords="axes fraction", fontsize=7.5, color=mode.muted)
    for text in ax.texts:
        if text.get_text() in ("early", "middle", "late"):  # on the cells, they could not be read
            text.set_visible(False)
    ax.grid(visible=False)


def draw_point(ax: Axes, row: pd.Series, y: float, tint: str, *, scale: float = PERCENT) -> None:
    """A point with its interval, lying on the line `y`."""
    low, high, value = (float(row[c]) * scale for c in ("ci_low", "ci_high", "value"))
    ax.plot(
        [low, high], [y, y], color=tint, linewidth=2.6, alpha=0.55, solid_capstyle="round", zorder=2
    )
    ax.plot([value], [y], marker="o", color=tint, markersize=6.5, markeredgewidth=0, zorder=3)


def select(df: pd.DataFrame, **where: str) -> pd.DataFrame:
    """The rows whose columns have these values; of a layer's rows, those of the whole layer."""
    for column, value in where.items():
        df = df.loc[df[column] == value]
    whole = df.loc[(df["component"] == "all") | df["component"].isna()]
    return whole if len(whole) else df


def new_axes(ax: Axes | None) -> Axes:
    """`ax`, or that of a new figure."""
    return ax or Figure(figsize=(4.6, 3.1)).add_subplot()


def percent_axis(ax: Axes, *, headroom: bool = False) -> None:
    """y from 0 to 100, the same in every panel; `headroom` leaves space for the names of the
    thirds.
    """
    ax.set_ylim(0, 114 if headroom else 104)
    ax.set_yticks(range(0, 101, 20))


def legend(ax: Axes, *, width: int = 52) -> int:
    """A legend in rows above the plot area, so that it never covers data; `width`: characters in a
    row. Returns the rows.
    """
    handles, labels = ax.get_legend_handles_labels()
    columns = 1
    if handles:
        columns = max(1, min(len(labels), width // (max(len(label) for label in labels) + 5)))
        ax.legend(
            handles,
            labels,
            ncols=columns,
            loc="lower left",
            bbox_to_anchor=(-0.02, 1.0),
            borderaxespad=0.3,
            handlelength=1.2,
            columnspacing=0.9,
            labelspacing=0.2,
        )
    return -(-len(labels) // columns)


def measured_layers(ax: Axes, rows: pd.DataFrame, mode: look.Mode, depth: int | None) -> None:
    """The layer axis of `depth`, else as far as the rows go; without rows it says so."""
    if len(rows) == 0:
        ax.text(0.5, 0.5, "not measured", transform=ax.transAxes, ha="center", color=mode.muted)
    if len(rows) or depth:
        layer_axis(ax, depth or int(rows["layer"].max()) + 1, mode)


def layer_axis(ax: Axes, depth: int, mode: look.Mode, part: str = "text") -> None:
    """The x axis of every plot over layers of a part: all of them, 0-based, the thirds shaded and
    named.
    """
    shade_thirds(ax, depth, mode)
    ax.set_xlim(-0.5, depth - 0.5)
    ax.set_xticks(range(depth) if depth <= 16 else range(0, depth, 4))
    ax.set_xlabel(f"{part} layer")


def shade_thirds(ax: Axes, depth: int, mode: look.Mode, *, offset: float = 0.0) -> None:
    """Shade the middle third of a stack and name the thirds at the top of the plot."""
    for third, (start, stop) in thirds(depth).items():
        if third == "middle":
            ax.axvspan(
                start - 0.5 + offset, stop - 0.5 + offset, color=mode.band, zorder=-5, linewidth=0
            )
        if stop > start:
            ax.annotate(
                third,
                ((start + stop - 1) / 2 + offset, 1),
                xycoords=("data", "axes fraction"),
                xytext=(0, -3),
                textcoords="offset points",
                ha="center",
                va="top",
                fontsize=7,
                color=mode.muted,
            )
