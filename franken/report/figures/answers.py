"""Plots of answers: success against tries, arms, variety, and why answers are wrong.

Points and lines carry 95 % intervals; rates are drawn in percent.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np

from franken.report import theme as look
from franken.report.figures.plots import (
    PERCENT,
    draw_line,
    draw_point,
    new_axes,
    percent_axis,
    select,
)
from franken.runs import STAGES, LoadedRun

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.axes import Axes

ARMS = {"image": "image", "text": "description", "blind": "nothing"}
RIGHT = {True: "#1FA37A", False: "#D55E00"}
MARKERS = ("o", "s", "^", "D", "v", "P")


def plot_points(
    df: pd.DataFrame,
    *,
    labels: Sequence[str],
    task: str = "all",
    metric: str = "acc@1",
    arm: str = "image",
    reference: Sequence[str] = ("sft", "rl"),
    rate: bool = True,
    limits: tuple[float, float] | None = None,
    mode: look.Mode = look.LIGHT,
    ax: Axes | None = None,
) -> Axes:
    """One point with its interval per model, top to bottom in the order of `labels`; reference
    models as bands.

    For hybrids beside base, donor and control, for freeze arms beside RL, and for counts, which are
    no `rate`. x in percent, from `limits` if given.
    """
    ax = new_axes(ax)
    rows = select(df, task=task, metric=metric, method=arm).dropna(subset=["value"])
    points = {str(row["model"]): row for _, row in rows.iterrows()}
    shown = [label for label in labels if label in points]
    scale = PERCENT if rate else 1
    for label in (r for r in reference if r in points):
        tint = look.colour(label)
        low, value, high = (float(points[label][c]) * scale for c in ("ci_low", "value", "ci_high"))
        ax.axvspan(low, high, color=tint, alpha=0.12, linewidth=0, zorder=0)
        ax.axvline(value, color=tint, linewidth=1.1, linestyle=(0, (4, 3)), zorder=1)
    for y, label in enumerate(shown):
        draw_point(ax, points[label], y, look.colour(label), scale=scale)
    name_rows(ax, [look.name(label) for label in shown], mode)
    ax.set_xlabel(f"{metric}, %" if rate else metric)
    if limits:
        ax.set_xlim(*limits)
    for tick in ax.get_yticklabels():
        tick.set_color(mode.ink)
    return ax


def plot_acc_at_k(
    df: pd.DataFrame,
    *,
    models: Sequence[str],
    task: str = "all",
    mode: look.Mode = look.LIGHT,
    ax: Axes | None = None,
) -> Axes:
    """acc@k against k, a line per checkpoint: where a parent overtakes its RL child, the lines
    cross. y in percent.
    """
    ax = new_axes(ax)
    rows = df.loc[(df["task"] == task) & (df["method"] == "image")]
    for model in models:
        line = by_k(rows.loc[rows["model"] == model], "acc")
        style = (0, (4, 2)) if model == "control" else "-"
        draw_line(ax, line, look.colour(model), look.name(model), x=line["k"], linestyle=style)
    name_ks(ax, sorted(set(by_k(rows, "acc")["k"])))
    ax.minorticks_off()
    percent_axis(ax)
    ax.set_xlabel("k: samples a prompt may use")
    ax.set_ylabel("acc@k, %")
    return ax


def plot_arms(
    df: pd.DataFrame,
    *,
    models: Sequence[str],
    task: str = "all",
    mode: look.Mode = look.LIGHT,
    ax: Axes | None = None,
) -> Axes:
    """acc@1 with the image, with a description instead, and with neither; a line per checkpoint.
    y in percent.
    """
    ax = new_axes(ax)
    rows = select(df, task=task, metric="acc@1")
    arms = [arm for arm in ARMS if arm in set(rows["method"])]
    for offset, model in zip(np.linspace(-0.12, 0.12, max(2, len(models))), models, strict=False):
        own = rows.loc[rows["model"] == model].set_index("method").reindex(arms)
        own = own.dropna(subset=["value"])
        ends = own[["ci_low", "value", "ci_high"]].to_numpy(float).T * PERCENT
        ax.errorbar(
            np.array([arms.index(str(arm)) for arm in own.index]) + offset,
            ends[1],
            yerr=np.clip(np.diff(ends, axis=0), 0, None),
            color=look.colour(model),
            marker="o",
            label=look.name(model),
            linewidth=1,
            elinewidth=1.8,
            capsize=0,
            alpha=0.95,
        )
    ax.set_xticks(range(len(arms)), [ARMS[arm] for arm in arms])
    ax.set_xlim(-0.4, len(arms) - 0.6)
    percent_axis(ax)
    ax.set_ylabel("acc@1, %")
    return ax


def plot_rows(
    df: pd.DataFrame,
    *,
    column: str,
    names: Sequence[str],
    models: Sequence[str],
    called: Mapping[str, str] | None = None,
    mode: look.Mode = look.LIGHT,
    ax: Axes | None = None,
) -> Axes:
    """One line a name of `column`, one point a model on it, in percent; `called`: what stands
    beside a line instead of its name.
    """
    ax = new_axes(ax)
    colours = tints(models)
    offsets = np.linspace(-0.26, 0.26, len(models)) if len(models) > 1 else [0.0]
    for model, offset, marker in zip(models, offsets, MARKERS * 9, strict=False):
        own = df.loc[df["model"] == model].drop_duplicates(column).set_index(column)
        own = own.loc[own.index.isin(names)]
        y = np.array([names.index(str(n)) for n in own.index]) + offset
        low, value, high = PERCENT * own[["ci_low", "value", "ci_high"]].to_numpy(float).T
        ax.hlines(y, low, high, color=colours[model], linewidth=1.3)
        label = look.name(model)
        ax.plot(value, y, linestyle="", marker=marker, color=colours[model], label=label)
    name_rows(ax, [(called or {}).get(name, name) for name in names], mode)
    ax.set_xlim(-3, 103)
    ax.set_xlabel("%")
    return ax


def plot_errors(
    df: pd.DataFrame, *, models: Sequence[str], mode: look.Mode = look.LIGHT, ax: Axes | None = None
) -> Axes:
    """The kinds of errors of each model as shares of all its answers, side by side in a bar."""
    ax = new_axes(ax)
    left = np.zeros(len(models))
    table = df.pivot_table(index="model", columns="metric", values="value").reindex(list(models))
    for name, tint in look.ERRORS.items():
        if name in table:
            width = np.nan_to_num(table[name].to_numpy(float)) * PERCENT
            label = name.removeprefix("error: ")
            ax.barh(range(len(models)), width, left=left, color=tint, height=0.55, label=label)
            left += width
    name_rows(ax, [look.name(model) for model in models], mode)
    ax.grid(visible=False, axis="x")
    ax.set_xlim(0, 103)
    ax.set_xlabel("of all answers, %")
    return ax


def plot_plane(
    points: pd.DataFrame,
    *,
    column: str,
    tints: Mapping[str, str] | Mapping[bool, str],
    mode: look.Mode = look.LIGHT,
    ax: Axes | None = None,
) -> Axes:
    """Replies on a plane (t-SNE of their embeddings), coloured by `model` or by `right`."""
    ax = new_axes(ax)
    names = {True: "right", False: "wrong"}
    for (value, tint), marker in zip(tints.items(), look.TASK_MARKERS * 9, strict=False):
        own = points.loc[points[column] == value]
        label = names[value] if isinstance(value, bool) else look.name(str(value))
        style = {"color": tint, "alpha": 0.5, "markersize": 2.6, "label": label}
        ax.plot(own["x"], own["y"], marker, linestyle="", **style)
    ax.set(xticks=[], yticks=[])
    ax.grid(visible=False)
    return ax


def plot_against_success(
    run: LoadedRun, *, models: Sequence[str], mode: look.Mode = look.LIGHT, ax: Axes | None = None
) -> Axes:
    """Diversity of a prompt's replies against its widest acc@k, a point a prompt, jittered."""
    ax = new_axes(ax)
    success, colours = widest_success(run), tints(models)
    values = run.samples.loc[run.samples["metric"].isin(["diversity", success])]
    values = values.loc[values["method"] == main_arm(run.layers)]
    keys = ["model", "task", "sample"]
    table = values.pivot_table(index=keys, columns="metric", values="value").dropna()
    rng = np.random.default_rng(0)
    for model in models:
        if model in table.index.get_level_values("model"):
            own = table.loc[model]
            y = PERCENT * (own[success] + rng.normal(0, 0.012, len(own)))
            style = {"color": colours[model], "alpha": 0.4, "markersize": 4}
            ax.plot(own["diversity"], y, ".", label=look.name(model), **style)
    ax.set_xlabel("diversity (mean cosine distance)")
    ax.set_ylabel(f"{success}, %")
    return ax


