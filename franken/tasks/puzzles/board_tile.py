"""Board tile: a chequered board with squares removed. Can dominoes cover the rest exactly?"""

import random
import re
from dataclasses import dataclass

from PIL import Image

from franken.tasks.puzzle import Facts, StrategySteps
from franken.tasks.puzzles.canvas import cells, paper
from franken.tasks.puzzles.solved import Solved
from franken.tasks.puzzles.squares import SQUARE, SQUARES, Square, beside, named, read

SMALLEST = 56
STRATEGIES = ("colours", "cover")
DARK, LIGHT, WHITE, EDGE = (255, 195, 57), (255, 230, 179), (255, 255, 255), (150, 140, 120)
SIDES = {1: (3, 6), 2: (6, 8), 3: (6, 9)}
CORNERS = ((0, 0), (0, -1), (-1, 0), (-1, -1))


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
    dark, light = counts(state)
    if pairs is not None:
        return Solved("Yes", f"dominoes on (row, column from 0) {sorted(pairs.items())}")
    if dark != light:
        return Solved(
            "No", f"a domino covers one square of each colour, and {dark} and {light} remain"
        )
    return Solved(
        "No", f"no perfect matching between the {dark} squares of one colour and those of the other"
    )


def squares(state: Board) -> list[Square]:
    """The squares that remain."""
    return [
        (r, c)
        for r in range(state.rows)
        for c in range(state.columns)
        if (r, c) not in state.removed
    ]


def tiling(state: Board) -> dict[Square, Square] | None:
    """A domino a square of the first colour, as a perfect matching by augmenting paths; None when
    there is none.
    """
    dark, light = counts(state)
    partner, stuck = _match(state, 0)
    return None if stuck or dark != light else {square: other for other, square in partner.items()}


def counts(state: Board) -> tuple[int, int]:
    """How many squares of each colour remain; the first colour is the top left square's."""
    dark = sum((r + c) % 2 == 0 for r, c in squares(state))
    return dark, len(squares(state)) - dark


def blocked(state: Board) -> tuple[list[Square], list[Square]] | None:
    """Squares of one colour and the fewer ones that they touch: why dominoes cannot cover the
    board.

    None when they can: a board that cannot be covered always has such squares (Hall's marriage
    theorem).
    """
    return _match(state, 0)[1] or _match(state, 1)[1]


def _match(
    state: Board, colour: int
) -> tuple[dict[Square, Square], tuple[list[Square], list[Square]] | None]:
    """Square of the other colour → its square of this one; and the squares that block the first one
    without a partner.
    """
    remaining = set(squares(state))
    partner: dict[Square, Square] = {}

    def place(square: Square, tried: set[Square]) -> bool:
        for other in beside(square):
            if other in remaining and other not in tried:
                tried.add(other)
                if other not in partner or place(partner[other], tried):
                    partner[other] = square
                    return True
        return False

    for square in squares(state):
        tried: set[Square] = set()
        if sum(square) % 2 == colour and not place(square, tried):
            return partner, (sorted([square, *(partner[other] for other in tried)]), sorted(tried))
    return partner, None


def sample(rng: random.Random, level: int) -> Board:
    """A board with one or two squares removed; at level 3 up to six, where equal colours are not
    always enough.

    Half of the boards can be covered.
    """
    wanted = rng.choice(("Yes", "No"))
    while True:
        rows, columns = rng.randint(*SIDES[level]), rng.randint(*SIDES[level])
        odd = rows * columns % 2
        if odd and rng.random() < 0.7:  # a board without one square has few states
            continue
        removed = _remove(
            rng,
            rows,
            columns,
            2 - odd if level < 3 else rng.choice((3, 5) if odd else (4, 6)),
            wanted,
        )
        if level == 3 and wanted == "No" and rng.random() < 0.5:
            removed = _cut_corner(rng, rows, columns, 5 if odd else 4)
        state = Board(rows, columns, removed)
        if solve(state).answer == wanted:
            return state


