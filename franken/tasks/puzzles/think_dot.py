"""Think-a-dot: balls fall through a toy of eight discs, flip those they pass, and are deflected by them.

The discs stand in rows of three, two and three. A blue disc deflects as `WHEN_BLUE` says, a yellow one the other way,
by the face it shows before the ball flips it.
"""

from dataclasses import dataclass
from typing import Literal

from franken.tasks.puzzles.solved import Solved

HOLES = ("left", "center", "right")
ROWS = ("top", "middle", "bottom")
WHEN_BLUE = (("right", "left", "right"), ("left", "left"))
OTHER = {"blue": "yellow", "yellow": "blue"}
# Where a ball goes from disc (row, index) to the left and to the right.
NEXT = {
    (0, 0): ((2, 0), (1, 0)), (0, 1): ((1, 0), (1, 1)), (0, 2): ((1, 1), (2, 2)),
    (1, 0): ((2, 0), (2, 1)), (1, 1): ((2, 1), (2, 2)),
}  # fmt: skip


@dataclass(frozen=True)
class Toy:
    """The faces shown, `blue` or `yellow`, row by row."""

    discs: tuple[tuple[str, ...], ...]


@dataclass(frozen=True)
class FacesAfter:
    """How many faces of `colour` show, in one row or in all, after balls went through `holes` one by one."""

    holes: tuple[str, ...]
    colour: str
    row: Literal["top", "middle", "bottom", "all"]


def solve(state: Toy, query: FacesAfter) -> Solved:
    """The count, and the toy it is counted on."""
    for hole in query.holes:
        state = drop(state, hole)
    rows = state.discs if query.row == "all" else (state.discs[ROWS.index(query.row)],)
    count = sum(row.count(query.colour) for row in rows)
    return Solved(str(count), f"the toy then shows {' / '.join(' '.join(row) for row in state.discs)}")


def drop(state: Toy, hole: str) -> Toy:
    """The toy after one ball."""
    discs = [list(row) for row in state.discs]
    at: tuple[int, int] | None = (0, HOLES.index(hole))
    while at is not None:
        row, index = at
        face = discs[row][index]
        discs[row][index] = OTHER[face]
        if at not in NEXT:
            break
        goes_right = (WHEN_BLUE[row][index] == "right") == (face == "blue")
        at = NEXT[at][goes_right]
    return Toy(tuple(map(tuple, discs)))
