"""Tower of Hanoi between any two configurations: the minimum number of moves."""

from collections.abc import Iterator
from dataclasses import dataclass

from franken.tasks.puzzles.solved import Solved, Unsolvable, fewest_moves

Rods = tuple[tuple[int, ...], ...]  # the disks of each rod from the bottom up, by diameter


@dataclass(frozen=True)
class Hanoi:
    """The starting and the ending configuration."""

    start: Rods
    end: Rods


@dataclass(frozen=True)
class Moves:
    """The minimum number of moves from start to end."""


def solve(state: Hanoi, query: Moves = Moves()) -> Solved:
    """The minimum number of moves. Raises Unsolvable when a configuration breaks the rules or disks differ."""
    for rods in (state.start, state.end):
        if any(lower <= upper for rod in rods for lower, upper in zip(rod, rod[1:], strict=False)):
            raise Unsolvable("a disk lies on a smaller one", why=f"in {rods}")
    return fewest_moves(state.start, state.end, moves)


def moves(rods: Rods) -> Iterator[tuple[str, Rods]]:
    """Every legal move, and the configuration after it."""
    for a, source in enumerate(rods):
        for b, target in enumerate(rods):
            if a != b and source and (not target or target[-1] > source[-1]):
                after = list(rods)
                after[a], after[b] = source[:-1], (*target, source[-1])
                yield f"disk {source[-1]} to rod {b + 1}", tuple(after)
