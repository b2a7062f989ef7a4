"""The figures of evaluations side by side: success against draws, perception against reasoning,
variety, shape of reasoning.

Each reads a run folder of `franken.evaluate.compare` and is written into its `figures/`.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from franken.evaluate.mscores import SCORES
from franken.evaluate.perception import DECOMPOSITION
from franken.report import theme as look
from franken.report.figures import answers
from franken.report.figures.plots import PERCENT, draw_line
from franken.report.figures.sheet import name_lines, save, sheet
from franken.runs import LoadedRun, load_run

SHAPES = ("tokens", "steps", "reflections", "references")
LEFT_OUT = ("greedy", "sampled")  # not arms, but how the M scores' answers were drawn
TICKS = (1, 2, 4, 8, 16, 32, 64)


def draw_eval(folder: Path) -> list[Path]:
    """Write all figures of a finished comparison; one that has nothing to show is left out. Returns
    the paths.
    """
    run = load_run(folder)
    models, written = list(run.manifest.config.models), []
    with look.theme():
        for draw in (coverage, perception, diversity, shape):
            figure = draw(run, models)
            if figure is not None:
                written.append(save(figure, folder / "figures" / f"{draw.__name__}.png", dpi=160))
    return written


def coverage(run: LoadedRun, models: Sequence[str]) -> Figure:
    """acc@k against k, maj@k dashed, the greedy answer as an open point, and the best constant
    answer.
    """
    layers = _of_models(run)
    layers = layers.loc[layers["method"] == answers.main_arm(layers)]
    names = ["all", *(t for t in dict.fromkeys(layers["task"]) if t not in ("all", "pooled"))]
    names = names[1:] if len(names) == 2 else names
    figure, axes = sheet(len(names), 3, 3.4, 2.7, extra=0.4, sharey=True)
    constant = run.layers.loc[run.layers["metric"] == "best_constant"]
    widest = answers.by_k(layers, "acc")["k"].max()
    for ax, task in zip(axes, names, strict=True):
        for model, tint in answers.tints(models).items():
            rows = layers.loc[(layers["model"] == model) & (layers["task"] == task)]
            _plot_curves(ax, rows, tint, model)
        for value in constant.loc[constant["task"] == task, "value"]:
            ax.axhline(PERCENT * value, color=look.LIGHT.muted, linewidth=0.8, linestyle=":")
        ax.set_title("all tasks" if task == "all" else task)
        ax.set_xlabel("k")
        answers.name_ks(ax, [k for k in TICKS if k <= widest])
        ax.set_ylim(-3, 103)
    note = "lines: acc@k; dashed: maj@k; open: greedy; dotted: the best constant answer"
    name_lines(figure, axes[0], note=note)
    axes[0].set_ylabel("right, %")
    return figure


def perception(run: LoadedRun, models: Sequence[str]) -> Figure:
    """Accuracy in every arm, the decomposition and the M scores, and the kinds of errors, over all
    tasks.
    """
    rows = _of_models(run)
    rows = rows.loc[rows["task"] == "all"]
    arms = rows.loc[(rows["metric"] == "acc@1") & ~rows["method"].isin(LEFT_OUT)]
    names = list(dict.fromkeys(arms["method"]))
    parts = rows["metric"].isin(DECOMPOSITION)
    scores = rows.loc[parts | (rows["metric"].isin(SCORES) & (rows["method"] == "greedy"))]
    shown = [m for m in (*DECOMPOSITION, *SCORES) if m in set(scores["metric"])]
    height = max(2.8, 0.36 * max(len(names), len(shown)) + 0.28 * len(models) + 1.2)
    figure = Figure(figsize=(11.5, height))
    first, second, third = figure.subplots(1, 3, width_ratios=[1.25, 1.1, 1])
    answers.plot_rows(arms, column="method", names=names, models=models, ax=first)
    first.set_title("acc@1 by what is shown")
    answers.plot_rows(scores, column="metric", names=shown, models=models, ax=second)
    second.set_title("what it takes")
    answers.plot_errors(rows.loc[rows["metric"].isin(look.ERRORS)], models=models, ax=third)
    third.set_title("why answers are wrong")
    name_lines(figure, first, side="outside lower left")
    handles, labels = third.get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower right", ncols=3)
    return figure


def diversity(run: LoadedRun, models: Sequence[str]) -> Figure | None:
    """Answers on a plane by model and by correctness; diversity against acc@k; their
    correlations.
    """
    points = pd.read_parquet(run.folder / "points.parquet").dropna(subset=["x", "y"])
    if not len(points) or "diversity" not in set(run.layers["metric"]):  # it takes two draws
        return None
    figure = Figure(figsize=(13.5, 3.9))
    by_model, by_outcome, success, correlations = figure.subplots(
        1, 4, width_ratios=[1, 1, 1.05, 1.1]
    )
    answers.plot_plane(points, column="model", tints=answers.tints(models), ax=by_model)
    by_model.set_title("reasoning, by model")
    answers.plot_plane(points, column="right", tints=answers.RIGHT, ax=by_outcome)
    by_outcome.set_title("reasoning, by outcome")
    for ax in (by_model, by_outcome):
        ax.set_xlabel("t-SNE")
        below = {"loc": "lower left", "bbox_to_anchor": (0, -0.3)}
        ax.legend(ncols=3, handletextpad=0.2, columnspacing=0.8, **below)
    answers.plot_against_success(run, models=models, ax=success)
    success.set_title("a point a prompt")
    answers.plot_correlations(run, models=models, ax=correlations)
    correlations.set_title(f"diversity with {answers.widest_success(run)}")
    return figure


def shape(run: LoadedRun, models: Sequence[str]) -> Figure | None:
    """Length, steps, doubt and looking, and the share of each strategy, per model."""
    rows = _of_models(run)
    rows = rows.loc[rows["task"] == "all"]
    strategies = list(dict.fromkeys(m for m in rows["metric"] if m.startswith("strategy ")))
    names = [s for s in SHAPES if s in set(rows["metric"])]
    if not names:
        return None
    figure = Figure(figsize=(2.1 * len(names) + 4.2, max(2.8, 0.3 * len(strategies) + 1.4)))
    *axes, last = figure.subplots(1, len(names) + 1, width_ratios=[1] * len(names) + [2.2])
    for ax, name in zip(axes, names, strict=True):
        for x, (model, tint) in enumerate(answers.tints(models).items()):
            own = rows.loc[(rows["metric"] == name) & (rows["model"] == model)]
            ax.vlines([x] * len(own), own["ci_low"], own["ci_high"], color=tint, linewidth=1.3)
            ax.plot([x] * len(own), own["value"], linestyle="", marker="o", color=tint)
        ax.set_title(name)
        ax.set_xticks([])
        ax.set_xlim(-0.7, len(models) - 0.3)
        ax.set_ylim(bottom=0)
    called = {s: s.removeprefix("strategy ") for s in strategies}
    answers.plot_rows(
        rows, column="metric", names=strategies, models=models, called=called, ax=last
    )
    last.set_title("share of each strategy")
    name_lines(figure, last, note="mean a reply")
    return figure


def _of_models(run: LoadedRun) -> pd.DataFrame:
    """The rows of the models themselves, without differences and correlations."""
    return run.layers.loc[run.layers["model"].isin(run.manifest.config.models)]


def _plot_curves(ax: Axes, rows: pd.DataFrame, tint: str, model: str) -> None:
    acc, maj = (answers.by_k(rows, kind) for kind in ("acc", "maj"))
    draw_line(ax, acc, tint, look.name(model), x=acc["k"])
    ax.plot(maj["k"], PERCENT * maj["value"], color=tint, linestyle=(0, (3, 2)), linewidth=1.1)
    greedy = PERCENT * rows.loc[rows["metric"] == "greedy", "value"]
    ax.plot([1] * len(greedy), greedy, "o", color=tint, markerfacecolor="none", markersize=6)
