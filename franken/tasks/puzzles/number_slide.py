"""Number slide: a board of numbered tiles with one open position; what can it look like after exactly n moves?"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

from franken.tasks.puzzles.solved import Solved, Unsolvable

Grid = tuple[tuple[int, ...], ...]
STEPS = {"left": (0, -1), "right": (0, 1), "up": (-1, 0), "down": (1, 0)}


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


def solve(state: Slide, query: Boards | BestSum | AfterPath) -> Solved:
    """The answer. Raises Unsolvable when `path` leaves the board."""
    if isinstance(query, AfterPath):
        return _after_path(state.grid, query)
    ends = reachable(state.grid, query.moves)
    if isinstance(query, Boards):
        return Solved(str(len(ends)), f"{len(ends)} boards end a walk of {query.moves}: " + "; ".join(ends.values()))
    sums = {path: sum(_edge(grid, query.edge)) for grid, path in ends.items()}
    path = (max if query.best == "maximum" else min)(sums, key=sums.__getitem__)
    return Solved(str(sums[path]), f"{query.best} of the {query.edge} sums of {len(ends)} boards, reached by {path}")


def reachable(grid: Grid, moves: int) -> dict[Grid, str]:
    """Every board that exactly `moves` moves can end in, with one way there."""
    boards = {grid: ""}
    for _ in range(moves):
        boards = {after: f"{path} {name}".strip() for now, path in boards.items() for name, after in steps(now)}
    return boards


def steps(grid: Grid) -> Iterator[tuple[str, Grid]]:
    """Every move of the open position, and the board after it."""
    row, column = _open(grid)
    for name, (down, right) in STEPS.items():
        r, c = row + down, column + right
        if 0 <= r < len(grid) and 0 <= c < len(grid[r]):
            after = [list(line) for line in grid]
            after[row][column], after[r][c] = after[r][c], 0
            yield name, tuple(map(tuple, after))


def _after_path(grid: Grid, query: AfterPath) -> Solved:
    for name in query.path:
        after = dict(steps(grid)).get(name)
        if after is None:
            raise Unsolvable(f"the open position cannot move {name}", why=f"it stands at {_open(grid)}")
        grid = after
    row, column = _open(grid)
    line = grid[row] if query.line == "row" else tuple(r[column] for r in grid)
    tiles = [n for n in line if n]  # the open position is no number
    answer = {"maximum": max, "minimum": min, "sum": sum}[query.what](tiles)
    return Solved(str(answer), f"the {query.line} of the open position then holds {tiles}")


def _edge(grid: Grid, edge: str) -> tuple[int, ...]:
    if edge in ("top", "bottom"):
        return grid[0 if edge == "top" else -1]
    return tuple(row[0 if edge == "left" else -1] for row in grid)


def _open(grid: Grid) -> tuple[int, int]:
    return next((r, c) for r, row in enumerate(grid) for c, n in enumerate(row) if n == 0)
