"""A figure of several plots, its one legend, and the one way that figures are written to files."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Literal

from matplotlib.figure import Figure

if TYPE_CHECKING:
    from matplotlib.axes import Axes

DPI = 150
GROUND = "white"
Side = Literal[
    "outside upper left", "outside upper center", "outside lower left", "outside lower center"
]


def sheet(
    count: int,
    columns: int,
    width: float,
    height: float,
    *,
    extra: float = 0.0,
    sharey: bool = False,
) -> tuple[Figure, list[Axes]]:
    """A figure with `count` axes in rows of `columns`, each `width` × `height` inches, and `extra`
    inches of height for a legend.
    """
    columns = max(1, min(columns, count))
    rows = -(-count // columns)
    figure = Figure(figsize=(width * columns, height * rows + extra), layout="constrained")
    axes = list(figure.subplots(rows, columns, squeeze=False, sharey=sharey).flat)
    for ax in axes[count:]:
        ax.set_visible(False)
    return figure, axes[:count]


def name_lines(
    figure: Figure,
    ax: Axes,
    *,
    side: Side = "outside lower center",
    columns: int = 99,
    note: str = "",
) -> None:
    """One legend for all plots, outside of them: the lines of `ax`, below a `note`."""
    handles, labels = ax.get_legend_handles_labels()
    columns = max(1, min(columns, len(labels)))
    figure.legend(handles, labels, loc=side, ncols=columns, title=note or None, title_fontsize=8)


def save(figure: Figure, path: Path, *, dpi: int = DPI) -> Path:
    """Write a PNG or a PDF, by the path's suffix, without a date: the same numbers give the same
    bytes.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    undated = {"CreationDate": None} if path.suffix == ".pdf" else {"Software": "franken"}
    figure.savefig(path, dpi=dpi, facecolor=GROUND, metadata=undated)
    return path