def _remove(rng: random.Random, rows: int, columns: int, n: int, wanted: str) -> frozenset[Square]:
    """`n` squares: as many of each colour remain when "Yes" is wanted."""
    dark, light = (
        [(r, c) for r in range(rows) for c in range(columns) if (r + c) % 2 == i] for i in (0, 1)
    )
    balanced = (n + len(dark) - len(light)) // 2
    n_dark = balanced if wanted == "Yes" else rng.choice([i for i in range(n + 1) if i != balanced])
    return frozenset(rng.sample(dark, n_dark) + rng.sample(light, n - n_dark))


def _cut_corner(rng: random.Random, rows: int, columns: int, n: int) -> frozenset[Square]:
    """The two neighbours of a corner and others, so that as many squares of each colour remain, but
    one is alone.
    """
    down, right = rng.choice(CORNERS)
    corner = (down % rows, right % columns)
    cut = {
        square
        for square in beside(corner)
        if square[0] in range(rows) and square[1] in range(columns)
    }
    others = [(r, c) for r in range(rows) for c in range(columns) if (r, c) not in cut | {corner}]
    while True:
        state = Board(rows, columns, frozenset(cut | set(rng.sample(others, n - 2))))
        if len(set(counts(state))) == 1:
            return state.removed


def ask(state: Board, rng: random.Random) -> Coverable:
    """There is one question."""
    return Coverable()


def questions(state: Board, query: Coverable) -> tuple[str, ...]:
    """In words, two wordings."""
    rule = "A domino covers two squares that share a side"
    return (
        f"Some squares of the chequered board are missing (white). {rule}. Can dominoes cover all "
        "the yellow squares exactly, with no domino overlapping another one, a white square or "
        "the edge? Answer Yes or No.",
        f"{rule}, lying or standing. Is it possible to cover every yellow square of this board "
        "exactly once with dominoes that cover no white square and do not stick out? Answer Yes "
        "or No.",
    )


def steps(state: Board, query: Coverable) -> StrategySteps:
    """The colours counted, which settles most boards; or the dominoes laid, or the squares that
    block one another.
    """
    pairs, stuck, (dark, light) = tiling(state), blocked(state), counts(state)
    answer = "answer No" if pairs is None else "answer Yes"
    if pairs is not None:
        cover = tuple(f"lay {named(sorted(pair))}" for pair in sorted(pairs.items()))
    else:
        inner, outer = stuck or ([], [])
        touch = named(outer) if outer else "nothing"
        cover = (
            f"{named(inner)} touch only {touch}",
            f"{len(inner)} squares are more than {len(outer)}",
        )
    rows = []
    for r in range(state.rows):
        left = [sum((r, c)) % 2 for c in range(state.columns) if (r, c) not in state.removed]
        rows.append(f"row {r + 1} has {left.count(0)} dark and {left.count(1)} light")
    total = f"{dark} dark and {light} light remain"
    if dark != light:
        rest = ("no domino covers two of one colour",)
    elif balance_suffices(state):
        rest = ("equal colours are enough when so few are missing",)
    else:
        rest = ("equal colours are not enough when more are missing", *cover)
    return {"colours": (*rows, total, *rest, answer), "cover": (*cover, answer)}


def balance_suffices(state: Board) -> bool:
    """Whether equal colours mean that dominoes can cover the board: at most two squares are missing
    (Gomory).
    """
    return min(state.rows, state.columns) >= 2 and len(state.removed) <= 2


