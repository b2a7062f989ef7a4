"""The figures of `merge-sweep --along`: what a part of the update recovers alone, and what is left
without it, over the size of the part.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from franken.merge.parts import DROP, KEEP, NULL_OF, RANKS, WHOLE, Part, parse_part
from franken.report import theme as look
from franken.report.figures.plots import PERCENT, new_axes
from franken.report.figures.sheet import name_lines, save, sheet
from franken.runs import load_run

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.axes import Axes

SIZES = {"rank": "directions of every matrix", "top": "% of the elements of every tensor"}
LINES = {KEEP: "the part alone", DROP: "all but the part"}


def draw_surgery(folder: Path) -> Path:
    """Write figures/surgery.png of a finished run: a plot a kind of part. Returns its path."""
    rows = load_run(folder).layers
    kinds = kinds_of(rows)
    with look.theme():
        figure, axes = sheet(len(kinds), 3, 4.3, 3.2, sharey=True)
        for ax, kind in zip(axes, kinds, strict=True):
            plot_curves(rows, kind, ax=ax)
        axes[0].set_ylabel("of the donor's gain, %")
        name_lines(figure, axes[0])
        return save(figure, folder / "figures" / "surgery.png", dpi=160)


def kinds_of(rows: pd.DataFrame) -> list[str]:
    """Kinds of parts, those without sizes as one, `sign and norms`."""
    kinds = {part.kind for part in _parts(rows)}
    sized = [kind for kind in SIZES if kind in kinds]
    others = [kind for kind in WHOLE if kind in kinds]
    return [*sized, *([" and ".join(others)] if others else [])]


def plot_curves(
    rows: pd.DataFrame, kind: str, *, mode: look.Mode = look.LIGHT, ax: Axes | None = None
) -> Axes:
    """Recovered share of the gain over the size of the part, with 95 % intervals: the part alone,
    all but it, and in grey the mean of random parts of that size.

    `rows` are those of layers.parquet; y in percent, 0 the base and 100 the donor.
    """
    ax = new_axes(ax)
    parts = [part for part in _parts(rows) if part.kind in kind.split(" and ")]
    sized = kind in SIZES
    shares = rows.loc[rows["metric"] == "recovered"]
    for how, tint, shift in ((KEEP, look.CHECKPOINTS["hybrid"], -1), (DROP, mode.ink, 1)):
        own = shares.loc[shares["method"] == how].set_index("component").loc[[*map(str, parts)]]
        at = _places(parts, sized, shift)
        low, value, high = (
            PERCENT * own[c].to_numpy(float) for c in ("ci_low", "value", "ci_high")
        )
        ax.vlines(at, low, high, color=tint, linewidth=1.2, alpha=0.6)
        ax.plot(
            at,
            value,
            color=tint,
            marker="o",
            markersize=5,
            label=LINES[how],
            linestyle="-" if sized else "",
        )
        usual = [_usual(shares, how, part) for part in parts]
        if not np.isnan(usual).all():
            ax.plot(
                at,
                usual,
                color=look.CHECKPOINTS["random"],
                linestyle="-" if how == KEEP else (0, (3, 2)),
                marker=".",
                label=f"random: {LINES[how]}",
            )
    for level, name in ((0, "base"), (100, "donor")):
        ax.axhline(level, color=mode.muted, linewidth=0.8)
        ax.annotate(
            name,
            (0.995, level),
            xycoords=("axes fraction", "data"),
            fontsize=7,
            ha="right",
            va="bottom",
            color=mode.muted,
        )
    if sized:
        ax.set_xscale("log")
        ax.set_xlabel(SIZES[kind])
    sizes = [_size(part) if sized else place for place, part in enumerate(parts)]
    ax.set_xticks(sizes, [f"{_size(part):g}" if sized else part.kind for part in parts])
    ax.minorticks_off()
    ax.margins(x=0.15, y=0.12)
    ax.set_title(f"along {kind}")
    return ax


def _parts(rows: pd.DataFrame) -> list[Part]:
    names = rows.loc[rows["metric"] == "redundancy", "component"]
    parts = [parse_part(name) for name in dict.fromkeys(names)]
    return sorted(parts, key=lambda part: part.size)


def _size(part: Part) -> float:
    return part.size if part.kind in RANKS else 100 * part.size


def _places(parts: Sequence[Part], sized: bool, shift: int) -> np.ndarray:
    """Where the points of one curve stand: side by side with the other's."""
    if sized:
        return np.array([_size(part) for part in parts]) * 1.03**shift
    return np.arange(len(parts)) + 0.06 * shift


def _usual(shares: pd.DataFrame, how: str, part: Part) -> float:
    """The mean over the random parts of a part's size; nan without any."""
    if part.kind not in NULL_OF:
        return float("nan")
    random = Part(NULL_OF[part.kind], part.size)
    label = f"{how} {random} #"
    own = shares.loc[shares["model"].str.startswith(label), "value"]
    return PERCENT * float(own.mean()) if len(own) else float("nan")
