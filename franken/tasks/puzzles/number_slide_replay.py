"""Number slide, replayed tile by tile in a dictionary: the checker's own hands, which share no code
with the solver.
"""

from collections.abc import Iterator
from itertools import product

Cell = tuple[int, int]
STEPS = {"left": (0, -1), "right": (0, 1), "up": (-1, 0), "down": (1, 0)}


def places(grid: tuple[tuple[int, ...], ...]) -> dict[Cell, int]:
    """(row, column) → number, 0 for the open position."""
    return {(r, c): n for r, row in enumerate(grid) for c, n in enumerate(row)}


def hole(board: dict[Cell, int]) -> Cell:
    """Where the open position is."""
    return next(cell for cell, n in board.items() if n == 0)


def slide(board: dict[Cell, int], name: str) -> bool:
    """Move the open position; False, and nothing done, where it cannot go so."""
    at, (down, right) = hole(board), STEPS.get(name, (99, 99))
    to = (at[0] + down, at[1] + right)
    if to not in board:
        return False
    board[at], board[to] = board[to], 0
    return True


def ends(
    grid: tuple[tuple[int, ...], ...], moves: int
) -> Iterator[tuple[tuple[str, ...], dict[Cell, int]]]:
    """Every path of so many moves that stays on the board, and the board after it."""
    for path in product(STEPS, repeat=moves):
        board = places(grid)
        if all(slide(board, name) for name in path):
            yield path, board


def along(board: dict[Cell, int], edge: str) -> list[int]:
    """The numbers along an edge of the board."""
    axis, first = (
        ("top", "left").index(edge) if edge in ("top", "left") else ("bottom", "right").index(edge),
        0,
    )
    if edge in ("bottom", "right"):
        first = max(cell[axis] for cell in board)
    return [n for cell, n in sorted(board.items()) if cell[axis] == first]


def text(board: dict[Cell, int]) -> str:
    """The rows as the steps write them."""
    rows = max(r for r, _ in board) + 1
    return "/".join(
        " ".join(str(n or ".") for (r, _), n in sorted(board.items()) if r == row)
        for row in range(rows)
    )
