"""N-queens: n queens on an n × n board, some already placed; how far apart are the two that are missing?"""

from collections.abc import Iterator
from dataclasses import dataclass

from franken.tasks.puzzles.solved import Solved, the_one

Square = tuple[int, int]  # row, column, from the top left, from 0


@dataclass(frozen=True)
class Queens:
    """An `n` × `n` board with the queens placed so far."""

    n: int
    placed: tuple[Square, ...]


@dataclass(frozen=True)
class Distance:
    """The Manhattan distance between the two queens that are missing."""


def solve(state: Queens, query: Distance = Distance()) -> Solved:
    """The distance, from every way to complete the board. Raises Unsolvable when they differ or there is none."""
    answers: dict[str, str] = {}
    for new in completions(state):
        if len(new) == 2:
            (r1, c1), (r2, c2) = new
            answers[str(abs(r1 - r2) + abs(c1 - c2))] = f"the queens missing go to (row, column from 0) {list(new)}"
    return the_one(answers, "the distance between the two missing queens")


def completions(state: Queens) -> Iterator[tuple[Square, ...]]:
    """Every set of squares that completes the board so that no two queens share a row, column or diagonal."""
    if any(_threaten(a, b) for i, a in enumerate(state.placed) for b in state.placed[:i]):
        return
    taken = {row for row, _ in state.placed}
    yield from _fill(state.n, [row for row in range(state.n) if row not in taken], state.placed, ())


def _fill(n: int, rows: list[int], placed: tuple[Square, ...], new: tuple[Square, ...]) -> Iterator[tuple[Square, ...]]:
    if not rows:
        yield new
        return
    for column in range(n):
        square = (rows[0], column)
        if not any(_threaten(square, other) for other in placed):
            yield from _fill(n, rows[1:], (*placed, square), (*new, square))


def _threaten(a: Square, b: Square) -> bool:
    return a[0] == b[0] or a[1] == b[1] or abs(a[0] - b[0]) == abs(a[1] - b[1])
