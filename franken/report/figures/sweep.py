"""The figure of a merge sweep: the gain of every window over the base, against random sets of as
many layers.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from franken.report import theme as look
from franken.report.figures import plots
from franken.runs import Manifest, load_run

if TYPE_CHECKING:
    from matplotlib.axes import Axes


def draw_sweep(folder: Path, metric: str = "gain acc@1") -> Path:
    """Write figures/gain.png of a finished sweep: all tasks together, then each. Returns its path."""
    from matplotlib.figure import Figure

    run = load_run(folder)
    rows = run.layers[run.layers["metric"] == metric]
    names = ["all", *plots.task_names(rows)]
    names = names[1:] if len(names) == 2 else names
    columns = 2 if len(names) == 4 else min(3, len(names))
    lines = -(-len(names) // columns)
    with look.theme():
        figure = Figure(figsize=(4.3 * columns, 3.1 * lines), facecolor="white")
        axes = figure.subplots(lines, columns, squeeze=False, sharey=True)
        for ax, task in zip(axes.flat, names, strict=False):
            plot_gain(rows[rows["task"] == task], run.manifest, metric, task, ax=ax)
        for ax in list(axes.flat)[len(names) :]:
            ax.set_visible(False)
        for ax in axes[:, 0]:
            ax.set_ylabel(f"{metric.removeprefix('gain ')} over the base, points")
        handles, labels = axes.flat[0].get_legend_handles_labels()
        figure.legend(handles, labels, loc="outside lower center", ncols=len(labels))
        path = folder / "figures" / "gain.png"
        path.parent.mkdir(exist_ok=True)
        figure.savefig(path, dpi=160)
    return path


def draw_scores(folder: Path) -> Path:
    """Write figures/gain_m.png: the gain in M_vis, M_v2r and M_rea, all tasks together, splices at
    the right.
    """
    from matplotlib.figure import Figure

    run = load_run(folder)
    with look.theme():
        figure = Figure(figsize=(13, 3.3), facecolor="white")
        axes = figure.subplots(1, 3, sharey=True)
        for ax, name in zip(axes, ("M_vis", "M_v2r", "M_rea"), strict=True):
            rows = run.layers[
                (run.layers["metric"] == f"gain {name}") & (run.layers["task"] == "all")
            ]
            plot_gain(rows, run.manifest, f"gain {name}", "all", ax=ax)
            ax.set_title(name)
        axes[0].set_ylabel("over the base, points")
        handles, labels = axes[0].get_legend_handles_labels()
        figure.legend(handles, labels, loc="outside lower center", ncols=len(labels))
        path = folder / "figures" / "gain_m.png"
        path.parent.mkdir(exist_ok=True)
        figure.savefig(path, dpi=160)
    return path


def plot_gain(rows: Any, manifest: Manifest, metric: str, task: str, *, ax: Axes) -> Axes:
    """One panel: each window as a bar over its layers with its 95 % interval, the donor's gain, and
    the control band.

    `rows`: those of the panel's metric and task. y in points. The band spans the random sets,
    lowest to highest.
    """
    mode, width, depth = look.LIGHT, manifest.config.window or 0, manifest.config.depth or 0
    band = manifest.band.get(metric, {}).get(task)
    if band:
        label = f"{band.n} random sets of {width} layers"
        ax.axhspan(
            100 * band.low,
            100 * band.high,
            color=look.CHECKPOINTS["random"],
            alpha=0.3,
            label=label,
        )
    donor = rows[rows["method"] == "donor"]
    if len(donor):
        ax.axhline(
            100 * float(donor["value"].iloc[0]),
            color=look.colour("rl"),
            linestyle=(0, (4, 3)),
            label="the donor",
        )
    ax.axhline(0, color=mode.muted, linewidth=0.8)
    tint = look.CHECKPOINTS["hybrid"]
    shown = rows[rows["method"] == "window"].sort_values("layer")
    starts = shown["layer"].to_numpy(float)
    value, low, high = (100 * shown[c].to_numpy(float) for c in ("value", "ci_low", "ci_high"))
    centres = starts + (width - 1) / 2
    ax.vlines(centres, low, high, color=tint, linewidth=1.2, alpha=0.6)
    ax.hlines(
        value,
        starts - 0.4,
        starts + width - 0.6,
        color=tint,
        linewidth=2.6,
        label=f"window of {width} layers",
    )
    ax.plot(centres, value, linestyle="", marker="o", color=tint, markersize=4)
    plots.shade_thirds(ax, depth, mode)
    ax.margins(y=0.14)  # room for the names of the thirds
    splices = rows[rows["method"] == "splice"].to_dict("records")
    for at, row in enumerate(splices, depth):
        ax.vlines(at, 100 * row["ci_low"], 100 * row["ci_high"], color=mode.ink, linewidth=1.2)
        ax.plot([at], [100 * row["value"]], marker="D", color=mode.ink, markersize=5)
        ax.annotate(
            row["model"],
            (at, 100 * row["value"]),
            (4, 0),
            textcoords="offset points",
            fontsize=7,
            va="center",
        )
    ax.set_xlim(-0.5, depth - 0.5 + len(splices))
    ax.set_xticks(range(depth) if depth <= 16 else range(0, depth, 4))
    ax.set_xlabel("text layer")
    ax.set_title("all tasks" if task == "all" else task)
    return ax
