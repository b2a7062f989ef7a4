"""Rubik's cube: six faces drawn as a net, and a sequence of face turns. How many squares of a
colour are where then?

The net: up above front, down below it, and left, front, right, back in a row. Each face is read
from the top left as the net shows it. Stickers are points of space, so that a turn is a rotation
and no table of moves can be wrong.
"""

import random
import re
from dataclasses import dataclass
from functools import cache

from PIL import Image

from franken.tasks.puzzle import Facts, StrategySteps
from franken.tasks.puzzles.rubiks_cube_drawing import draw
from franken.tasks.puzzles.rubiks_cube_replay import Squares, turned
from franken.tasks.puzzles.solved import Solved

SMALLEST = 84
STRATEGIES = ("turns", "origins")
PAINTS = {
    "red": (220, 30, 30),
    "green": (20, 150, 40),
    "blue": (30, 100, 240),
    "yellow": (250, 225, 40),
    "orange": (255, 140, 30),
    "grey": (165, 165, 165),
}
LETTERS = dict(zip("rgbyoe", PAINTS, strict=True))  # e for grey
FACES = ("up", "left", "front", "right", "back", "down")
Vector = tuple[int, int, int]  # x to the right, y up, z towards the viewer
NORMALS: dict[str, Vector] = {
    "up": (0, 1, 0),
    "down": (0, -1, 0),
    "left": (-1, 0, 0),
    "right": (1, 0, 0),
    "front": (0, 0, 1),
    "back": (0, 0, -1),
}
# Where the net's columns and rows of a face run in space.
ACROSS: dict[str, Vector] = {
    "up": (1, 0, 0),
    "down": (1, 0, 0),
    "left": (0, 0, 1),
    "right": (0, 0, -1),
    "front": (1, 0, 0),
    "back": (-1, 0, 0),
}
DOWN: dict[str, Vector] = {
    "up": (0, 0, 1),
    "down": (0, 0, -1),
    "left": (0, -1, 0),
    "right": (0, -1, 0),
    "front": (0, -1, 0),
    "back": (0, -1, 0),
}
OPPOSITE = {
    "up": "down",
    "down": "up",
    "left": "right",
    "right": "left",
    "front": "back",
    "back": "front",
}

Grid = tuple[tuple[str, ...], ...]


@dataclass(frozen=True)
class Cube:
    """The colours of the six faces, in the order of FACES, each `face[row][column]`."""

    faces: tuple[Grid, ...]


@dataclass(frozen=True)
class CountAfter:
    """How many squares of `colour` the face shows after the turns: (face, quarter turns clockwise)
    one by one.
    """

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
    return Solved(
        str(count), f"the {query.face} face is then {' / '.join(' '.join(row) for row in shown)}"
    )


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
    stickers = [
        _sticker(size, name, r, c) for name in FACES for r in range(size) for c in range(size)
    ]
    index = {sticker: i for i, sticker in enumerate(stickers)}
    sources = list(range(len(stickers)))
    axis = NORMALS[face]
    for i, (place, normal) in enumerate(stickers):
        if _dot(place, axis) >= size - 1:
            sources[index[(_rotate(place, axis), _rotate(normal, axis))]] = i
    return tuple(sources)


def _sticker(size: int, face: str, row: int, column: int) -> tuple[Vector, Vector]:
    """The centre of the cubie behind a sticker, in half cubies from the cube's centre, and the
    sticker's normal.
    """
    edge = size - 1
    place = [
        edge * n + (2 * column - edge) * a + (2 * row - edge) * d
        for n, a, d in zip(NORMALS[face], ACROSS[face], DOWN[face], strict=True)
    ]
    return (place[0], place[1], place[2]), NORMALS[face]


def _rotate(v: Vector, axis: Vector) -> Vector:
    """A quarter turn clockwise as seen from the tip of `axis`: v × axis, plus the part along the
    axis.
    """
    along = _dot(v, axis)
    return (
        v[1] * axis[2] - v[2] * axis[1] + along * axis[0],
        v[2] * axis[0] - v[0] * axis[2] + along * axis[1],
        v[0] * axis[1] - v[1] * axis[0] + along * axis[2],
    )


def _dot(a: Vector, b: Vector) -> int:
    return a[0] * b[0] + a[1] * b[1] + a[2] * b[2]


def sample(rng: random.Random, level: int) -> Cube:
    """A cube whose faces have one colour each, one that is two turns from there, or twenty."""
    colours = rng.sample(list(PAINTS), 6)
    cube = Cube(tuple(((colour,) * 3,) * 3 for colour in colours))
    for _ in range({1: 0, 2: 2, 3: 20}[level]):
        cube = turn(cube, rng.choice(FACES))
    return cube


