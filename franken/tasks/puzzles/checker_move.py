"""Checker move: green checkers go right, red ones left, one step or a jump over the other colour."""

from collections.abc import Iterator
from dataclasses import dataclass

from franken.tasks.puzzles.solved import Solved, fewest_moves


@dataclass(frozen=True)
class Checkers:
    """The starting and the ending row of squares, of the letters G, R and _ (empty)."""

    start: str
    end: str


@dataclass(frozen=True)
class Moves:
    """The minimum number of moves from start to end."""


def solve(state: Checkers, query: Moves = Moves()) -> Solved:
    """The minimum number of moves. Raises Unsolvable when the end cannot be reached."""
    return fewest_moves(state.start, state.end, moves)


def moves(row: str) -> Iterator[tuple[str, str]]:
    """Every legal move and the row after it."""
    for at, checker in enumerate(row):
        if checker == "_":
            continue
        step = 1 if checker == "G" else -1
        for to in (at + step, at + 2 * step):
            over = row[at + step] if to == at + 2 * step and 0 <= to < len(row) else None
            if 0 <= to < len(row) and row[to] == "_" and over not in (checker, "_"):
                after = list(row)
                after[at], after[to] = "_", checker
                yield f"{checker} {at + 1}→{to + 1}", "".join(after)
