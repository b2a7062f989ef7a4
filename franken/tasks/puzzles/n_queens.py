"""N-queens: n queens on an n × n board, some already placed; how far apart are the two that are
missing?
"""

import random
import re
from collections.abc import Iterator
from dataclasses import dataclass

from PIL import Image

from franken.tasks.puzzle import Facts, StrategySteps
from franken.tasks.puzzles.canvas import INK, cells, paper, shrink
from franken.tasks.puzzles.solved import Solved, the_one
from franken.tasks.puzzles.squares import SQUARE, SQUARES, Square, named, read

SMALLEST = 84
STRATEGIES = ("lines", "scan")
DARK, LIGHT = (255, 195, 57), (255, 230, 179)
SIDES = {1: (5, 6, 7, 7, 7, 7, 7), 2: (8, 9), 3: (10, 11, 12)}  # small boards have few solutions
CROWN = (
    (0, 0.2),
    (0.26, 0.5),
    (0.5, 0),
    (0.74, 0.5),
    (1, 0.2),
    (0.86, 1),
    (0.14, 1),
)  # across and down, of its box


@dataclass(frozen=True)
class Queens:
    """An `n` × `n` board with the queens placed so far."""

    n: int
    placed: tuple[Square, ...]


@dataclass(frozen=True)
class Distance:
    """The Manhattan distance between the two queens that are missing."""


def solve(state: Queens, query: Distance = Distance()) -> Solved:
    """The distance, from every way to complete the board. Raises Unsolvable when they differ or
    there is none.
    """
    answers: dict[str, str] = {}
    for new in completions(state):
        if len(new) == 2:
            (r1, c1), (r2, c2) = new
            answers[str(abs(r1 - r2) + abs(c1 - c2))] = (
                f"the queens missing go to (row, column from 0) {list(new)}"
            )
    return the_one(answers, "the distance between the two missing queens")


def completions(state: Queens) -> Iterator[tuple[Square, ...]]:
    """Every set of squares that completes the board so that no two queens share a row, column or
    diagonal.
    """
    if any(_threaten(a, b) for i, a in enumerate(state.placed) for b in state.placed[:i]):
        return
    taken = {row for row, _ in state.placed}
    yield from _fill(state.n, [row for row in range(state.n) if row not in taken], state.placed, ())


def _fill(
    n: int, rows: list[int], placed: tuple[Square, ...], new: tuple[Square, ...]
) -> Iterator[tuple[Square, ...]]:
    if not rows:
        yield new
        return
    for column in range(n):
        square = (rows[0], column)
        if not any(_threaten(square, other) for other in placed):
            yield from _fill(n, rows[1:], (*placed, square), (*new, square))


def _threaten(a: Square, b: Square) -> bool:
    return a[0] == b[0] or a[1] == b[1] or abs(a[0] - b[0]) == abs(a[1] - b[1])


def sample(rng: random.Random, level: int) -> Queens:
    """A solved board without two of its queens; every distance there is between two of them is as
    likely.
    """
    n = rng.choice(SIDES[level])
    solution = None
    while solution is None:
        solution = _fill_at_random(n, rng)
    far: dict[int, list[tuple[int, int]]] = {}
    for one in range(n):
        for other in range(one):
            far.setdefault(one - other + abs(solution[one] - solution[other]), []).append(
                (one, other)
            )
    out = rng.choice(far[rng.choice(sorted(far))])
    return Queens(n, tuple((row, column) for row, column in enumerate(solution) if row not in out))


def _fill_at_random(n: int, rng: random.Random) -> list[int] | None:
    """The columns of n queens, row by row; None where a random choice led nowhere (soon found out:
    try again).
    """
    columns: list[int] = []
    free = list(range(n))
    for row in range(n):
        safe = [
            c for c in free if all(abs(c - other) != row - r for r, other in enumerate(columns))
        ]
        if not safe:
            return None
        columns.append(rng.choice(safe))
        free.remove(columns[-1])
    return columns


def ask(state: Queens, rng: random.Random) -> Distance:
    """There is one question."""
    return Distance()


def questions(state: Queens, query: Distance) -> tuple[str, ...]:
    """In words, two wordings."""
    rule = "no two queens share a row, a column or a diagonal"
    return (
        f"The chessboard is to hold one queen in every row so that {rule}. Two queens are still "
        "missing. The Manhattan distance of two squares is the number of rows plus the number of "
        "columns between them. What is it between the two squares of the missing queens?",
        "Two more queens complete this board, so that there are as many queens as rows and "
        f"{rule}. How many rows and columns, added up, lie from one of the two new queens to the "
        "other one?",
    )


def steps(state: Queens, query: Distance) -> StrategySteps:
    """The free rows and columns crossed, both ways; or the free rows read square by square for one
    that is safe.
    """
    answer = solve(state, query).answer
    pair = next(new for new in completions(state) if len(new) == 2)
    (r1, c1), (r2, c2) = pair
    end = (
        f"rows {r1 + 1} to {r2 + 1} are {r2 - r1}",
        f"columns {c1 + 1} to {c2 + 1} are {abs(c1 - c2)}",
    )
    end = (*end, f"{r2 - r1} + {abs(c1 - c2)} = {answer}", f"answer {answer}")
    taken = {column for _, column in state.placed}
    low, high = (column for column in range(state.n) if column not in taken)
    crossed = [f"rows {r1 + 1} {r2 + 1} and columns {low + 1} {high + 1} are free"]
    for new in (((r1, low), (r2, high)), ((r1, high), (r2, low))):
        hit = next(((q, other) for q in new for other in state.placed if _threaten(q, other)), None)
        safe = f"{named(new)} share a diagonal" if _threaten(*new) else f"{named(new)} are safe"
        crossed.append(f"{named(hit[:1])} is hit by {named(hit[1:])}" if hit else safe)
    scanned = []
    for row in (r1, r2):
        for column in range(state.n):
            hit = next((other for other in state.placed if _threaten((row, column), other)), None)
            where = named([(row, column)])
            scanned.append(f"{where} is hit by {named([hit])}" if hit else f"{where} is open")
    return {"lines": (*crossed, *end), "scan": (*scanned, f"{named(pair)} are safe", *end)}


