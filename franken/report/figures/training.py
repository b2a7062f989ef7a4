"""Training over updates: reward, accuracy, diversity, strategies. One line a recipe, a band over
its seeds.

Read from `metrics.jsonl` and `recipe.json` of run folders. A line is the mean over seeds of running
means over `WINDOW` updates; the band spans the seeds' smallest and largest. What no run has
measured has no panel.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pandas as pd
from matplotlib.figure import Figure

from franken.errors import UsageError
from franken.report.theme import TASK_COLOURS
from franken.runs import TrainingRun

WINDOW = 10
PANELS: dict[str, str] = {
    "reward": "reward",
    "correct": "right replies while training",
    "held_out/acc@1": "held-out acc@1",
    "held_out/acc@4": "held-out acc@4",
    "diversity": "distance of right replies",
    "strategies": "strategies a group",
    "entropy": "entropy of a token",
    "length": "tokens a reply",
    "loss": "loss",
    "token_accuracy": "token accuracy",
}
STYLES = ("-", "--", ":", "-.")


def training_table(runs: Sequence[Path]) -> Any:
    """A row an update: `recipe`, `seed`, `run`, `update` and all numbers; held-out ones as
    `held_out/…`.

    Raises UsageError for a folder without a training run, or one that has not made an update.
    """
    tables = []
    for run in runs:
        training = TrainingRun(run)
        if not training.exists() or not training.updates:
            raise UsageError(
                f"no training run in {run}",
                why="it has no recipe.json or no metrics",
                fix="give --out's folder",
            )
        recipe = training.recipe
        tables.append(training.metrics().assign(recipe=recipe.name, seed=recipe.seed, run=str(run)))
    return pd.concat(tables, ignore_index=True)


def draw_training(runs: Sequence[Path], file: Path, *, window: int = WINDOW) -> Path:
    """Draw the panels that any of the runs has into one PNG."""
    table = training_table(runs)
    shown = [name for name in PANELS if name in table and table[name].notna().any()]
    columns = min(3, len(shown))
    rows = -(-len(shown) // columns)
    figure = Figure(figsize=(3.6 * columns, 2.6 * rows + 0.5), dpi=150, layout="constrained")
    axes = figure.subplots(rows, columns, squeeze=False).flatten()
    recipes = list(dict.fromkeys(table["recipe"]))
    for ax, name in zip(axes, shown, strict=False):
        for i, recipe in enumerate(recipes):
            _line(ax, table[table["recipe"] == recipe], name, i, window)
        ax.set_title(PANELS[name], fontsize=10, loc="left")
        ax.grid(alpha=0.3)
        ax.spines[["top", "right"]].set_visible(False)
        ax.tick_params(labelsize=8)
    for ax in axes[len(shown) :]:
        ax.set_visible(False)
    for ax in axes[max(0, len(shown) - columns) : len(shown)]:
        ax.set_xlabel("update", fontsize=9)
    handles, labels = axes[0].get_legend_handles_labels()
    figure.legend(
        handles,
        labels,
        loc="outside upper center",
        ncols=min(4, len(labels)),
        frameon=False,
        fontsize=9,
    )
    file.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(file)
    return file


def bands(table: Any, name: str, window: int) -> Any:
    """`update`, `mean`, `low`, `high` over the runs of one recipe; values held out are taken as
    they are, others smoothed.
    """
    smoothed = {}
    for run, rows in table.groupby("run"):
        values = rows.set_index("update")[name].dropna()
        smoothed[run] = (
            values if name.startswith("held_out") else values.rolling(window, min_periods=1).mean()
        )
    wide = pd.DataFrame(smoothed).dropna()  # only updates that every run has reached
    return pd.DataFrame(
        {"mean": wide.mean(axis=1), "low": wide.min(axis=1), "high": wide.max(axis=1)}
    ).reset_index(names="update")


def _line(ax: Any, table: Any, name: str, number: int, window: int) -> None:
    if not table[name].notna().any():
        return
    band = bands(table, name, window)
    runs = table["run"].nunique()
    label = f"{table['recipe'].iloc[0]}" + (f" ({runs} runs)" if runs > 1 else "")
    tint, style = (
        TASK_COLOURS[number % len(TASK_COLOURS)],
        STYLES[number // len(TASK_COLOURS) % len(STYLES)],
    )
    marker = "o" if name.startswith("held_out") else None
    ax.plot(
        band["update"], band["mean"], style, color=tint, label=label, marker=marker, ms=3, lw=1.6
    )
    if runs > 1:
        ax.fill_between(band["update"], band["low"], band["high"], color=tint, alpha=0.18, lw=0)