def ask(state: Cube, rng: random.Random) -> CountAfter:
    """One turn to three, more the more mixed the cube. Face and colour are drawn so that the
    answers are spread.
    """
    odd = sum(square != face[1][1] for face in state.faces for row in face for square in row)
    n = rng.randint(1, 2) if odd == 0 else 2 if odd <= 24 else 3
    turns: list[tuple[str, int]] = []
    while len(turns) < n:
        face = rng.choice([f for f in FACES if not turns or f != turns[-1][0]])
        turns.append((face, rng.randint(1, 3)))
    by_count = _by_count(state, tuple(turns))
    return CountAfter(tuple(turns), *rng.choice(by_count[rng.choice(sorted(by_count))]))


def _by_count(state: Cube, turns: tuple[tuple[str, int], ...]) -> dict[int, list[tuple[str, str]]]:
    """Face and colour by how many squares of the colour the face shows after the turns."""
    for face, quarters in turns:
        for _ in range(quarters % 4):
            state = turn(state, face)
    by_count: dict[int, list[tuple[str, str]]] = {}
    for name, face in zip(FACES, state.faces, strict=True):
        shown = [square for row in face for square in row]
        for colour in PAINTS:
            by_count.setdefault(shown.count(colour), []).append((name, colour))
    return by_count


def questions(state: Cube, query: CountAfter) -> tuple[str, ...]:
    """In words, two wordings."""
    size = len(state.faces[0])
    net = (
        f"The picture shows the six faces of a {size} * {size} Rubik's cube unfolded: Left, "
        "Front, Right and Back in a row, Up above Front and Down below it."
    )
    rule = (
        "Each letter (U up, D down, L left, R right, F front, B back) turns that face clockwise "
        "by 90 degrees, as seen from outside the cube. A number n after the letter: by 90 * n "
        "degrees."
    )
    sequence = " ".join(_letter(face, quarters) for face, quarters in query.turns)
    return (
        f"{net} {rule} The moves '{sequence}' are made from left to right. How many small "
        f"{query.colour} squares are then on the {query.face} face?",
        f"{net} After the moves '{sequence}', made from left to right, how many squares of the "
        f"{query.face} face are {query.colour}? {rule}",
    )


def _letter(face: str, quarters: int) -> str:
    return face[0].upper() + (str(quarters) if quarters != 1 else "")


def steps(state: Cube, query: CountAfter) -> StrategySteps:
    """The faces after each turn; or where each square of the asked face was before each turn, the
    last one first.
    """
    answer = solve(state, query).answer
    end = (f"{query.colour} on {query.face} {answer}", f"answer {answer}")
    forward, after = [f"the cube is {_show(state, FACES)}"], state
    for face, quarters in query.turns:
        for _ in range(quarters % 4):
            after = turn(after, face)
        moved = tuple(name for name in FACES if name != OPPOSITE[face])
        forward.append(f"{_letter(face, quarters)} gives {_show(after, moved)}")
    size = len(state.faces[0])
    places = [(name, r, c) for name in FACES for r in range(size) for c in range(size)]
    backward = []
    for place in (p for p in places if p[0] == query.face):
        at, path = place, _place(place)
        for face, quarters in reversed(query.turns):
            for _ in range(quarters % 4):
                at = places[_sources(size, face)[places.index(at)]]
            path += f" before {_letter(face, quarters)} {_place(at)}"
        backward.append(f"{path} {state.faces[FACES.index(at[0])][at[1]][at[2]]}")
    return {"turns": (*forward, *end), "origins": (*backward, *end)}


def _place(place: tuple[str, int, int]) -> str:
    return f"{place[0]} r{place[1] + 1}c{place[2] + 1}"


def _show(state: Cube, names: tuple[str, ...]) -> str:
    letter = {colour: key for key, colour in LETTERS.items()}
    grids = {
        name: "/".join(
            "".join(letter[square] for square in row) for row in state.faces[FACES.index(name)]
        )
        for name in names
    }
    return " ".join(f"{name} {grid}" for name, grid in grids.items())


