"""Rubik's cube: six faces drawn as a net, and a sequence of face turns. How many squares of a colour are where then?

The net: up above front, down below it, and left, front, right, back in a row. Each face is read from the top left as the
net shows it. Stickers are points of space, so that a turn is a rotation and no table of moves can be wrong.
"""

from dataclasses import dataclass
from functools import cache

from franken.tasks.puzzles.solved import Solved

FACES = ("up", "left", "front", "right", "back", "down")
Vector = tuple[int, int, int]  # x to the right, y up, z towards the viewer
NORMALS: dict[str, Vector] = {
    "up": (0, 1, 0), "down": (0, -1, 0), "left": (-1, 0, 0), "right": (1, 0, 0), "front": (0, 0, 1), "back": (0, 0, -1)
}  # fmt: skip
# Where the net's columns and rows of a face run in space.
ACROSS: dict[str, Vector] = {
    "up": (1, 0, 0), "down": (1, 0, 0), "left": (0, 0, 1), "right": (0, 0, -1), "front": (1, 0, 0), "back": (-1, 0, 0)
}  # fmt: skip
DOWN: dict[str, Vector] = {
    "up": (0, 0, 1), "down": (0, 0, -1), "left": (0, -1, 0), "right": (0, -1, 0), "front": (0, -1, 0),
    "back": (0, -1, 0),
}  # fmt: skip

Grid = tuple[tuple[str, ...], ...]


@dataclass(frozen=True)
class Cube:
    """The colours of the six faces, in the order of FACES, each `face[row][column]`."""

    faces: tuple[Grid, ...]


@dataclass(frozen=True)
class CountAfter:
    """How many squares of `colour` the face shows after the turns: (face, quarter turns clockwise) one by one."""

    turns: tuple[tuple[str, int], ...]
    face: str
    colour: str


def solve(state: Cube, query: CountAfter) -> Solved:
    """The count, and the face it is counted on."""
    after = state
    for face, quarters in query.turns:
        for _ in range(quarters % 4):
            after = turn(after, face)
    shown = after.faces[FACES.index(query.face)]
    count = sum(square == query.colour for row in shown for square in row)
    return Solved(str(count), f"the {query.face} face is then {' / '.join(' '.join(row) for row in shown)}")


def turn(state: Cube, face: str) -> Cube:
    """The cube after one quarter turn of a face, clockwise as seen from outside."""
    size = len(state.faces[0])
    flat = [square for grid in state.faces for row in grid for square in row]
    moved = [flat[source] for source in _sources(size, face)]
    rows = [tuple(moved[i : i + size]) for i in range(0, len(moved), size)]
    return Cube(tuple(tuple(rows[i : i + size]) for i in range(0, len(rows), size)))


@cache
def _sources(size: int, face: str) -> tuple[int, ...]:
    """For every sticker of the net, which sticker it shows after the turn."""
    stickers = [_sticker(size, name, r, c) for name in FACES for r in range(size) for c in range(size)]
    index = {sticker: i for i, sticker in enumerate(stickers)}
    sources = list(range(len(stickers)))
    axis = NORMALS[face]
    for i, (place, normal) in enumerate(stickers):
        if _dot(place, axis) >= size - 1:
            sources[index[(_rotate(place, axis), _rotate(normal, axis))]] = i
    return tuple(sources)


def _sticker(size: int, face: str, row: int, column: int) -> tuple[Vector, Vector]:
    """The centre of the cubie behind a sticker, in half cubies from the cube's centre, and the sticker's normal."""
    edge = size - 1
    place = [
        edge * n + (2 * column - edge) * a + (2 * row - edge) * d
        for n, a, d in zip(NORMALS[face], ACROSS[face], DOWN[face], strict=True)
    ]
    return (place[0], place[1], place[2]), NORMALS[face]


def _rotate(v: Vector, axis: Vector) -> Vector:
    """A quarter turn clockwise as seen from the tip of `axis`: v × axis, plus the part along the axis."""
    along = _dot(v, axis)
    return (
        v[1] * axis[2] - v[2] * axis[1] + along * axis[0],
        v[2] * axis[0] - v[0] * axis[2] + along * axis[1],
        v[0] * axis[1] - v[1] * axis[0] + along * axis[2],
    )


def _dot(a: Vector, b: Vector) -> int:
    return a[0] * b[0] + a[1] * b[1] + a[2] * b[2]
