"""What the creature's Base learns from: captions and short dialogues about grids, in the words of
`describe`.

These stand for pre-training. They teach to read every cell, to walk the grid, to keep a running
count, to add and to compare; they hold no tags and none of the questions that the puzzles ask. A
lesson is a list of (question, answer) turns about one grid.
"""

import random
from collections.abc import Mapping

from franken.tasks import grid as world
from franken.tasks.grid import CELLS, COLORS, DIGITS, ORDERS, SHAPES, SIDE, Grid
from franken.tasks.grid_puzzles import digit_grid, look, shape_grid, tally

Turn = tuple[str, str]

LESSONS = ("caption", "tally", "dialogue")
EARLY_SHARES = {
    "cell": 2.0,
    "line": 1.0,
    "color": 1.5,
    "shape": 1.0,
    "digit": 2.0,
    "add": 1.0,
    "sum": 1.0,
}
LATE_SHARES = {
    "cell": 1.5,
    "named": 2.5,
    "line": 1.0,
    "color": 1.0,
    "shape": 0.5,
    "digit": 2.0,
    "add": 5.0,
    "more": 2.0,
    "sum": 2.5,
    "larger": 2.5,
}
MAX_TURN_WORDS = 34


def lesson_grid(rng: random.Random) -> Grid:
    """Shapes and digits half and half."""
    return shape_grid(rng) if rng.random() < 0.5 else digit_grid(rng)


def lesson(
    kind: str, grid: Grid, rng: random.Random, shares: Mapping[str, float] = LATE_SHARES
) -> list[Turn]:
    """Turns about one grid. `shares` weighs the questions of a dialogue."""
    if kind == "caption":
        order = rng.choice(tuple(ORDERS))
        return [(f"Describe {order}", world.describe(grid, order))]
    if kind == "tally":
        order, color = rng.choice(tuple(ORDERS)), rng.choice(COLORS)
        return [(f"Tally {color} {order}", tally(grid, color, order))]
    return dialogue(grid, rng, shares)


def dialogue(grid: Grid, rng: random.Random, shares: Mapping[str, float]) -> list[Turn]:
    """Short questions until some thirty words are said."""
    turns: list[Turn] = []
    said = 0
    while True:
        kind = rng.choices(list(shares), list(shares.values()))[0]
        turn = short_turn(kind, grid, rng)
        if turn is None:
            continue
        said += len(turn[1].split()) + 1 + (len(turn[0].split()) + 3 if turns else 0)
        if turns and said > MAX_TURN_WORDS:
            return turns
        turns.append(turn)


def short_turn(kind: str, grid: Grid, rng: random.Random) -> Turn | None:
    """One short question and its answer; None when the grid cannot be asked that."""
    full = world.filled(grid)
    if kind == "cell":
        i = rng.randrange(len(CELLS))
        return f"Describe {CELLS[i]}", world.words(grid[i])
    if kind == "named":
        i = rng.randrange(len(CELLS))
        return f"At {CELLS[i]}", look(i, grid)
    if kind == "line":
        return _line(grid, rng)
    if kind in ("color", "shape", "digit"):
        return _attribute(kind, grid, rng)
    if kind in ("add", "more"):
        a, b = rng.randint(1, 9), rng.randint(1, 9)
        return (
            (f"Add {a} {b}", str(a + b))
            if kind == "add"
            else (f"More {a} {b}", _more(a, b, str(a), str(b)))
        )
    digits = [i for i in full if _kind(grid, i) in DIGITS]
    if len(digits) < 2:
        return None
    i, j = rng.sample(digits, 2)
    a, b = int(_kind(grid, i)), int(_kind(grid, j))
    looks = f"{CELLS[i]} {a} {CELLS[j]} {b}"
    if kind == "sum":
        return f"Add {CELLS[i]} {CELLS[j]}", f"{looks} = {a + b}"
    return f"More {CELLS[i]} {CELLS[j]}", f"{looks} so {_more(a, b, CELLS[i], CELLS[j])}"


def _line(grid: Grid, rng: random.Random) -> Turn:
    at = rng.randrange(SIDE)
    if rng.random() < 0.5:
        name, cells = f"r{at + 1}", [at * SIDE + k for k in range(SIDE)]
    else:
        name, cells = f"c{at + 1}", [k * SIDE + at for k in range(SIDE)]
    return f"Describe {name}", " ".join(look(i, grid) for i in cells)


def _attribute(kind: str, grid: Grid, rng: random.Random) -> Turn | None:
    wanted = {"color": SHAPES + DIGITS, "shape": SHAPES, "digit": DIGITS}[kind]
    cells = [i for i in world.filled(grid) if _kind(grid, i) in wanted]
    if not cells:
        return None
    i = rng.choice(cells)
    thing = grid[i]
    assert thing is not None
    return f"{kind.capitalize()} at {CELLS[i]}", thing.color if kind == "color" else thing.kind


def _kind(grid: Grid, index: int) -> str:
    thing = grid[index]
    return thing.kind if thing else world.EMPTY


def _more(a: int, b: int, name_a: str, name_b: str) -> str:
    return "same" if a == b else name_a if a > b else name_b
