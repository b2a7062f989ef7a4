"""What single layers are worth by dear and cheap measures: a panel a measure over layers, and how
alike they order the layers.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from matplotlib.figure import Figure

from franken.report import theme as look
from franken.report.figures.sheet import save, sheet

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.axes import Axes

SHARES = ("alone", "graft", "revert")  # of the gain: drawn in percent


def draw_worth(table: pd.DataFrame, correlations: pd.DataFrame, file: Path) -> Path:
    """`table`: layer, measure, value, low, high, n; `correlations`: one, other, value. Both of
    `trainer.layer_worth`.
    """
    names = list(dict.fromkeys(table["measure"]))
    with look.theme():
        figure, axes = sheet(len(names) + 1, 3, 3.7, 2.6)
        for ax, name in zip(axes, names, strict=False):
            plot_measure(ax, table[table["measure"] == name], name)
        _matrix(axes[-1], names, correlations)
        return save(figure, file)


def worth_table(table: pd.DataFrame) -> tuple[list[str], list[list[str]]]:
    """A row a layer, a column a measure with its interval."""
    names = list(dict.fromkeys(table["measure"]))
    cells: dict[tuple[int, str], str] = {}
    for row in table.to_dict("records"):
        known = row["low"] == row["low"]
        ends = f" [{row['low']:.3g}, {row['high']:.3g}]" if known else ""
        cells[int(row["layer"]), str(row["measure"])] = f"{row['value']:.3g}{ends}"
    layers = sorted({layer for layer, _ in cells})
    body = [[str(layer), *(cells.get((layer, name), "-") for name in names)] for layer in layers]
    return ["layer", *names], body


def plot_measure(ax: Axes, rows: pd.DataFrame, name: str) -> None:
    """One measure over layers with its 95 % intervals."""
    scale = 100.0 if name in SHARES else 1.0
    low, value, high = scale * rows[["low", "value", "high"]].to_numpy(float).T
    bars = np.nan_to_num(np.array([value - low, high - value]))
    tint = look.colour("rl") if name == "alone" else look.colour("sft")
    ax.errorbar(rows["layer"], value, yerr=bars, color=tint, marker="o", capsize=2)
    ax.axhline(0, color=look.LIGHT.muted, linewidth=0.8)
    ax.set_title(f"{name}, % of the gain" if name in SHARES else name)
    ax.set_xlabel("layer")


def _matrix(ax: Axes, names: list[str], correlations: pd.DataFrame) -> Figure | None:
    grid = np.full((len(names), len(names)), np.nan)
    np.fill_diagonal(grid, 1.0)
    for row in correlations.to_dict("records"):
        a, b = names.index(row["one"]), names.index(row["other"])
        grid[a, b] = grid[b, a] = row["value"]
    ax.imshow(grid, vmin=-1, vmax=1, cmap="vlag")
    ax.set_xticks(range(len(names)), names, rotation=60, ha="right", fontsize=7)
    ax.set_yticks(range(len(names)), names, fontsize=7)
    ax.grid(visible=False)
    for (a, b), value in np.ndenumerate(grid):
        if np.isfinite(value):
            ax.text(b, a, f"{value:.1f}", ha="center", va="center", fontsize=6)
    ax.set_title("rank correlation over layers")