def plot_correlations(
    run: LoadedRun, *, models: Sequence[str], mode: look.Mode = look.LIGHT, ax: Axes | None = None
) -> Axes:
    """Pearson and Spearman of diversity with success, raw (filled) and given difficulty (open)."""
    ax = new_axes(ax)
    layers, wanted = run.layers, f" diversity ~ {widest_success(run)}"
    known = layers["metric"].str.contains(wanted, regex=False) & layers["value"].notna()
    colours = {**tints(models), "all models": mode.ink}
    labels: list[str] = []
    for row in layers.loc[known].to_dict("records"):
        metric, tint = row["metric"], colours.get(row["model"], mode.ink)
        face = "none" if " | " in metric else tint
        ax.hlines(len(labels), row["ci_low"], row["ci_high"], color=tint, linewidth=1.3)
        ax.plot([row["value"]], [len(labels)], "o", color=tint, markerfacecolor=face)
        labels.append(f"{row['model']}, {metric.split()[0]}")
    ax.axvline(0, color=mode.muted, linewidth=0.8)
    name_rows(ax, labels, mode, fontsize=6.5)
    ax.grid(visible=False, axis="x")
    ax.set_xlim(-1.05, 1.05)
    ax.set_xlabel("correlation; open: given difficulty")
    return ax


