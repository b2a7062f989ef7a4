"""The figures of evaluations side by side: success against draws, perception against reasoning,
variety, shape of reasoning.

Each reads a run folder of `franken.evaluate.compare` and is written into its `figures/`. Points
carry 95 % intervals.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from franken.report import theme as look
from franken.runs import STAGES, LoadedRun, load_run

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

Frame = Any
PERCENT = 100
SCORES = ("M_vis", "M_v2r", "M_rea")
PARTS = ("P(description right)", "P(correct | description right)", "P(correct | description wrong)")
SHAPES = ("tokens", "steps", "reflections", "references")
MARKERS = ("o", "s", "^", "D", "v", "P")
LEFT_OUT = ("greedy", "sampled")  # not arms, but how the M scores' answers were drawn


def draw_eval(folder: Path) -> list[Path]:
    """Write all figures of a finished comparison; one that has nothing to show is left out. Returns
    the paths.
    """
    run = load_run(folder)
    models = list(run.manifest.config.models)
    made: list[Path] = []
    with look.theme():
        for name, draw in (
            ("coverage", coverage),
            ("perception", perception),
            ("diversity", diversity),
            ("shape", shape),
        ):
            figure = draw(run, models)
            if figure is not None:
                path = folder / "figures" / f"{name}.png"
                path.parent.mkdir(exist_ok=True)
                figure.savefig(path, dpi=160)
                made.append(path)
    return made


def tints(models: Sequence[str]) -> dict[str, str]:
    """A colour a model: that of its checkpoint where the name tells (…base, …sft, …rl), else one of
    its own.
    """
    spare = iter([c for c in look.TASK_COLOURS * 3 if c not in look.CHECKPOINTS.values()])
    found: dict[str, str] = {}
    for model in models:
        words = [w for w in re.split(r"[^a-z]+", model.lower()) if w in STAGES]
        tint = look.CHECKPOINTS[words[-1]] if words else look.CHECKPOINTS.get(model, "")
        found[model] = tint if tint and tint not in found.values() else next(spare)
    return found


def coverage(run: LoadedRun, models: Sequence[str]) -> Figure | None:
    """acc@k against k, maj@k dashed, the greedy answer as an open point, and the best constant
    answer.
    """
    layers = _asked(run)
    layers = layers[layers["method"] == _main(layers)]
    names = ["all", *[t for t in dict.fromkeys(layers["task"]) if t not in ("all", "pooled")]]
    names = names[1:] if len(names) == 2 else names
    columns = min(3, len(names))
    figure = _figure(3.4 * columns, 2.7 * -(-len(names) // columns) + 0.4)
    axes = figure.subplots(-(-len(names) // columns), columns, squeeze=False, sharey=True).flat
    colours = tints(models)
    for ax, task in zip(axes, names, strict=False):
        for model in models:
            rows = layers[(layers["model"] == model) & (layers["task"] == task)]
            _curve(ax, _by_k(rows, "acc"), colours[model], model, band=True)
            _curve(ax, _by_k(rows, "maj"), colours[model], None, band=False)
            greedy = rows[rows["metric"] == "greedy"]["value"].to_numpy(float) * PERCENT
            ax.plot(
                [1] * len(greedy),
                greedy,
                "o",
                color=colours[model],
                markerfacecolor="none",
                markersize=6,
            )
        base = run.layers[(run.layers["metric"] == "best_constant") & (run.layers["task"] == task)][
            "value"
        ]
        for value in base:
            ax.axhline(PERCENT * value, color=look.LIGHT.muted, linewidth=0.8, linestyle=":")
        ax.set_title("all tasks" if task == "all" else task)
        ax.set_xlabel("k")
        ax.set_xscale("log", base=2)
        ticks = [j for j in (1, 2, 4, 8, 16, 32, 64) if j <= _by_k(layers, "acc").index.max()]
        ax.set_xticks(ticks, [str(j) for j in ticks])
        ax.set_ylim(-3, 103)
    _hide_rest(axes, len(names))
    _legend(
        figure,
        next(iter(figure.axes)),
        "lines: acc@k; dashed: maj@k; open: greedy; dotted: the best constant answer",
    )
    figure.axes[0].set_ylabel("right, %")
    return figure


def perception(run: LoadedRun, models: Sequence[str]) -> Figure | None:
    """Accuracy in every arm, the decomposition and the M scores, and the kinds of errors, over all
    tasks.
    """
    rows = _asked(run)
    rows = rows[rows["task"] == "all"]
    arms = rows[(rows["metric"] == "acc@1") & ~rows["method"].isin(LEFT_OUT)]
    names = list(dict.fromkeys(arms["method"]))
    scores = rows[
        rows["metric"].isin(PARTS) | (rows["metric"].isin(SCORES) & (rows["method"] == "greedy"))
    ]
    shown = [m for m in (*PARTS, *SCORES) if m in set(scores["metric"])]
    errors = rows[rows["metric"].isin(look.ERRORS)]
    height = max(2.8, 0.36 * max(len(names), len(shown)) + 0.28 * len(models) + 1.2)
    figure = _figure(11.5, height)
    first, second, third = figure.subplots(1, 3, width_ratios=[1.25, 1.1, 1])
    rows_of_points(first, arms, "method", names, models)
    first.set_title("acc@1 by what is shown")
    rows_of_points(second, scores, "metric", shown, models)
    second.set_title("what it takes")
    stacked(third, errors, models)
    third.set_title("why answers are wrong")
    figure.legend(*first.get_legend_handles_labels(), loc="outside lower left", ncols=len(models))
    figure.legend(*third.get_legend_handles_labels(), loc="outside lower right", ncols=3)
    return figure


def diversity(run: LoadedRun, models: Sequence[str]) -> Figure | None:
    """Answers on a plane by model and by correctness; diversity against acc@k; their correlations."""
    import pandas as pd

    points = pd.read_parquet(run.folder / "points.parquet").dropna(subset=["x", "y"])
    if not len(points) or "diversity" not in set(run.layers["metric"]):  # it takes two draws
        return None
    colours = tints(models)
    figure = _figure(13.5, 3.9)
    axes = figure.subplots(1, 4, width_ratios=[1, 1, 1.05, 1.1])
    for model in models:
        own = points[points["model"] == model]
        axes[0].plot(
            own["x"], own["y"], ".", color=colours[model], alpha=0.55, markersize=4, label=model
        )
    for right, tint, label in ((True, "#1FA37A", "right"), (False, "#D55E00", "wrong")):
        own = points[points["right"] == right]
        axes[1].plot(own["x"], own["y"], ".", color=tint, alpha=0.55, markersize=4, label=label)
    axes[0].set_title("reasoning, by model")
    axes[1].set_title("reasoning, by outcome")
    for ax in axes[:2]:
        ax.set(xticks=[], yticks=[], xlabel="t-SNE")
        ax.grid(visible=False)
        ax.legend(
            loc="lower left",
            bbox_to_anchor=(0, -0.3),
            ncols=3,
            handletextpad=0.2,
            columnspacing=0.8,
        )
    success = against_success(axes[2], run, models, colours)
    axes[2].set_title("a point a prompt")
    correlations(axes[3], run, models, success)
    axes[3].set_title(f"diversity with {success}")
    return figure


def shape(run: LoadedRun, models: Sequence[str]) -> Figure | None:
    """Length, steps, doubt and looking, and the share of each strategy, per model."""
    rows = _asked(run)
    rows = rows[rows["task"] == "all"]
    strategies = list(dict.fromkeys(m for m in rows["metric"] if m.startswith("strategy ")))
    names = [s for s in SHAPES if s in set(rows["metric"])]
    if not names:
        return None
    figure = _figure(2.1 * len(names) + 4.2, max(2.8, 0.3 * len(strategies) + 1.4))
    axes = figure.subplots(1, len(names) + 1, width_ratios=[1] * len(names) + [2.2])
    colours = tints(models)
    for ax, name in zip(axes, names, strict=False):
        for i, model in enumerate(models):
            found = rows[(rows["metric"] == name) & (rows["model"] == model)]
            _upright(ax, found, i, colours[model], 1)
        ax.set_title(name)
        ax.set_xticks([])
        ax.set_xlim(-0.7, len(models) - 0.3)
        ax.set_ylim(bottom=0)
    rows_of_points(axes[-1], rows, "metric", strategies, models)
    axes[-1].set_yticks(range(len(strategies)), [s.removeprefix("strategy ") for s in strategies])
    axes[-1].set_title("share of each strategy")
    _legend(figure, axes[-1], "mean a reply")
    return figure


def _asked(run: LoadedRun) -> Frame:
    """The rows of the models themselves, without differences and correlations."""
    return run.layers[run.layers["model"].isin(run.manifest.config.models)]


def _main(layers: Frame) -> str:
    """The arm with the curve."""
    return str(layers[layers["metric"].str.startswith("first@")]["method"].iloc[0])


def _by_k(rows: Frame, kind: str) -> Frame:
    found = rows[rows["metric"].str.fullmatch(rf"{kind}@\d+")].copy()
    found["k"] = [int(name.partition("@")[2]) for name in found["metric"]]
    return found.sort_values("k").set_index("k")


def _curve(ax: Axes, rows: Frame, tint: str, label: str | None, *, band: bool) -> None:
    k, value = rows.index.to_numpy(), rows["value"].to_numpy(float) * PERCENT
    if band:
        low, high = (rows[c].to_numpy(float) * PERCENT for c in ("ci_low", "ci_high"))
        ax.fill_between(k, low, high, color=tint, alpha=0.18, linewidth=0)
        ax.plot(k, value, color=tint, label=label, marker=".", markersize=4)
    else:
        ax.plot(k, value, color=tint, linestyle=(0, (3, 2)), linewidth=1.1)


def rows_of_points(
    ax: Axes,
    rows: Frame,
    column: str,
    names: Sequence[str],
    models: Sequence[str],
    mode: look.Mode = look.LIGHT,
) -> None:
    """One line a name, one point a model on it, in percent."""
    colours = tints(models)
    offsets = np.linspace(-0.26, 0.26, len(models)) if len(models) > 1 else [0.0]
    for model, offset, marker in zip(models, offsets, MARKERS * 9, strict=False):
        own = rows[rows["model"] == model].drop_duplicates(column).set_index(column)
        own = own[own.index.isin(names)]
        y = np.array([names.index(n) for n in own.index]) + offset
        low, value, high = (
            own[c].to_numpy(float) * PERCENT for c in ("ci_low", "value", "ci_high")
        )
        ax.hlines(y, low, high, color=colours[model], linewidth=1.3)
        ax.plot(value, y, linestyle="", marker=marker, color=colours[model], label=model)
    ax.set_yticks(range(len(names)), names)
    ax.set_ylim(len(names) - 0.4, -0.6)
    ax.set_xlim(-3, 103)
    ax.set_xlabel("%")
    ax.grid(visible=False, axis="y")
    ax.grid(visible=True, axis="x", color=mode.grid)


def _upright(ax: Axes, rows: Frame, x: float, tint: str, scale: float) -> None:
    for row in rows.to_dict("records"):
        ax.vlines(x, row["ci_low"] * scale, row["ci_high"] * scale, color=tint, linewidth=1.3)
        ax.plot([x], [row["value"] * scale], marker="o", color=tint)


def stacked(ax: Axes, rows: Frame, models: Sequence[str]) -> None:
    """The kinds of errors of each model as shares of all its answers."""
    left = np.zeros(len(models))
    table = rows.pivot_table(index="model", columns="metric", values="value").reindex(list(models))
    for name, tint in look.ERRORS.items():
        if name not in table:
            continue
        width = np.nan_to_num(table[name].to_numpy(float)) * PERCENT
        ax.barh(
            range(len(models)),
            width,
            left=left,
            color=tint,
            height=0.55,
            label=name.removeprefix("error: "),
        )
        left += width
    ax.set_yticks(range(len(models)), list(models))
    ax.set_ylim(len(models) - 0.4, -0.6)
    ax.set_xlim(0, 103)
    ax.set_xlabel("of all answers, %")
    ax.grid(visible=False, axis="y")


def widest_success(run: LoadedRun) -> str:
    """The acc@k of the largest k that diversity was correlated with; acc@1 where it was with none."""
    found = [m for m in run.layers["metric"].unique() if m.startswith("Pearson diversity ~ ")]
    return max(
        (m.split(" ~ ")[1].split(" |")[0] for m in found), key=lambda m: int(m[4:]), default="acc@1"
    )


def against_success(
    ax: Axes, run: LoadedRun, models: Sequence[str], colours: dict[str, str]
) -> str:
    """A point a prompt, jittered; returns the acc@k of the axis."""
    success = widest_success(run)
    values: Frame = run.samples[run.samples["metric"].isin(["diversity", success])]
    values = values[values["method"] == _main(run.layers)]
    table = values.pivot_table(
        index=["model", "task", "sample"], columns="metric", values="value"
    ).dropna()
    rng = np.random.default_rng(0)
    for model in models:
        if model in table.index.get_level_values("model"):
            own = table.loc[model]
            jitter = rng.normal(0, 0.012, len(own))
            y = PERCENT * (own[success] + jitter)
            ax.plot(
                own["diversity"],
                y,
                ".",
                color=colours[model],
                alpha=0.4,
                markersize=4,
                label=look.name(model),
            )
    ax.set_xlabel("diversity (mean cosine distance)")
    ax.set_ylabel(f"{success}, %")
    return success


def correlations(
    ax: Axes, run: LoadedRun, models: Sequence[str], success: str, mode: look.Mode = look.LIGHT
) -> None:
    """Pearson and Spearman, raw (filled) and given difficulty (open)."""
    layers: Frame = run.layers
    wanted = (
        layers["metric"].str.contains(f" diversity ~ {success}", regex=False)
        & layers["value"].notna()
    )
    rows = layers[wanted]
    colours = {**tints(models), "all models": mode.ink}
    labels: list[str] = []
    for row in rows.to_dict("records"):
        at, given = len(labels), " | " in row["metric"]
        tint = colours.get(row["model"], mode.ink)
        ax.hlines(at, row["ci_low"], row["ci_high"], color=tint, linewidth=1.3)
        ax.plot([row["value"]], [at], "o", color=tint, markerfacecolor="none" if given else tint)
        labels.append(f"{row['model']}, {row['metric'].split()[0]}")
    ax.axvline(0, color=mode.muted, linewidth=0.8)
    ax.set_yticks(range(len(labels)), labels, fontsize=6.5)
    ax.set_ylim(len(labels) - 0.4, -0.6)
    ax.set_xlim(-1.05, 1.05)
    ax.grid(visible=False, axis="y")
    ax.set_xlabel("correlation; open: given difficulty")


def _figure(width: float, height: float) -> Figure:
    from matplotlib.figure import Figure

    return Figure(figsize=(width, height), facecolor="white")


def _hide_rest(axes: Any, shown: int) -> None:
    for ax in list(axes.base if hasattr(axes, "base") else axes)[shown:]:
        ax.set_visible(False)


def _legend(figure: Figure, ax: Axes, note: str) -> None:
    handles, labels = ax.get_legend_handles_labels()
    figure.legend(
        handles, labels, loc="outside lower center", ncols=len(labels), title=note, title_fontsize=8
    )
