"""Wood slide: a sliding block puzzle. The minimum number of one-unit moves from one configuration to another."""

from collections.abc import Iterator
from dataclasses import dataclass

from franken.tasks.puzzles.solved import Solved, fewest_moves

Grid = tuple[str, ...]  # rows of block names, one character a cell; 0 is empty
STEPS = {"right": (0, 1), "down": (1, 0), "left": (0, -1), "up": (-1, 0)}


@dataclass(frozen=True)
class Blocks:
    """The starting and the ending configuration. Blocks of one shape differ by their shade, and so by their name."""

    start: Grid
    end: Grid


@dataclass(frozen=True)
class Moves:
    """The minimum number of moves from start to end."""


def solve(state: Blocks, query: Moves = Moves()) -> Solved:
    """The minimum number of moves. Raises Unsolvable when the end cannot be reached."""
    return fewest_moves(state.start, state.end, moves, "/".join)


def moves(grid: Grid) -> Iterator[tuple[str, Grid]]:
    """Every move of one block by one unit, and the configuration after it."""
    cells: dict[str, list[tuple[int, int]]] = {}
    for r, row in enumerate(grid):
        for c, name in enumerate(row):
            cells.setdefault(name, []).append((r, c))
    free = set(cells.pop("0", ()))
    for name, places in cells.items():
        own = set(places)
        for step, (down, right) in STEPS.items():
            moved = {(r + down, c + right) for r, c in places}
            if moved - own <= free:
                after = [list(row) for row in grid]
                for r, c in own - moved:
                    after[r][c] = "0"
                for r, c in moved:
                    after[r][c] = name
                yield f"{name} {step}", tuple("".join(row) for row in after)
