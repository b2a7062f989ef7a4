"""The figures of a merge sweep: the gain of every window over the base, against random sets of as
many layers.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from franken.evaluate.mscores import SCORES
from franken.probe.findings import task_names
from franken.report import theme as look
from franken.report.figures.plots import PERCENT, layer_axis, new_axes
from franken.report.figures.sheet import name_lines, save, sheet
from franken.runs import Manifest, load_run

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.axes import Axes


GAIN = "gain acc@1"


def draw_sweep(folder: Path) -> Path:
    """Write figures/gain.png of a finished sweep: all tasks together, then each. Returns its
    path.
    """
    run = load_run(folder)
    rows = run.layers.loc[run.layers["metric"] == GAIN]
    names = ["all", *task_names(rows)]
    names = names[1:] if len(names) == 2 else names
    columns = 2 if len(names) == 4 else 3
    with look.theme():
        figure, axes = sheet(len(names), columns, 4.3, 3.1, sharey=True)
        for place, (ax, task) in enumerate(zip(axes, names, strict=True)):
            plot_gain(rows.loc[rows["task"] == task], run.manifest, GAIN, task, ax=ax)
            if place % columns == 0:
                ax.set_ylabel("acc@1 over the base, points")
        name_lines(figure, axes[0])
        return save(figure, folder / "figures" / "gain.png", dpi=160)


def draw_scores(folder: Path) -> Path:
    """Write figures/gain_m.png: the gain in M_vis, M_v2r and M_rea, all tasks together, splices at
    the right.
    """
    run = load_run(folder)
    rows = run.layers.loc[run.layers["task"] == "all"]
    with look.theme():
        figure, axes = sheet(len(SCORES), 3, 13 / 3, 3.3, sharey=True)
        for ax, name in zip(axes, SCORES, strict=True):
            metric = f"gain {name}"
            plot_gain(rows.loc[rows["metric"] == metric], run.manifest, metric, "all", ax=ax)
            ax.set_title(name)
        axes[0].set_ylabel("over the base, points")
        name_lines(figure, axes[0])
        return save(figure, folder / "figures" / "gain_m.png", dpi=160)


def plot_gain(
    rows: pd.DataFrame, manifest: Manifest, metric: str, task: str, *, ax: Axes | None = None
) -> Axes:
    """Each window as a bar over its layers with its 95 % interval, the donor's gain, and the
    control band.

    `rows`: those of the metric and task. y in points. The band spans the random sets, lowest to
    highest.
    """
    ax = new_axes(ax)
    mode, width, depth = look.LIGHT, manifest.config.window or 0, manifest.config.depth or 0
    band = manifest.band.get(metric, {}).get(task)
    if band:
        style = {"color": look.CHECKPOINTS["random"], "alpha": 0.3}
        label = f"{band.n} random sets of {width} layers"
        ax.axhspan(PERCENT * band.low, PERCENT * band.high, label=label, **style)
    for donor in rows.loc[rows["method"] == "donor", "value"][:1]:
        tint = look.colour("rl")
        ax.axhline(PERCENT * donor, color=tint, linestyle=(0, (4, 3)), label="the donor")
    ax.axhline(0, color=mode.muted, linewidth=0.8)
    tint = look.CHECKPOINTS["hybrid"]
    windows = rows.loc[rows["method"] == "window"].sort_values("layer")
    starts = windows["layer"].to_numpy(float)
    low, value, high = PERCENT * windows[["ci_low", "value", "ci_high"]].to_numpy(float).T
    centres = starts + (width - 1) / 2
    ax.vlines(centres, low, high, color=tint, linewidth=1.2, alpha=0.6)
    label = f"window of {width} layers"
    ax.hlines(value, starts - 0.4, starts + width - 0.6, color=tint, linewidth=2.6, label=label)
    ax.plot(centres, value, linestyle="", marker="o", color=tint, markersize=4)
    ax.margins(y=0.14)  # room for the names of the thirds
    splices = rows.loc[rows["method"] == "splice"]
    for at, row in enumerate(splices.to_dict("records"), depth):
        low, value, high = (PERCENT * row[c] for c in ("ci_low", "value", "ci_high"))
        ax.vlines(at, low, high, color=mode.ink, linewidth=1.2)
        ax.plot([at], [value], marker="D", color=mode.ink, markersize=5)
        near = {"xytext": (4, 0), "textcoords": "offset points", "va": "center"}
        ax.annotate(row["model"], (at, value), fontsize=7, **near)
    layer_axis(ax, depth, mode)
    ax.set_xlim(-0.5, depth - 0.5 + len(splices))
    ax.set_title("all tasks" if task == "all" else task)
    return ax
