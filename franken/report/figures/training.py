"""Training over updates: reward, accuracy, diversity, strategies. One line a recipe, a band over
its seeds.

Read from `metrics.jsonl` and `recipe.json` of run folders. A line is the mean over seeds of running
means over `WINDOW` updates; the band spans the seeds' smallest and largest. What no run has
measured has no panel.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import pandas as pd

from franken.errors import UsageError
from franken.report import theme as look
from franken.report.figures.sheet import name_lines, save, sheet
from franken.runs import TrainingRun

if TYPE_CHECKING:
    from matplotlib.axes import Axes

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
COLUMNS = 3


def training_table(runs: Sequence[Path]) -> pd.DataFrame:
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
    with look.theme():
        figure, axes = sheet(len(shown), COLUMNS, 3.6, 2.6, extra=0.5)
        for ax, name in zip(axes, shown, strict=True):
            recipes = table.dropna(subset=[name]).groupby("recipe", sort=False)
            numbers = {recipe: i for i, recipe in enumerate(dict.fromkeys(table["recipe"]))}
            for recipe, rows in recipes:
                plot_recipe(rows, name=name, number=numbers[recipe], window=window, ax=ax)
            ax.set_title(PANELS[name])
        for ax in axes[-COLUMNS:]:
            ax.set_xlabel("update")
        name_lines(figure, axes[0], side="outside upper center", columns=4)
        return save(figure, file)


def bands(table: pd.DataFrame, name: str, window: int) -> pd.DataFrame:
    """`update`, `mean`, `low`, `high` over the runs of one recipe; values held out are taken as
    they are, others smoothed.
    """
    smoothed = {}
    for run, rows in table.groupby("run"):
        values = rows.set_index("update")[name].dropna()
        held_out = name.startswith("held_out")
        smoothed[run] = values if held_out else values.rolling(window, min_periods=1).mean()
    wide = pd.DataFrame(smoothed).dropna()  # only updates that every run has reached
    ends = {"mean": wide.mean(axis=1), "low": wide.min(axis=1), "high": wide.max(axis=1)}
    return pd.DataFrame(ends).reset_index(names="update")


def plot_recipe(
    table: pd.DataFrame, *, name: str, number: int, window: int = WINDOW, ax: Axes
) -> Axes:
    """The line of one recipe, the `number`-th of the figure, with a band over its runs."""
    band = bands(table, name, window)
    runs = table["run"].nunique()
    label = f"{table['recipe'].iloc[0]}" + (f" ({runs} runs)" if runs > 1 else "")
    colours = len(look.TASK_COLOURS)
    tint = look.TASK_COLOURS[number % colours]
    style = STYLES[number // colours % len(STYLES)]
    marker = "o" if name.startswith("held_out") else None
    line = {"color": tint, "linestyle": style, "marker": marker, "markersize": 3}
    ax.plot(band["update"], band["mean"], label=look.literal(label), linewidth=1.6, **line)
    if runs > 1:
        ax.fill_between(band["update"], band["low"], band["high"], color=tint, alpha=0.18, lw=0)
    return ax
