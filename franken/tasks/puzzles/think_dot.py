"""Think-a-dot: balls fall through a toy of eight discs, flip those they pass, and are deflected by
them.

The discs stand in rows of three, two and three. A blue disc deflects as `WHEN_BLUE` says, a yellow
one the other way, by the face it shows before the ball flips it. In the picture a bar under each
face slopes down to the side a ball goes.
"""

import random
import re
from dataclasses import dataclass
from typing import Literal

from PIL import Image

from franken.tasks.puzzle import Facts, StrategySteps
from franken.tasks.puzzles.canvas import paper
from franken.tasks.puzzles.solved import Solved

SMALLEST = 84
STRATEGIES = ("trace", "tally")
HOLES = ("left", "center", "right")
ROWS = ("top", "middle", "bottom")
WHEN_BLUE = (("right", "left", "right"), ("left", "left"))
OTHER = {"blue": "yellow", "yellow": "blue"}
# Where a ball goes from disc (row, index) to the left and to the right.
NEXT = {
    (0, 0): ((2, 0), (1, 0)),
    (0, 1): ((1, 0), (1, 1)),
    (0, 2): ((1, 1), (2, 2)),
    (1, 0): ((2, 0), (2, 1)),
    (1, 1): ((2, 1), (2, 2)),
}
DISCS = tuple((row, index) for row, length in enumerate((3, 2, 3)) for index in range(length))
HOLE_OF = {"t1": "left", "t2": "center", "t3": "right"}
RIGHT_WHEN_BLUE = (
    "t1",
    "t3",
    "b1",
    "b3",
)  # as `WHEN_BLUE`, by name, and the bars of the bottom row
NAMES = {f"{ROWS[row][0]}{index + 1}": (row, index) for row, index in DISCS}
RULES = (
    "The toy has three rows of discs: three at the top, two in the middle, three at the bottom. "
    "Each shows a blue or a yellow face and has a bar below it. A ball that falls on a disc rolls "
    "down the bar to its lower side, left or right, and flips the disc: face and bar are then the "
    "other way. A ball dropped through a hole falls on the top disc below it. From the top discs "
    "a ball that goes left at the left disc falls on the left bottom disc, one that goes right at "
    "the right disc on the right bottom disc, every other one on the middle disc on that side; "
    "from a middle disc it falls on the bottom disc on that side. From a bottom disc it leaves "
    "the toy."
)
PANEL, WALL, BAR = (247, 184, 180), (186, 36, 28), (90, 40, 44)
FACES = {"blue": (40, 120, 250), "yellow": (252, 206, 40)}


@dataclass(frozen=True)
class Toy:
    """The faces shown, `blue` or `yellow`, row by row."""

    discs: tuple[tuple[str, ...], ...]


@dataclass(frozen=True)
class FacesAfter:
    """How many faces of `colour` show, in one row or in all, after balls went through `holes` one
    by one.
    """

    holes: tuple[str, ...]
    colour: str
    row: Literal["top", "middle", "bottom", "all"]


def solve(state: Toy, query: FacesAfter) -> Solved:
    """The count, and the toy it is counted on."""
    for hole in query.holes:
        state = drop(state, hole)
    rows = state.discs if query.row == "all" else (state.discs[ROWS.index(query.row)],)
    count = sum(row.count(query.colour) for row in rows)
    return Solved(
        str(count), f"the toy then shows {' / '.join(' '.join(row) for row in state.discs)}"
    )


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


def sample(rng: random.Random, level: int) -> Toy:
    """At level 1 no more than one row shows both colours, at 2 two rows do, at 3 all; `ask` drops
    balls accordingly.
    """
    while True:
        toy = Toy(
            tuple(
                tuple(rng.choice(("blue", "yellow")) for _ in range(length)) for length in (3, 2, 3)
            )
        )
        if max(1, _mixed_rows(toy)) == level:
            return toy


def _mixed_rows(state: Toy) -> int:
    return sum(len(set(row)) > 1 for row in state.discs)


def ask(state: Toy, rng: random.Random) -> FacesAfter:
    """One ball to four, more the more rows are mixed. Row and colour are drawn so that the answers
    are spread.
    """
    mixed = max(1, _mixed_rows(state))
    by_answer = _by_answer(
        state, tuple(rng.choice(HOLES) for _ in range(rng.randint(mixed, mixed + 1)))
    )
    return rng.choice(by_answer[rng.choice(sorted(by_answer))])


def _by_answer(state: Toy, holes: tuple[str, ...]) -> dict[str, list[FacesAfter]]:
    """All that can be asked after these balls, by answer."""
    by_answer: dict[str, list[FacesAfter]] = {}
    for hole in holes:
        state = drop(state, hole)
    for colour in OTHER:
        for row in ("top", "middle", "bottom", "all"):
            answer = solve(state, FacesAfter((), colour, row)).answer
            by_answer.setdefault(answer, []).append(FacesAfter(holes, colour, row))
    return by_answer


