"""A board of numbered tiles, what may be asked about it, and in which words."""

from dataclasses import dataclass
from typing import Literal

Grid = tuple[tuple[int, ...], ...]
EDGES = {
    "top": "top row",
    "bottom": "bottom row",
    "left": "leftmost column",
    "right": "rightmost column",
}


@dataclass(frozen=True)
class Slide:
    """`grid[row][column]`, 0 for the open position."""

    grid: Grid


@dataclass(frozen=True)
class Boards:
    """How many different boards exactly `moves` moves can end in; a move may be taken back."""

    moves: int


@dataclass(frozen=True)
class BestSum:
    """The highest or lowest sum along one edge of the board after exactly `moves` moves."""

    moves: int
    best: Literal["maximum", "minimum"]
    edge: Literal["top", "bottom", "left", "right"]


@dataclass(frozen=True)
class AfterPath:
    """A number of the row or column that holds the open position after it went `path`."""

    path: tuple[str, ...]
    what: Literal["maximum", "minimum", "sum"]
    line: Literal["row", "column"]


Query = Boards | BestSum | AfterPath


def questions(state: Slide, query: Query) -> tuple[str, ...]:
    """In words, two wordings."""
    rule = (
        "The picture shows a sliding puzzle of numbered tiles with one open position. In a move a "
        "tile beside, above or below the open position slides into it, so that the open position "
        "moves by one place. A move may be taken back."
    )
    if isinstance(query, AfterPath):
        path = ", ".join(query.path)
        what = {
            "maximum": "largest number",
            "minimum": "smallest number",
            "sum": "sum of the numbers",
        }[query.what]
        return (
            f"{rule} The open position moves {path}, in this order. What is then the {what} in "
            f"the {query.line} that holds the open position?",
            f"{rule} What is the {what} in the {query.line} of the open position after it has "
            f"moved {path}?",
        )
    n = f"{query.moves} move{'s' * (query.moves != 1)}"
    if isinstance(query, Boards):
        return (
            f"{rule} How many different boards can there be after exactly {n}?",
            f"{rule} You make exactly {n}. In how many different boards can that end?",
        )
    best, edge = {"maximum": "largest", "minimum": "smallest"}[query.best], EDGES[query.edge]
    return (
        f"{rule} The open position counts 0. What is the {best} sum that the {edge} can have "
        f"after exactly {n}?",
        f"{rule} You make exactly {n}. What is the {query.best} of the sum of the numbers in the "
        f"{edge} then, the open position counting 0?",
    )