def check(state: Queens, query: Distance, steps: tuple[str, ...]) -> str | None:
    """See `suite.Module.check`."""
    for step in steps:
        if not _holds(step, state, query):
            return f"{step!r} is wrong or cannot be read"
    return None if steps and steps[-1].startswith("answer ") else "there is no answer"


def _holds(step: str, state: Queens, query: Distance) -> bool:
    if match := re.fullmatch(r"rows (\d+) (\d+) and columns (\d+) (\d+) are free", step):
        rows, columns = ({square[i] + 1 for square in state.placed} for i in (0, 1))
        named_rows, named_columns = (
            set(map(int, match.group(1, 2))),
            set(map(int, match.group(3, 4))),
        )
        every = set(range(1, state.n + 1))
        return named_rows == every - rows and named_columns == every - columns
    if match := re.fullmatch(rf"({SQUARE}) is hit by ({SQUARE})", step):
        (square,), (queen,) = read(match[1]), read(match[2])
        return (
            _on(state, square)
            and queen in state.placed
            and square != queen
            and _threaten(square, queen)
        )
    if match := re.fullmatch(rf"({SQUARE}) ({SQUARE}) share a diagonal", step):
        (r1, c1), (r2, c2) = read(step)
        return abs(r1 - r2) == abs(c1 - c2) > 0
    if match := re.fullmatch(rf"({SQUARES}) (?:is open|are safe)", step):
        squares = read(match[1])
        if step.endswith("safe") and (len(squares) != 2 or _threaten(*squares)):
            return False
        return all(
            _on(state, s) and not any(_threaten(s, queen) for queen in state.placed)
            for s in squares
        )
    if match := re.fullmatch(r"(rows|columns) (\d+) to (\d+) are (\d+)", step):
        one, other, far = map(int, match.group(2, 3, 4))
        line = ("rows", "columns").index(match[1])
        missing = [[square[line] + 1 for square in new] for new in completions(state)]
        return [one, other] in missing and abs(one - other) == far
    if match := re.fullmatch(r"(\d+) \+ (\d+) = (\d+)", step):
        rows, columns, total = map(int, match.groups())
        missing = [(r2 - r1, abs(c1 - c2)) for (r1, c1), (r2, c2) in completions(state)]
        return (rows, columns) in missing and rows + columns == total
    return step == f"answer {solve(state, query).answer}"


def _on(state: Queens, square: Square) -> bool:
    return square[0] < state.n and square[1] < state.n


def describe(state: Queens) -> str:
    """`queens 8x8 at r1c7 r2c3 r4c6 r5c8 r6c5 r8c4`."""
    return f"queens {state.n}x{state.n} at {named(sorted(state.placed)) or 'none'}"


def parse(text: str) -> Queens:
    """The inverse of `describe`. Raises ValueError."""
    match = re.fullmatch(rf"queens ([1-9]\d*)x\1 at (none|{SQUARES})", text)
    if not match:
        raise ValueError(f"{text!r} is no board of queens")
    state = Queens(int(match[1]), tuple(read(match[2])))
    if not all(_on(state, square) for square in state.placed) or sorted(set(state.placed)) != list(
        state.placed
    ):
        raise ValueError(f"{text!r} names squares off the board, twice or out of order")
    return state


def facts(state: Queens) -> Facts:
    """The side, and where each queen stands, in reading order."""
    stand = {f"queen {i}": named([square]) for i, square in enumerate(sorted(state.placed), 1)}
    return {"side": str(state.n), **stand}


def change(state: Queens, rng: random.Random) -> Queens:
    """One queen on another square between those before and after it: one of the missing queens'
    where there is one.
    """
    order = sorted(state.placed)
    new = [square for squares in completions(state) for square in squares]
    new = new or [
        (r, c) for r in range(state.n) for c in range(state.n) if (r, c) not in state.placed
    ]
    square = rng.choice(new)
    before = sum(
        queen < square for queen in order
    )  # the queens on both sides of it in reading order
    if not order:
        return Queens(state.n, (square,))
    i = rng.choice([i for i in (before - 1, before) if 0 <= i < len(order)])
    return Queens(state.n, tuple(sorted([*order[:i], square, *order[i + 1 :]])))


def distractors(state: Queens, query: Distance) -> list[str]:
    """The rows or the columns alone, and numbers nearby; no two queens are closer than 3."""
    (r1, c1), (r2, c2) = next(new for new in completions(state) if len(new) == 2)
    rows, columns = abs(r1 - r2), abs(c1 - c2)
    slips = [rows, columns, *(rows + columns + by for by in (-2, -1, 1, 2, 3))]
    return [str(n) for n in dict.fromkeys(slips) if n >= 3]


def render(state: Queens, size: int, style: int = 0) -> Image.Image:
    """A crown for a queen, on the public pictures' two yellows."""
    image, pen = paper(size, style)
    for r, c, box in cells(state.n, state.n, (1, 1, size - 1, size - 1)):
        pen.rectangle(box, LIGHT if (r + c) % 2 else DARK)
        if (r, c) in state.placed:
            left, top, right, bottom = shrink(box, 0.1)
            crown = [(left + x * (right - left), top + y * (bottom - top)) for x, y in CROWN]
            pen.polygon(crown, "white" if size >= 252 else INK, INK, max(1, size // 126))
    return image