def questions(state: Toy, query: FacesAfter) -> tuple[str, ...]:
    """In words, two wordings."""
    place = "in the whole toy" if query.row == "all" else f"in the {query.row} row"
    if len(query.holes) == 1:
        balls = f"One ball is dropped through the {query.holes[0]} hole."
    else:
        balls = (
            f"{len(query.holes)} balls are dropped one after another through these holes: "
            f"{', '.join(query.holes)}."
        )
    return (
        f"{RULES} {balls} How many {query.colour} faces can then be seen {place}?",
        f"{balls} How many faces {place} are {query.colour} once every ball has left? {RULES}",
    )


def steps(state: Toy, query: FacesAfter) -> StrategySteps:
    """Ball by ball; or disc by disc from the top: the balls that reach a disc go left and right in
    turn.
    """
    start = f"the toy shows {_show(state)}"
    after, traced = state, []
    for number, hole in enumerate(query.holes, 1):
        path, after = _path(after, hole), drop(after, hole)
        traced.append(f"ball {number} {hole} flips {' '.join(path)} giving {_show(after)}")
    answer = solve(state, query).answer
    end = (f"{query.colour} in {query.row} {answer}", f"answer {answer}")
    return {"trace": (start, *traced, *end), "tally": (start, *_tally(state, query), *end)}


def _path(state: Toy, hole: str) -> list[str]:
    """The names of the discs that a ball flips."""
    after = drop(state, hole)
    return [
        name
        for name, (row, index) in NAMES.items()
        if state.discs[row][index] != after.discs[row][index]
    ]


def _tally(state: Toy, query: FacesAfter) -> list[str]:
    reach = dict.fromkeys(DISCS, 0)
    for hole in query.holes:
        reach[0, HOLES.index(hole)] += 1
    lines = []
    for name, at in NAMES.items():
        face, balls = state.discs[at[0]][at[1]], reach[at]
        after = OTHER[face] if balls % 2 else face
        line = f"{name} {face} gets {balls} then {after}"
        if at in NEXT:
            first = (balls + 1) // 2
            blue_first = (WHEN_BLUE[at[0]][at[1]] == "right") == (face == "blue")
            left, right = (balls - first, first) if blue_first else (first, balls - first)
            reach[NEXT[at][0]] += left
            reach[NEXT[at][1]] += right
            line += f" passing {left} left {right} right"
        lines.append(line)
    return lines


def check(state: Toy, query: FacesAfter, steps: tuple[str, ...]) -> str | None:
    """See `suite.Module.check`. A count needs a toy that every ball went through."""
    toy, balls, reach, seen = (
        state,
        0,
        {name: query.holes.count(hole) for name, hole in HOLE_OF.items()},
        [],
    )
    for step in steps:
        if step == f"the toy shows {_show(state)}":
            continue
        if match := re.fullmatch(
            r"ball (\d) (left|center|right) flips ([tmb\d ]+) giving ([by/]+)", step
        ):
            balls += 1
            if int(match[1]) != balls or query.holes[balls - 1 : balls] != (match[2],):
                return f"{step!r}: no such ball is dropped then"
            if _fall(toy, match[2]) != (match[3].split(" "), match[4]):
                return f"{step!r}: the ball falls otherwise"
            toy = _read(match[4])
        elif match := re.fullmatch(rf"({'|'.join(NAMES)}) (\w+) gets (\d) then (\w+)(.*)", step):
            seen.append(match[1])
            if wrong := _wrong_tally(state, match, reach):
                return f"{step!r}: {wrong}"
            toy = _with(toy, NAMES[match[1]], match[4])
        elif step not in _conclusion(toy, query):
            return f"{step!r} is wrong or cannot be read"
        elif balls != len(query.holes) and seen != list(NAMES):
            return f"{step!r}: the balls have not all fallen"
    return None if steps and steps[-1].startswith("answer ") else "there is no answer"


def _conclusion(toy: Toy, query: FacesAfter) -> tuple[str, str]:
    rows = dict(zip(ROWS, toy.discs, strict=True))
    shown = [face for name, row in rows.items() for face in row if query.row in (name, "all")]
    count = shown.count(query.colour)
    return f"{query.colour} in {query.row} {count}", f"answer {count}"


def _fall(toy: Toy, hole: str) -> tuple[list[str], str]:
    """The discs a ball flips and the toy after it, by the columns the toy is drawn in (t1 m1 b1 …
    at 1 2 1 …).
    """
    column, path, faces = (
        {"left": 1, "center": 3, "right": 5}[hole],
        [],
        dict(zip(NAMES, _flat(toy), strict=True)),
    )
    for row in "tmb":
        at = {1: "1", 3: "2", 5: "3"} if row != "m" else {2: "1", 4: "2"}
        if column not in at:  # beside the middle row
            column += 1 if column < 3 else -1
            continue
        name = row + at[column]
        path.append(name)
        column += 1 if (faces[name] == "blue") == (name in RIGHT_WHEN_BLUE) else -1
        faces[name] = OTHER[faces[name]]
    letters = [face[0] for face in faces.values()]
    return path, "/".join(("".join(letters[:3]), "".join(letters[3:5]), "".join(letters[5:])))