def name_rows(
    ax: Axes, names: Sequence[str], mode: look.Mode, *, fontsize: float | None = None
) -> None:
    """A horizontal line for each name, top to bottom."""
    ax.set_yticks(range(len(names)), names, fontsize=fontsize)
    ax.set_ylim(len(names) - 0.4, -0.6)
    ax.grid(visible=True, axis="x", color=mode.grid)
    ax.grid(visible=False, axis="y")


def name_ks(ax: Axes, ks: Sequence[int]) -> None:
    """A logarithmic x axis of numbers of samples."""
    ax.set_xscale("log", base=2)
    ax.set_xticks(ks, [str(k) for k in ks])


def by_k(rows: pd.DataFrame, kind: str) -> pd.DataFrame:
    """The rows of acc@k, or of another `kind`, by ascending k."""
    rows = rows.loc[rows["metric"].str.fullmatch(rf"{kind}@\d+")]
    return rows.assign(k=rows["metric"].str.split("@").str[1].astype(int)).sort_values("k")


def main_arm(layers: pd.DataFrame) -> str:
    """The arm of a comparison that has the curve over draws."""
    return str(layers.loc[layers["metric"].str.startswith("first@"), "method"].iloc[0])


def widest_success(run: LoadedRun) -> str:
    """The acc@k of the largest k that diversity was correlated with; acc@1 where it was with
    none.
    """
    known = [m for m in run.layers["metric"].unique() if m.startswith("Pearson diversity ~ ")]
    metrics = (metric.split(" ~ ")[1].split(" |")[0] for metric in known)
    return max(metrics, key=lambda metric: int(metric[4:]), default="acc@1")


def tints(models: Sequence[str]) -> dict[str, str]:
    """A colour a model: that of its checkpoint where the name tells (…base, …sft, …rl), else one of
    its own.
    """
    if all(model in look.CHECKPOINTS for model in models):
        return {model: look.CHECKPOINTS[model] for model in models}
    spare = iter([c for c in look.TASK_COLOURS * 3 if c not in look.CHECKPOINTS.values()])
    colours: dict[str, str] = {}
    for model in models:
        words = [w for w in re.split(r"[^a-z]+", model.lower()) if w in STAGES]
        tint = look.CHECKPOINTS[words[-1]] if words else look.CHECKPOINTS.get(model, "")
        colours[model] = tint if tint and tint not in colours.values() else next(spare)
    return colours