def check(state: Board, query: Coverable, steps: tuple[str, ...]) -> str | None:
    """See `suite.Module.check`. An answer needs its proof: all squares covered, unequal colours, or
    squares blocked.
    """
    left, proved, outnumbered = set(squares(state)), "", None
    for step in steps:
        wrong = f"{step!r} is wrong or cannot be read"
        if match := re.fullmatch(r"row (\d+) has (\d+) dark and (\d+) light", step):
            row = [sum(square) % 2 for square in squares(state) if square[0] == int(match[1]) - 1]
            if (row.count(0), row.count(1)) != (int(match[2]), int(match[3])):
                return wrong
        elif match := re.fullmatch(r"(\d+) dark and (\d+) light remain", step):
            if counts(state) != (int(match[1]), int(match[2])):
                return wrong
        elif match := re.fullmatch(rf"lay ({SQUARE} {SQUARE})", step):
            one, other = read(match[1])
            if other not in beside(one) or not {one, other} <= left:
                return wrong
            left -= {one, other}
        elif match := re.fullmatch(rf"({SQUARES}) touch only (nothing|{SQUARES})", step):
            inner, outer = set(read(match[1])), set(read(match[2]))
            touched = {other for square in inner for other in beside(square)} & set(squares(state))
            if not inner <= set(squares(state)) or touched != outer:
                return wrong
            outnumbered = (len(inner), len(outer))
        elif match := re.fullmatch(r"(\d+) squares are more than (\d+)", step):
            if outnumbered != (int(match[1]), int(match[2])) or int(match[1]) <= int(match[2]):
                return wrong
            proved = "No"
        elif step == "no domino covers two of one colour" and len(set(counts(state))) == 2:
            proved = "No"
        elif step == "equal colours are enough when so few are missing":
            if not balance_suffices(state) or len(set(counts(state))) == 2:
                return wrong
            proved = "Yes"
        elif step == "equal colours are not enough when more are missing":
            if balance_suffices(state):
                return wrong
        elif (
            step not in ("answer Yes", "answer No") or step != f"answer {proved if left else 'Yes'}"
        ):
            return wrong
    return None if steps and steps[-1].startswith("answer ") else "there is no answer"


def describe(state: Board) -> str:
    """`board 3x4 without r1c2 r3c3`."""
    return f"board {state.rows}x{state.columns} without {named(sorted(state.removed)) or 'none'}"


def parse(text: str) -> Board:
    """The inverse of `describe`. Raises ValueError."""
    match = re.fullmatch(rf"board ([1-9]\d*)x([1-9]\d*) without (none|{SQUARES})", text)
    if not match:
        raise ValueError(f"{text!r} is no board")
    state = Board(int(match[1]), int(match[2]), frozenset(read(match[3])))
    if describe(state) != text or any(
        r >= state.rows or c >= state.columns for r, c in state.removed
    ):
        raise ValueError(f"{text!r} names squares off the board, twice or out of order")
    return state


def facts(state: Board) -> Facts:
    """The sides, and the squares that are missing in reading order."""
    missing = {f"missing {i}": named([square]) for i, square in enumerate(sorted(state.removed), 1)}
    return {"rows": str(state.rows), "columns": str(state.columns), **missing}


def change(state: Board, rng: random.Random) -> Board:
    """One of the missing squares elsewhere, between those before and after it in reading order."""
    order = sorted(state.removed)
    everywhere = [(r, c) for r in range(state.rows) for c in range(state.columns)]
    if not order:
        return Board(state.rows, state.columns, frozenset({rng.choice(everywhere)}))
    i = rng.randrange(len(order))
    after = order[i - 1] if i else (-1, -1)
    before = order[i + 1] if i + 1 < len(order) else (state.rows, 0)
    free = [square for square in everywhere if after < square < before and square != order[i]] or [
        order[i]
    ]
    return Board(state.rows, state.columns, state.removed - {order[i]} | {rng.choice(free)})


def distractors(state: Board, query: Coverable) -> list[str]:
    """The other of the two."""
    return ["Yes", "No"]


def render(state: Board, size: int, style: int = 0) -> Image.Image:
    """The public pictures' two yellows, dark at the top left; missing squares are white with a thin
    edge.
    """
    image, pen = paper(size, style)
    for r, c, box in cells(state.rows, state.columns, (2, 2, size - 2, size - 2)):
        if (r, c) in state.removed:
            pen.rectangle(box, WHITE, EDGE)
        else:
            pen.rectangle(box, LIGHT if (r + c) % 2 else DARK)
    return image