def _wrong_tally(toy: Toy, match: re.Match[str], reach: dict[str, int]) -> str | None:
    """What is wrong with a line of the tally; passes its balls on in `reach`. A disc sends them to
    each side in turn.
    """
    name, face, balls, after = match[1], match[2], int(match[3]), match[4]
    row, index = NAMES[name]
    if face != toy.discs[row][index]:
        return f"{name} shows {toy.discs[row][index]}"
    if balls != reach.get(name, 0):
        return f"{reach.get(name, 0)} balls reach it"
    if after != (face if balls % 2 == 0 else OTHER[face]):
        return "it flips once a ball"
    if row == 2:
        return "a ball leaves from there" if match[5] else None
    passing = re.fullmatch(r" passing (\d) left (\d) right", match[5])
    first = (balls + 1) // 2  # the first ball, the third, …
    to_right = first if (face == "blue") == (name in RIGHT_WHEN_BLUE) else balls - first
    if not passing or (int(passing[1]), int(passing[2])) != (balls - to_right, to_right):
        return f"{balls - to_right} go left and {to_right} right"
    below = {
        "t1": ("b1", "m1"),
        "t2": ("m1", "m2"),
        "t3": ("m2", "b3"),
        "m1": ("b1", "b2"),
        "m2": ("b2", "b3"),
    }[name]
    for to, n in zip(below, (balls - to_right, to_right), strict=True):
        reach[to] = reach.get(to, 0) + n
    return None


def _flat(state: Toy) -> list[str]:
    return [face for row in state.discs for face in row]


def _with(state: Toy, at: tuple[int, int], face: str) -> Toy:
    discs = [list(row) for row in state.discs]
    discs[at[0]][at[1]] = face
    return Toy(tuple(map(tuple, discs)))


def _show(state: Toy) -> str:
    return "/".join("".join(face[0] for face in row) for row in state.discs)


def _read(text: str) -> Toy:
    if not re.fullmatch(r"[by]{3}/[by]{2}/[by]{3}", text):
        raise ValueError(f"{text!r} is no toy")
    return Toy(
        tuple(
            tuple({"b": "blue", "y": "yellow"}[letter] for letter in row) for row in text.split("/")
        )
    )


def describe(state: Toy) -> str:
    """`toy bby/yb/bbb`: the faces row by row."""
    return f"toy {_show(state)}"


def parse(text: str) -> Toy:
    """The inverse of `describe`. Raises ValueError."""
    if not text.startswith("toy "):
        raise ValueError(f"{text!r} is no toy")
    return _read(text.removeprefix("toy "))


def facts(state: Toy) -> Facts:
    """The face of each disc: t, m, b for its row, counted from the left."""
    return dict(zip(NAMES, _flat(state), strict=True))


def change(state: Toy, rng: random.Random) -> Toy:
    """One disc flipped."""
    row, index = rng.choice(DISCS)
    return _with(state, (row, index), OTHER[state.discs[row][index]])


def distractors(state: Toy, query: FacesAfter) -> list[str]:
    """What is right of the other row or colour: each is as likely as the right answer. Else numbers
    close by.
    """
    right = solve(state, query).answer
    others = [answer for answer in _by_answer(state, query.holes) if answer != right]
    near = sorted(
        (n for n in range(9) if str(n) not in (right, *others)), key=lambda n: abs(n - int(right))
    )
    return [*others, *map(str, near[: max(0, 3 - len(others))])]


def render(state: Toy, size: int, style: int = 0) -> Image.Image:
    """The toy's front: arrows at the holes, walls between the discs, a bar and a face for each
    disc.
    """
    image, pen = paper(size, style)
    unit, thick = size / 7, max(2, size // 60)
    pen.rounded_rectangle((unit * 0.4, unit * 0.6, unit * 6.6, unit * 6.8), unit * 0.3, PANEL)
    for x in (1.5, 3.5, 5.5):
        pen.line((unit * x, 2, unit * x, unit * 0.45), (60, 140, 40), thick)
        tip = ((x - 0.25, 0.4), (x + 0.25, 0.4), (x, 0.75))
        pen.polygon([(unit * a, unit * b) for a, b in tip], (60, 140, 40))
    for name, (row, index) in NAMES.items():
        x, y = unit * (1.5 + 2 * index + (row == 1)), unit * (1.8 + 1.95 * row)
        face = state.discs[row][index]
        for side in (-1, 1):
            pen.line(
                (x + side * unit, y - unit * 0.6, x + side * unit, y + unit * 0.7), WALL, thick
            )
        radius = unit * 0.4
        pen.ellipse(
            (x - radius, y - unit * 0.85, x + radius, y - unit * 0.85 + 2 * radius),
            FACES[face],
            BAR,
        )
        to_right = (face == "blue") == (name in RIGHT_WHEN_BLUE)
        slope = unit * (0.35 if to_right else -0.35)
        pen.line(
            (x - unit * 0.7, y + unit * 0.4 - slope, x + unit * 0.7, y + unit * 0.4 + slope),
            BAR,
            thick * 2,
        )
    pen.line([(unit * a, unit * b) for a, b in ((0.4, 6.9), (3.5, 6.6), (6.6, 6.9))], WALL, thick)
    return image
