"""Rotting kiwi: rot spreads to the four neighbours every minute. When is the last fresh kiwi gone?"""

from dataclasses import dataclass

from franken.tasks.puzzles.solved import Solved, Unsolvable

EMPTY, FRESH, ROTTEN = 0, 1, 2


@dataclass(frozen=True)
class Kiwis:
    """`grid[row][column]`: EMPTY, FRESH or ROTTEN."""

    grid: tuple[tuple[int, ...], ...]


@dataclass(frozen=True)
class Minutes:
    """The minutes until no cell holds a fresh kiwi."""


def solve(state: Kiwis, query: Minutes = Minutes()) -> Solved:
    """The number of minutes. Raises Unsolvable when some kiwi stays fresh for ever."""
    rots_at = times(state)
    fresh = [(r, c) for r, row in enumerate(state.grid) for c, cell in enumerate(row) if cell == FRESH]
    safe = [cell for cell in fresh if cell not in rots_at]
    if safe:
        raise Unsolvable("some kiwi never rots", why=f"no chain of kiwis leads from a rotten one to {safe[0]}")
    last = max(fresh, key=rots_at.__getitem__, default=None)
    if last is None:
        return Solved("0", "no kiwi is fresh")
    return Solved(str(rots_at[last]), f"the kiwi at (row, column from 0) {last} rots last")


def times(state: Kiwis) -> dict[tuple[int, int], int]:
    """The minute in which each kiwi that ever rots does so; 0 for those that are rotten."""
    cells = {(r, c): cell for r, row in enumerate(state.grid) for c, cell in enumerate(row)}
    found = {cell: 0 for cell, what in cells.items() if what == ROTTEN}
    front, minute = list(found), 0
    while front:
        minute += 1
        beside = {(r + dr, c + dc) for r, c in front for dr, dc in ((0, 1), (1, 0), (0, -1), (-1, 0))}
        front = [cell for cell in beside if cells.get(cell) == FRESH and cell not in found]
        found |= dict.fromkeys(front, minute)
    return found
