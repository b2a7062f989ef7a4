"""Squares of a grid in words: `r1c2` is row 1, column 2, counted from the top left, from 1."""

import re
from collections.abc import Iterable

Square = tuple[int, int]  # row, column, from the top left, from 0
SQUARE = r"r[1-9]\d*c[1-9]\d*"
SQUARES = rf"{SQUARE}(?: {SQUARE})*"


def named(squares: Iterable[Square]) -> str:
    """`r1c2 r3c1`, in the order given."""
    return " ".join(f"r{row + 1}c{column + 1}" for row, column in squares)


def read(text: str) -> list[Square]:
    """The squares that a text names, in its order."""
    return [(int(row) - 1, int(column) - 1) for row, column in re.findall(r"r(\d+)c(\d+)", text)]


def beside(square: Square) -> tuple[Square, ...]:
    """The squares to the right, below, to the left and above."""
    row, column = square
    return (row, column + 1), (row + 1, column), (row, column - 1), (row - 1, column)
