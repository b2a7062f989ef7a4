"""Checker move: green checkers go right, red ones left, one step or a jump over the other
colour.
"""

import random
import re
from collections.abc import Iterator
from dataclasses import dataclass, replace

from PIL import Image

from franken.tasks.puzzle import Facts, StrategySteps
from franken.tasks.puzzles.canvas import INK, cells, paper, shrink, write
from franken.tasks.puzzles.solved import Solved, fewest_moves, shortest

SMALLEST = 84
STRATEGIES = ("moves", "distance")
COLOURS = {"G": (0, 128, 0), "R": (255, 0, 0)}
NAMES = {"G": "green", "R": "red"}
SQUARES = {1: (4, 6), 2: (7, 8), 3: (9, 11)}
MOST = {1: 7, 2: 13, 3: 20}  # moves, by level


@dataclass(frozen=True)
class Checkers:
    """The starting and the ending row of squares, of the letters G, R and _ (empty)."""

    start: str
    end: str


@dataclass(frozen=True)
class Moves:
    """The minimum number of moves from start to end."""


def solve(state: Checkers, query: Moves = Moves()) -> Solved:
    """The minimum number of moves. Raises Unsolvable when the end cannot be reached."""
    return fewest_moves(state.start, state.end, moves)


def moves(row: str) -> Iterator[tuple[str, str]]:
    """Every legal move and the row after it."""
    for at, checker in enumerate(row):
        if checker == "_":
            continue
        step = 1 if checker == "G" else -1
        for to in (at + step, at + 2 * step):
            over = row[at + step] if to == at + 2 * step and 0 <= to < len(row) else None
            if 0 <= to < len(row) and row[to] == "_" and over not in (checker, "_"):
                after = list(row)
                after[at], after[to] = "_", checker
                yield f"{checker} {at + 1}→{to + 1}", "".join(after)


def sample(rng: random.Random, level: int) -> Checkers:
    """A row of 4 to 11 squares with an empty one, and another row that some number of moves leads
    to, drawn first.

    All ways from one row to another take as many moves (see `steps`), so those walked at random are
    the fewest.
    """
    wanted = rng.randint(1, MOST[level])
    while True:
        n = rng.randint(*SQUARES[level])
        checkers = [rng.choice("GR") for _ in range(n - 1)]
        if rng.random() < wanted / MOST[level]:  # few other rows last for many moves
            checkers.sort()
        checkers.insert(rng.randrange(n), "_")
        start = "".join(checkers)
        reached = [start]
        for _ in range(wanted):
            reached = list(dict.fromkeys(after for row in reached for _, after in moves(row)))
        if reached:
            return Checkers(start, rng.choice(reached))


def ask(state: Checkers, rng: random.Random) -> Moves:
    """There is one question."""
    return Moves()


def questions(state: Checkers, query: Moves) -> tuple[str, ...]:
    """In words, two wordings."""
    return (
        "Green checkers move only to the right, red ones only to the left. A move takes one "
        "checker one square on to an empty square, or over one checker of the other colour to the "
        "empty square right behind it; the checker that is jumped over stays. At least how many "
        "moves lead from the upper row (start) to the lower row (end)?",
        "The upper row is to become the lower one. In one move a green checker goes right or a "
        "red one left, either to the next square or across exactly one checker of the other "
        "colour, which stays; where it lands must be empty. What is the smallest number of moves?",
    )


def _places(row: str) -> dict[tuple[str, int], int]:
    """(colour, which of that colour from the left, from 1) → square from 1. No checker passes one
    of its colour.
    """
    places: dict[tuple[str, int], int] = {}
    for square, checker in enumerate(row, 1):
        if checker != "_":
            places[checker, row[:square].count(checker)] = square
    return places


def _passes(state: Checkers) -> dict[int, int]:
    """How many red checkers each green one passes: they change sides, which takes a jump, and never
    change back.
    """
    start, end = _places(state.start), _places(state.end)
    red = [which for which in start if which[0] == "R"]
    return {
        i: sum(start[which] > start["G", i] and end[which] < end["G", i] for which in red)
        for colour, i in start
        if colour == "G"
    }


def steps(state: Checkers, query: Moves) -> StrategySteps:
    """Move by move; or by arithmetic: what all checkers travel, less one for each jump, which
    travels two.
    """
    path = shortest(state.start, lambda row: row == state.end, moves) or []
    answer = f"answer {solve(state, query).answer}"
    ends = (f"start is {state.start}", f"end is {state.end}")
    played = []
    for name, after in path:
        checker, was, to = re.findall(r"[GR]|\d+", name)
        played.append(f"{NAMES[checker]} {was} to {to} makes {after}")
    start, end = _places(state.start), _places(state.end)
    far = [abs(end[which] - start[which]) for which in start]
    goes = [
        f"{NAMES[which[0]]} {which[1]} goes {start[which]} to {end[which]} by {n}"
        for which, n in zip(start, far, strict=True)
    ]
    passed = _passes(state)
    jumps = [f"green {i} passes {n} red" for i, n in passed.items()]
    sums = (
        f"{' + '.join(map(str, far))} = {sum(far)} squares",
        *jumps,
        f"{' + '.join(map(str, passed.values())) or '0'} = {sum(passed.values())} jumps",
        f"{sum(far)} - {sum(passed.values())} = {len(path)} moves",
    )
    return {
        "moves": (*ends, *played, f"{len(path)} moves reach {state.end}", answer),
        "distance": (*ends, *goes, *sums, answer),
    }


