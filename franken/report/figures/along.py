"""The figures of a trajectory: how far and how straight training went, when each layer moved, and
what the checkpoints could do, over updates.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from matplotlib.figure import Figure

from franken.diff.along_run import totals
from franken.diff.along_summary import layers_of, shown_runs, values_of
from franken.diff.trajectory import Line, Way, ways_of
from franken.report import theme as look
from franken.report.behaviour import HELD_OUT, behaviour
from franken.report.figures.plots import PERCENT, new_axes
from franken.report.figures.sheet import name_lines, save, sheet
from franken.runs import LoadedRun, RunSet, load_run

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.axes import Axes

NULL = (0, (2, 2))  # the line of a null


def draw_along(folder: Path, runs: RunSet) -> list[Path]:
    """Draw the figures of a finished trajectory into its `figures/`; `runs` may hold evaluations of
    its checkpoints, so that they are drawn anew every time. Returns their paths.
    """
    run = load_run(folder)
    if not run.manifest.trajectories or not len(run.layers):
        return []
    known = behaviour(run, runs)
    makers: dict[str, Callable[[], Figure]] = {
        "along": partial(_along, run, known),
        "layers": partial(_layers, run),
        "cosines": partial(_cosines, run),
    }
    drawn = []
    for name, make in makers.items():
        with look.theme():
            drawn.append(save(make(), folder / "figures" / f"{name}.png"))
    return drawn


def plot_distance(run: LoadedRun, *, mode: look.Mode = look.LIGHT, ax: Axes | None = None) -> Axes:
    """‖Δ‖ of the whole model over updates, a line a run; dashed a walk with the same steps and no
    direction.
    """
    ax = new_axes(ax)
    for name, (tint, marker) in _styles(run).items():
        path = _path(run, name)
        at = [0, *path.updates]
        ax.plot(at, [0, *path.distances], color=tint, marker=marker, label=name)
        ax.plot(at, [0, *path.walk().distances], color=tint, linestyle=NULL, linewidth=1)
    ax.set(xlabel="updates", ylabel="‖Δ‖ since the start")
    ax.set_ylim(bottom=0)
    return ax


def plot_coefficient(
    run: LoadedRun, *, mode: look.Mode = look.LIGHT, ax: Axes | None = None
) -> Axes:
    """The coefficient on the first direction over updates, with its line, a run each."""
    ax = new_axes(ax)
    for name, (tint, marker) in _styles(run).items():
        path = _path(run, name)
        line: Line = path.line()
        ends = np.array([0, path.updates[-1]])
        r2 = "" if line.r2 is None else f", R² {line.r2:.3f}"
        values = [0, *path.coefficients()]
        ax.plot(
            [0, *path.updates], values, color=tint, marker=marker, linestyle="", label=name + r2
        )
        ax.plot(ends, [line.at(float(e)) for e in ends], color=tint, linewidth=1)
    ax.set(xlabel="updates", ylabel="coefficient on the first direction")
    return ax


def plot_behaviour(
    run: LoadedRun,
    known: pd.DataFrame,
    *,
    mode: look.Mode = look.LIGHT,
    ax: Axes | None = None,
) -> Axes:
    """acc@1 and acc@k over updates, a line a run: evaluations of the checkpoints with their
    intervals, else what training asked.
    """
    ax = new_axes(ax)
    rows = known[known["metric"].str.startswith("acc@")]
    for name, (tint, marker) in _styles(run).items():
        own = rows[rows["run"] == name]
        evaluated = own[own["source"] != HELD_OUT]
        own = evaluated if len(evaluated) else own
        metrics = sorted(set(own["metric"]), key=lambda m: int(m[4:]))
        for metric, style in zip(metrics[:1] + metrics[-1:], ("-", ":"), strict=False):
            line = own[own["metric"] == metric].sort_values("update")
            value = PERCENT * line["value"].to_numpy(float)
            label = f"{name}, {metric}"
            at = line["update"].to_numpy(int)
            ax.plot(at, value, color=tint, marker=marker, linestyle=style, label=label)
            low, high = (PERCENT * line[end].to_numpy(float) for end in ("ci_low", "ci_high"))
            ax.fill_between(at, low, high, color=tint, alpha=0.12, linewidth=0)
    ax.set(xlabel="updates", ylabel="right answers, %")
    return ax


def plot_other_behaviour(
    run: LoadedRun,
    known: pd.DataFrame,
    *,
    mode: look.Mode = look.LIGHT,
    ax: Axes | None = None,
) -> Axes:
    """Diversity of replies and the share of tokens that are forks over updates, where measured."""
    ax = new_axes(ax)
    rows = known[known["metric"].isin(["diversity", "fork_share"])]
    for name, (tint, marker) in _styles(run).items():
        for metric, style in (("diversity", "-"), ("fork_share", ":")):
            line = rows[(rows["run"] == name) & (rows["metric"] == metric)].sort_values("update")
            if len(line):
                label = f"{name}, {metric.replace('_', ' ')}"
                at, value = line["update"].to_numpy(int), line["value"].to_numpy(float)
                ax.plot(at, value, color=tint, marker=marker, linestyle=style, label=label)
    ax.set(xlabel="updates", ylabel="share")
    ax.set_ylim(bottom=0)
    return ax


def plot_layers(
    run: LoadedRun,
    metric: str,
    label: str,
    *,
    mode: look.Mode = look.LIGHT,
    ax: Axes | None = None,
) -> Axes:
    """A number of every layer's own path, a line a run over its layers; dashed its null."""
    ax = new_axes(ax)
    places = layers_of(run.layers)
    moved = {p for p in places for n in shown_runs(run) if _moved(run, n, p)}
    places = [place for place in places if place in moved]
    for name, (tint, marker) in _styles(run).items():
        found = [values_of(run.layers, name, *place) for place in places]
        at = np.arange(len(places))
        own, null = (
            np.array([values.get(key, np.nan) for values in found])
            for key in (metric, f"{metric}_null")
        )
        ax.plot(at, own, color=tint, marker=marker, label=name)
        ax.plot(at, null, color=tint, linestyle=NULL, linewidth=1)
    step = max(1, len(places) // 12)
    names = [f"{part[0]}{layer}" for part, layer in places][::step]
    ax.set_xticks(np.arange(len(places))[::step], names)
    ax.set(xlabel="layer (t: text, v: vision)", ylabel=label)
    return ax


def plot_cosines(
    run: LoadedRun, name: str, *, mode: look.Mode = look.LIGHT, ax: Axes | None = None
) -> Axes:
    """Cosine between the updates at every two checkpoints of a run, of the whole model."""
    ax = new_axes(ax)
    path = _path(run, name)
    image = ax.imshow(path.cosines, vmin=0, vmax=1, cmap="mako_r", origin="lower")
    step = max(1, len(path.updates) // 8)
    ticks = range(0, len(path.updates), step)
    labels = [f"{path.updates[i]:g}" for i in ticks]
    ax.set_xticks(ticks, labels)
    ax.set_yticks(ticks, labels)
    ax.grid(visible=False)
    ax.set(xlabel="update", ylabel="update")
    ax.set_title(look.literal(name))
    if ax.figure:
        ax.figure.colorbar(image, ax=ax, label="cosine of Δ", pad=0.02)
    return ax


def _along(run: LoadedRun, known: pd.DataFrame) -> Figure:
    plots = [partial(plot_distance, run), partial(plot_coefficient, run)]
    if len(known):
        plots.append(partial(plot_behaviour, run, known))
    if len(known) and known["metric"].isin(["diversity", "fork_share"]).any():
        plots.append(partial(plot_other_behaviour, run, known))
    figure, axes = sheet(len(plots), 2, 5.2, 3.4)
    for ax, plot in zip(axes, plots, strict=True):
        plot(ax=ax)
        ax.legend(fontsize=7)
    figure.suptitle(
        "Whole model; dashed: a walk whose steps are as long and have nothing in common", fontsize=9
    )
    return figure


def _layers(run: LoadedRun) -> Figure:
    shown = (
        ("relative_distance", "‖Δ‖ / ‖W‖"),
        ("straightness", "straightness"),
        ("rank_one_share", "rank-1 share"),
        ("half_change", "half of the change by update"),
    )
    figure, axes = sheet(len(shown), 2, 5.2, 3.0)
    for ax, (metric, label) in zip(axes, shown, strict=True):
        plot_layers(run, metric, label, ax=ax)
    name_lines(
        figure, axes[0], side="outside upper left", note="dashed: a walk with the same steps"
    )
    return figure


def _cosines(run: LoadedRun) -> Figure:
    names = shown_runs(run)[:6]
    figure, axes = sheet(len(names), 3, 4.0, 3.4)
    for ax, name in zip(axes, names, strict=True):
        plot_cosines(run, name, ax=ax)
    return figure


def _moved(run: LoadedRun, name: str, place: tuple[str, int]) -> bool:
    return values_of(run.layers, name, *place).get("distance", 0.0) > 0


def _styles(run: LoadedRun) -> dict[str, tuple[str, str]]:
    names: Sequence[str] = shown_runs(run)
    return {name: look.task_style(name, list(names)) for name in names}


def _path(run: LoadedRun, name: str) -> Way:
    """The whole model's path of one run, from the products of its steps."""
    whole = next(total for key, total in totals(run.samples) if key == (None, None, "all"))
    updates = [record.updates for record in run.manifest.trajectories]
    ways, _ = ways_of(whole.products, updates)
    return ways[list(shown_runs(run)).index(name)]
