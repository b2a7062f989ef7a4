"""The figure of a freeze study: freezing, reverting and grafting the same layers, one row a layer
set.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from matplotlib.figure import Figure

from franken.layers import format_layers
from franken.report import theme as look
from franken.report.figures.sheet import save

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.axes import Axes


class Style(NamedTuple):
    """How an arm is drawn: its colour and mark, its name, and how far off its row's line."""

    tint: str
    marker: str
    label: str
    shift: float


FREEZE = Style("#D55E00", "o", "RL with them frozen", -0.12)
TRAIN = Style("#CC79A7", "D", "RL of them alone", -0.12)
REVERT = Style("#0072B2", "s", "RL, them put back", 0.12)
GRAFT = Style("#009E73", "^", "start, with RL's", 0)


def draw_freezing(summary: pd.DataFrame, file: Path) -> Path:
    """Two panels over the layer sets: what is lost against plain RL, and what RL's layers give the
    start.

    `summary`: the table of `trainer.freeze_study.run_freeze_study`. x in points with 95 %
    intervals; random sets are grey.
    """
    summary = summary.loc[summary["metric"] == "acc@1"]
    rows = summary.loc[summary["kind"] != ""]
    order = list(dict.fromkeys(rows["arm"]))
    whole = summary.loc[summary["arm"] == "none"].iloc[0]
    with look.theme():
        figure = Figure(figsize=(9.5, 1.6 + 0.42 * len(order)))
        lost, gained = figure.subplots(1, 2, sharey=True)
        plot_arms(lost, rows.loc[rows["kind"] == "freeze"], order, "minus_none", FREEZE)
        plot_arms(lost, rows.loc[rows["kind"] == "train"], order, "minus_none", TRAIN)
        plot_arms(lost, rows.loc[rows["kind"] == "revert"], order, "minus_none", REVERT)
        plot_arms(gained, rows.loc[rows["kind"] == "graft"], order, "minus_start", GRAFT)
        plain = {"color": look.colour("rl"), "linestyle": (0, (4, 3)), "label": "plain RL"}
        gained.axvline(100 * whole["minus_start"], **plain)
        for ax, title, other in (
            (lost, "Was the change of these layers necessary?", "plain RL"),
            (gained, "Is it enough alone?", "the start"),
        ):
            ax.axvline(0, color=look.LIGHT.muted, linewidth=0.8)
            ax.set_title(title)
            ax.legend(loc="upper center", bbox_to_anchor=(0.5, -0.18), ncols=2, fontsize=8)
            ax.set_xlabel(f"acc@1 minus {other}, points")
        layers = rows.drop_duplicates("arm")["layers"]
        names = [f"{arm}\n{name_stored(text)}" for arm, text in zip(order, layers, strict=True)]
        lost.set_yticks(range(len(order)), names)
        lost.invert_yaxis()
        counts = f"{int(whole['seeds'])} seeds, {int(whole['n'])} puzzles"
        figure.suptitle(f"{counts}; 95 % intervals over both, paired", fontsize=9)
        return save(figure, file, dpi=160)


def plot_arms(
    ax: Axes, rows: pd.DataFrame, order: Sequence[str], column: str, style: Style
) -> None:
    """A point an arm with its interval, on the lines of `order`; controls paler."""
    for control, arms in rows.groupby("control", sort=True):
        ends = 100 * arms[[f"{column}_low", column, f"{column}_high"]].to_numpy(float).T
        ax.errorbar(
            ends[1],
            [order.index(arm) + style.shift for arm in arms["arm"]],
            xerr=np.diff(ends, axis=0),
            linestyle="",
            marker=style.marker,
            markersize=5,
            capsize=2,
            color=style.tint,
            alpha=0.45 if control else 1,
            label=None if control else style.label,
        )


def name_stored(ranges: str) -> str:
    """Stored ranges, which are half-open, as people read layers, the last included:
    `text:0-1,text:6-8` → `0, 6..7`. Those of other parts stay as they are.
    """
    spans = [re.fullmatch(r"text:(\d+)-(\d+)", piece) for piece in ranges.split(",")]
    if not all(spans):
        return ranges
    return format_layers(i for span in spans if span for i in range(int(span[1]), int(span[2])))