def check(state: Checkers, query: Moves, steps: tuple[str, ...]) -> str | None:
    """See `suite.Module.check`. Moves are played one by one on the row."""
    row, played = state.start, 0
    for step in steps:
        wrong = f"{step!r} is wrong or cannot be read"
        if match := re.fullmatch(r"(green|red) (\d+) to (\d+) makes ([GR_]+)", step):
            after = _play(row, match[1], int(match[2]), int(match[3]))
            if after != match[4]:
                return wrong
            row, played = match[4], played + 1
        elif match := re.fullmatch(r"(\d+) moves reach ([GR_]+)", step):
            if (int(match[1]), match[2]) != (played, state.end) or row != state.end:
                return wrong
        elif not _holds(step, state, query):
            return wrong
    return None if steps and steps[-1].startswith("answer ") else "there is no answer"


def _play(row: str, colour: str, was: int, to: int) -> str | None:
    """The row after a move, written out from the rules; None when they forbid it."""
    way = 1 if colour == "green" else -1
    checker, other = ("G", "R") if colour == "green" else ("R", "G")
    on_board = 1 <= was <= len(row) and 1 <= to <= len(row)
    if not on_board or row[was - 1] != checker or row[to - 1] != "_":
        return None
    if to - was != way and (to - was != 2 * way or row[was - 1 + way] != other):
        return None
    squares = list(row)
    squares[was - 1], squares[to - 1] = "_", checker
    return "".join(squares)


def _holds(step: str, state: Checkers, query: Moves) -> bool:
    start, end, passed = _places(state.start), _places(state.end), _passes(state)
    travelled = sum(abs(end[which] - start[which]) for which in start)
    if match := re.fullmatch(r"(start|end) is ([GR_]+)", step):
        return match[2] == (state.start if match[1] == "start" else state.end)
    if match := re.fullmatch(r"(green|red) (\d+) goes (\d+) to (\d+) by (\d+)", step):
        which = ("G" if match[1] == "green" else "R", int(match[2]))
        was, to, by = map(int, match.group(3, 4, 5))
        return start.get(which) == was and end.get(which) == to and abs(to - was) == by
    if match := re.fullmatch(r"green (\d+) passes (\d+) red", step):
        return passed.get(int(match[1])) == int(match[2])
    if match := re.fullmatch(r"(\d+(?: \+ \d+)*) = (\d+) (squares|jumps)", step):
        right = travelled if match[3] == "squares" else sum(passed.values())
        return sum(map(int, match[1].split(" + "))) == int(match[2]) == right
    if match := re.fullmatch(r"(\d+) - (\d+) = (\d+) moves", step):
        squares, jumps, total = map(int, match.groups())
        return (squares, jumps) == (travelled, sum(passed.values())) and squares - jumps == total
    return step == f"answer {solve(state, query).answer}"


def describe(state: Checkers) -> str:
    """`checkers G_RR to RR_G`."""
    return f"checkers {state.start} to {state.end}"


def parse(text: str) -> Checkers:
    """The inverse of `describe`. Raises ValueError, also where the rows hold different checkers."""
    match = re.fullmatch(r"checkers ([GR_]+) to ([GR_]+)", text)
    if not match or sorted(match[1]) != sorted(match[2]):
        raise ValueError(f"{text!r} is no pair of rows of the same checkers")
    return Checkers(match[1], match[2])


def facts(state: Checkers) -> Facts:
    """How many squares there are, and where each checker is in either row, counted by colour from
    the left.
    """
    rows = {"start": state.start, "end": state.end}
    places = {
        f"{name} {NAMES[colour]} {i}": str(square)
        for name, row in rows.items()
        for (colour, i), square in _places(row).items()
    }
    return {"squares": str(len(state.start)), **places}


def change(state: Checkers, rng: random.Random) -> Checkers:
    """In one row one checker on an empty square; it passes none of its colour, so that no other one
    is counted anew.
    """
    name = rng.choice(("start", "end"))
    row = state.start if name == "start" else state.end
    others = []
    for to in (i for i, checker in enumerate(row) if checker == "_"):
        for was, checker in enumerate(row):
            if checker != "_" and checker not in row[min(was, to) + 1 : max(was, to)]:
                squares = list(row)
                squares[was], squares[to] = "_", checker
                others.append("".join(squares))
    return replace(state, **{name: rng.choice(others or [row])})


def distractors(state: Checkers, query: Moves) -> list[str]:
    """A jump counted as two moves or not at all, the jumps alone, and numbers nearby."""
    right, jumps = int(solve(state, query).answer), sum(_passes(state).values())
    slips = [
        right + jumps,
        right - jumps,
        jumps,
        right + 1,
        right + 2,
        right - 1,
        right - 2,
        right + 3,
    ]
    return [str(n) for n in dict.fromkeys(slips) if n > 0]


def render(state: Checkers, size: int, style: int = 0) -> Image.Image:
    """The start above, the end below; captions from 120 pixels on."""
    image, pen = paper(size, style)
    named, n = size >= 120, len(state.start)
    half, caption = size // 2, size // 9 if named else 0
    areas = ((2, 2 + caption, size - 2, half - 3), (2, half + 3, size - 2, size - 2 - caption))
    for row, area in zip((state.start, state.end), areas, strict=True):
        for _, column, box in cells(1, n, area):
            pen.rectangle(box, "white", (120, 120, 120))
            if row[column] != "_":
                pen.ellipse(shrink(box, 0.1), COLOURS[row[column]])
    for x in range(2, size - 2, 6):
        pen.line((x, half, x + 2, half), (120, 120, 120))
    if named:
        write(pen, (half, 2 + caption / 2), "start", caption * 0.7, INK)
        write(pen, (half, size - 2 - caption / 2), "end", caption * 0.7, INK)
    return image
