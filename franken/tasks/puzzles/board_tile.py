"""Board tile: a chequered board with squares removed. Can dominoes cover the rest exactly?"""

from dataclasses import dataclass

from franken.tasks.puzzles.solved import Solved

Square = tuple[int, int]  # row, column, from the top left, from 0


@dataclass(frozen=True)
class Board:
    """A `rows` × `columns` board without the squares of `removed`."""

    rows: int
    columns: int
    removed: frozenset[Square]


@dataclass(frozen=True)
class Coverable:
    """Whether dominoes cover the board exactly."""


def solve(state: Board, query: Coverable = Coverable()) -> Solved:
    """Yes with a tiling, or No with the reason."""
    pairs = tiling(state)
    dark, light = (sum((r + c) % 2 == colour for r, c in squares(state)) for colour in (0, 1))
    if pairs is not None:
        return Solved("Yes", f"dominoes on (row, column from 0) {sorted(pairs.items())}")
    if dark != light:
        return Solved("No", f"a domino covers one square of each colour, and {dark} and {light} remain")
    return Solved("No", f"no perfect matching between the {dark} squares of one colour and those of the other")


def squares(state: Board) -> list[Square]:
    """The squares that remain."""
    return [(r, c) for r in range(state.rows) for c in range(state.columns) if (r, c) not in state.removed]


def tiling(state: Board) -> dict[Square, Square] | None:
    """A domino a square of the first colour, as a perfect matching by augmenting paths; None when there is none."""
    remaining = set(squares(state))
    partner: dict[Square, Square] = {}  # square of the second colour → its square of the first

    def place(square: Square, tried: set[Square]) -> bool:
        row, column = square
        for other in ((row, column + 1), (row + 1, column), (row, column - 1), (row - 1, column)):
            if other in remaining and other not in tried:
                tried.add(other)
                if other not in partner or place(partner[other], tried):
                    partner[other] = square
                    return True
        return False

    first = [square for square in squares(state) if sum(square) % 2 == 0]
    if 2 * len(first) != len(remaining) or not all(place(square, set()) for square in first):
        return None
    return {square: other for other, square in partner.items()}
