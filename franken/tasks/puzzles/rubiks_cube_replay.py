"""Turns of a cube by hand, face by face and strip by strip: the checker's own, which share no code
with the solver.
"""

Squares = dict[str, list[list[str]]]  # face → its rows
# The sides that a turn's strips go round, each to the next one: the moves as they stand in books,
# for checking only.
AROUND = {
    "up": (("front", "top"), ("left", "top"), ("back", "top"), ("right", "top")),
    "down": (("front", "bottom"), ("right", "bottom"), ("back", "bottom"), ("left", "bottom")),
    "front": (("up", "bottom"), ("right", "left"), ("down", "-top"), ("left", "-right")),
    "back": (("up", "-top"), ("left", "left"), ("down", "bottom"), ("right", "-right")),
    "right": (("up", "-right"), ("back", "left"), ("down", "-right"), ("front", "-right")),
    "left": (("up", "left"), ("front", "left"), ("down", "left"), ("back", "-right")),
}


def turned(cube: Squares, face: str, quarters: int) -> Squares:
    """The cube after quarter turns: the face's grid turns, and the strips around it go on to the
    next side.
    """
    for _ in range(quarters % 4):
        after = {name: [list(row) for row in grid] for name, grid in cube.items()}
        after[face] = [list(row) for row in zip(*cube[face][::-1], strict=True)]
        strips = [
            [(name, r, c) for r, c in _strip(where, len(cube[face]))]
            for name, where in AROUND[face]
        ]
        for one, following in zip(strips, strips[1:] + strips[:1], strict=True):
            for (name, r, c), (to, row, column) in zip(one, following, strict=True):
                after[to][row][column] = cube[name][r][c]
        cube = after
    return cube


def _strip(where: str, size: int) -> list[tuple[int, int]]:
    """The squares along a side of a face, from left to right or top to bottom, or reversed
    (`-`).
    """
    last = size - 1
    along = {
        "top": [(0, i) for i in range(size)],
        "bottom": [(last, i) for i in range(size)],
        "left": [(i, 0) for i in range(size)],
        "right": [(i, last) for i in range(size)],
    }[where.lstrip("-")]
    return along[::-1] if where.startswith("-") else along
