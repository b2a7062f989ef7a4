"""A probe's figure as plain data: which rows stand in which plot, and what is written around them.

A method describes its figures with these and `franken.report.probe_figures` draws them. That keeps
a method in one file without turning an import arrow round: `report` may ask a method, but a method
cannot use the report's axes and colours; and a description needs neither matplotlib nor torch.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    import pandas as pd

PERCENT = 100.0
Axis = Literal["rate", "positive", "signed", "log", "free"]


@dataclass(frozen=True)
class Curves:
    """One metric by layer, a line with its 95 % band a task; values are multiplied by `scale`.

    `axis`: `rate` is 0 to 100 %, `positive` begins at 0, `signed` has a line at 0. With `ringed`,
    layers whose adjusted p is below `franken.stats.ALPHA` are marked.
    """

    rows: pd.DataFrame
    title: str = ""
    label: str = ""
    scale: float = PERCENT
    axis: Axis = "free"
    ringed: bool = False


@dataclass(frozen=True)
class Cells:
    """Components down, layers across, each cell in the colour of its value times `scale`.

    `limits` are the values at the ends of the colours; None at an end is the data's own, and with
    both None the colours are centred at 0. `tested`: numbers only where the adjusted p is below
    `franken.stats.ALPHA`. `bar`: whether the colour bar is drawn. `heads` calls the y axis so.
    """

    rows: pd.DataFrame
    components: Sequence[str]
    title: str = ""
    label: str = "share"
    scale: float = 1.0
    limits: tuple[float | None, float | None] = (-1.0, 1.0)
    palette: str = "vlag"
    tested: bool = False
    bar: bool = True
    heads: bool = False


@dataclass(frozen=True)
class Figure:
    """A grid of plots under one sentence that says what was found.

    `counted` are the rows whose n the subtitle gives, in `unit`s; `width` and `height` are inches
    of one plot.
    """

    name: str
    title: str
    plots: Sequence[Curves | Cells]
    columns: int
    counted: pd.DataFrame
    unit: str
    note: str = ""
    width: float = 4.6
    height: float = 3.0
    shared_y: bool = False