def check(state: Cube, query: CountAfter, steps: tuple[str, ...]) -> str | None:
    """See `suite.Module.check`. Turns are replayed face by face and strip by strip."""
    cubes = [
        {name: [list(row) for row in face] for name, face in zip(FACES, state.faces, strict=True)}
    ]
    for face, quarters in query.turns:
        cubes.append(turned(cubes[-1], face, quarters))
    done, traced, size = 0, [], len(state.faces[0])
    for step in steps:
        if match := re.fullmatch(r"([UDLRFB]\d?) gives (.+)", step):
            done += 1
            if done >= len(cubes) or match[1] != _letter(*query.turns[done - 1]):
                return f"{step!r}: this turn is not made then"
            if not _shows(cubes[done], match[2]):
                return f"{step!r}: the turn gives other faces"
        elif match := re.fullmatch(r"the cube is (.+)", step):
            if not _shows(cubes[0], match[1]):
                return f"{step!r}: it is another cube"
        elif match := re.fullmatch(rf"{query.face} r(\d)c(\d) before .+", step):
            square = int(match[1]) - 1, int(match[2]) - 1
            if not max(square) < size > min(square) >= 0 or step != _origin(state, query, *square):
                return f"{step!r}: the square comes from elsewhere"
            traced.append(square)
        else:
            count = sum(square == query.colour for row in cubes[-1][query.face] for square in row)
            if step not in (f"{query.colour} on {query.face} {count}", f"answer {count}"):
                return f"{step!r} is wrong or cannot be read"
            if done != len(query.turns) and len(set(traced)) != size * size:
                return f"{step!r}: the turns have not all been made, nor every square traced"
    return None if steps and steps[-1].startswith("answer ") else "there is no answer"


def _shows(cube: Squares, text: str) -> bool:
    """Whether the text, `up rrr/rrr/rrr left …`, names five faces or more of this cube and each as
    it is.
    """
    words = text.split(" ")
    right = {
        name: "/".join("".join(_key(square) for square in row) for row in face)
        for name, face in cube.items()
    }
    said = dict(zip(words[::2], words[1::2], strict=False))
    return len(words) == 2 * len(said) >= 10 and all(
        right.get(name) == grid for name, grid in said.items()
    )


def _key(colour: str) -> str:
    return next(letter for letter, named in LETTERS.items() if named == colour)


def _origin(state: Cube, query: CountAfter, row: int, column: int) -> str:
    """How the step says where a square of the asked face was before each turn, found on a cube of
    labels.
    """
    size = len(state.faces[0])
    blank = {
        name: [[_place((name, r, c)) for c in range(size)] for r in range(size)] for name in FACES
    }
    step = at = _place((query.face, row, column))
    for face, quarters in reversed(query.turns):
        moved = turned(blank, face, quarters)
        name, r, c = _read_place(at)
        at = moved[name][r][c]
        step += f" before {_letter(face, quarters)} {at}"
    name, r, c = _read_place(at)
    return f"{step} {state.faces[FACES.index(name)][r][c]}"


def _read_place(text: str) -> tuple[str, int, int]:
    name, square = text.split(" ")
    row, column = re.findall(r"\d+", square)
    return name, int(row) - 1, int(column) - 1


def describe(state: Cube) -> str:
    """`cube up rrr/rrr/rrr left …`: the faces in the order of FACES, read as the net shows them,
    colours by LETTERS.
    """
    return f"cube {_show(state, FACES)}"


def parse(text: str) -> Cube:
    """The inverse of `describe`. Raises ValueError. Any colouring is taken, also one that no turns
    lead to.
    """
    grid = rf"[{''.join(LETTERS)}/]+"
    match = re.fullmatch("cube " + " ".join(f"{name} ({grid})" for name in FACES), text)
    faces = [grid.split("/") for grid in match.groups()] if match else []
    if not faces or {len(row) for face in faces for row in face} != {
        len(face) for face in faces
    } != {len(faces[0])}:
        raise ValueError(f"{text!r} is no cube")
    return Cube(
        tuple(tuple(tuple(LETTERS[letter] for letter in row) for row in face) for face in faces)
    )


def facts(state: Cube) -> Facts:
    """The colour of each square."""
    return {
        _place((name, r, c)): square
        for name, face in zip(FACES, state.faces, strict=True)
        for r, row in enumerate(face)
        for c, square in enumerate(row)
    }


def change(state: Cube, rng: random.Random) -> Cube:
    """Another colour for one square, as if its sticker had been replaced."""
    faces = [[list(row) for row in face] for face in state.faces]
    row = rng.choice(rng.choice(faces))
    c = rng.randrange(len(row))
    row[c] = rng.choice([colour for colour in PAINTS if colour != row[c]])
    return Cube(tuple(tuple(map(tuple, face)) for face in faces))


def distractors(state: Cube, query: CountAfter) -> list[str]:
    """How many squares other colours and faces have then: each is as likely as the right answer.
    Else numbers close by.
    """
    right, most = int(solve(state, query).answer), len(state.faces[0]) ** 2
    others = [count for count in _by_count(state, query.turns) if count != right]
    near = sorted(
        (n for n in range(most + 1) if n not in (right, *others)), key=lambda n: abs(n - right)
    )
    return [str(n) for n in (*others, *near[: max(0, 3 - len(others))])]


def render(state: Cube, size: int, style: int = 0) -> Image.Image:
    """The net of the cube."""
    faces = {
        name: tuple(tuple(PAINTS[square] for square in row) for row in face)
        for name, face in zip(FACES, state.faces, strict=True)
    }
    return draw(faces, size, style)
