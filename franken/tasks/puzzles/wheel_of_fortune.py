"""Wheel of fortune: a wheel of prizes turns and stops. Which prize stands at the arrow?

Angles are degrees counterclockwise from the right, exact fractions.
"""

import random
import re
from dataclasses import dataclass, replace
from fractions import Fraction
from functools import cache
from math import cos, pi, sin

from PIL import Image, ImageDraw

from franken.tasks.puzzle import Facts, StrategySteps
from franken.tasks.puzzles.canvas import INK, paper, write
from franken.tasks.puzzles.solved import Solved, the_one

SMALLEST = 84
STRATEGIES = ("arrow", "wheel")
PRIZES = (
    "Bike",
    "Boat",
    "Book",
    "Cake",
    "Car",
    "Kite",
    "Lamp",
    "Money",
    "Phone",
    "Piano",
    "Pizza",
    "Ring",
    "Sofa",
    "Tent",
    "Watch",
    "Yacht",
)
NUMBER = r"-?\d{1,9}(?:/[1-9]\d{0,8})?"
PAINTS = (
    (255, 138, 128),
    (255, 204, 128),
    (255, 245, 157),
    (197, 225, 165),
    (128, 222, 190),
    (128, 216, 235),
    (159, 184, 245),
    (206, 167, 240),
    (244, 166, 207),
    (207, 207, 207),
)
ARROW = (121, 62, 30)


@dataclass(frozen=True)
class Wheel:
    """Segment i begins at `starts[i]`, spans `angles[i]` and holds `prizes[i]`; the arrow stands at
    `arrow`.
    """

    starts: tuple[Fraction, ...]
    angles: tuple[Fraction, ...]
    prizes: tuple[str, ...]
    arrow: Fraction


@dataclass(frozen=True)
class Spin:
    """The turn in degrees, counterclockwise; negative: clockwise."""

    degrees: Fraction


def solve(state: Wheel, query: Spin) -> Solved:
    """The prize. Raises Unsolvable when the arrow stops exactly between two prizes."""
    at = (state.arrow - query.degrees) % 360
    under: dict[str, str] = {}
    for start, angle, prize in zip(state.starts, state.angles, state.prizes, strict=True):
        into = (at - start) % 360
        if into <= angle:
            edge = "; the arrow stops at its edge" if into in (0, angle) else ""
            under[prize] = (
                f"the arrow then points at {_show(at)} degrees of the wheel as drawn, "
                f"{_show(into)} into it{edge}"
            )
    return the_one(under, "the prize at the arrow")


def _show(degrees: Fraction) -> str:
    return f"{float(degrees):g}"


def sample(rng: random.Random, level: int) -> Wheel:
    """Four equal segments, six or eight, or ten; `ask` turns a wheel of more segments further."""
    n = rng.choice({1: (4,), 2: (6, 8), 3: (10,)}[level])
    angle = Fraction(360, n)
    first = rng.randrange(0, int(angle), 5)
    starts = tuple(first + i * angle for i in range(n))
    return Wheel(
        starts, (angle,) * n, tuple(rng.sample(PRIZES, n)), Fraction(rng.randrange(0, 360, 45))
    )


def ask(state: Wheel, rng: random.Random) -> Spin:
    """A spin by fifteens of degrees or twentieths of a rotation that stops well inside a
    segment.
    """
    turns = {4: 1, 6: 2, 8: 2}.get(len(state.prizes), 5)
    while True:
        unit = rng.choice((15, 18))
        spin = Fraction(rng.choice((-1, 1)) * rng.randrange(unit, 360 * turns, unit))
        at = (state.arrow - spin) % 360
        shares = [
            ((at - start) % 360) / angle
            for start, angle in zip(state.starts, state.angles, strict=True)
        ]
        if any(Fraction(1, 5) <= share <= Fraction(4, 5) for share in shares):
            return Spin(spin)


def questions(state: Wheel, query: Spin) -> tuple[str, ...]:
    """In words, two wordings; the first speaks of rotations where two decimals say how many."""
    way, size = _way(query), abs(query.degrees)
    degrees = f"rotates {size} degrees" if size != 1 else "rotates 1 degree"
    hundredths = size / 360 * 100
    turned = degrees
    if hundredths.denominator == 1:
        number = f"{float(size / 360):g}"
        turned = f"makes {number} full rotation{'s' * (number != '1')}"
    wheel = f"The wheel of fortune has {len(state.prizes)} segments with a prize in each."
    return (
        f"{wheel} You spin it {way} and it {turned} about its centre before it stops. The brown "
        "arrow stays where it is. You win the prize of the segment that is then in front of the "
        "arrow. What is your prize?",
        f"Which prize is at the brown arrow, which does not move, after the wheel {degrees} "
        f"{way}? Each of the {len(state.prizes)} segments of the wheel holds one prize.",
    )


def _way(query: Spin) -> str:
    return "clockwise" if query.degrees < 0 else "counterclockwise"


def steps(state: Wheel, query: Spin) -> StrategySteps:
    """The wheel stays and the arrow goes the other way; or every segment is moved."""
    turn, answer = abs(query.degrees), solve(state, query).answer
    rest = turn % 360
    start = (f"the arrow is at {state.arrow}", f"{turn} {_way(query)} leaves {rest} {_way(query)}")
    sign, moved = ("+", state.arrow + rest) if query.degrees < 0 else ("-", state.arrow - rest)
    segments = list(zip(state.starts, state.angles, state.prizes, strict=True))
    at = moved % 360
    first, angle = next((s, a) for s, a, prize in segments if prize == answer)
    arrow = (
        f"seen from the wheel it goes to {state.arrow} {sign} {rest} = {moved}",
        f"that is {at}",
        f"{answer} is drawn from {first} to {first + angle}",
    )
    opposite, other = ("-", -rest) if query.degrees < 0 else ("+", rest)
    wheel = [
        f"{prize} begins at {s} {opposite} {rest} = {s + other} and spans {a} so from "
        f"{(s + other) % 360} to {(s + other) % 360 + a}"
        for s, a, prize in segments
    ]
    return {
        "arrow": (*start, *arrow, f"answer {answer}"),
        "wheel": (*start, *wheel, f"{state.arrow} is in {answer}", f"answer {answer}"),
    }


def check(state: Wheel, query: Spin, steps: tuple[str, ...]) -> str | None:
    """See `suite.Module.check`."""
    for i, step in enumerate(steps):
        if not _holds(step, state, query):
            return f"{step!r} is wrong or cannot be read"
        if step.startswith("answer ") and not any(
            " is drawn from " in s or " is in " in s for s in steps[:i]
        ):
            return f"{step!r}: the arrow's segment has not been found"
    return None if steps and steps[-1].startswith("answer ") else "there is no answer"


def _holds(step: str, state: Wheel, query: Spin) -> bool:
    rest, clockwise = abs(query.degrees) % 360, query.degrees < 0
    if match := re.fullmatch(rf"the arrow is at ({NUMBER})", step):
        return Fraction(match[1]) == state.arrow
    if match := re.fullmatch(rf"({NUMBER}) (\w+) leaves ({NUMBER}) (\w+)", step):
        way = "clockwise" if clockwise else "counterclockwise"
        return (match[2], match[4]) == (way, way) and (Fraction(match[1]), Fraction(match[3])) == (
            abs(query.degrees),
            rest,
        )
    if match := re.fullmatch(
        rf"seen from the wheel it goes to ({NUMBER}) ([+-]) ({NUMBER}) = ({NUMBER})", step
    ):
        start, turn, end = (Fraction(match[i]) for i in (1, 3, 4))
        right = (state.arrow, rest, "+" if clockwise else "-")
        return (start, turn, match[2]) == right and end == (
            start + turn if clockwise else start - turn
        )
    if match := re.fullmatch(rf"that is ({NUMBER})", step):
        at = Fraction(match[1])
        return 0 <= at < 360 and (at + query.degrees - state.arrow) % 360 == 0
    places = {
        prize: (s, a) for s, a, prize in zip(state.starts, state.angles, state.prizes, strict=True)
    }
    if match := re.fullmatch(rf"(\w[\w ]*) is drawn from ({NUMBER}) to ({NUMBER})", step):
        first, last = Fraction(match[2]), Fraction(match[3])
        return places.get(match[1]) == (first, last - first)
    turning = rf"({NUMBER}) ([+-]) ({NUMBER}) = ({NUMBER})"
    span = rf"{turning} and spans ({NUMBER}) so from ({NUMBER}) to ({NUMBER})"
    if match := re.fullmatch(rf"(\w[\w ]*) begins at {span}", step):
        before, turn, moved, angle, first, last = (Fraction(match[i]) for i in (2, 4, 5, 6, 7, 8))
        sums = (
            moved == (before - turn if match[3] == "-" else before + turn) and last == first + angle
        )
        turned = turn == rest and (match[3] == "-") == clockwise
        return (
            sums
            and turned
            and (moved - first) % 360 == 0 <= first < 360
            and places.get(match[1]) == (before, angle)
        )
    if match := re.fullmatch(rf"(?:({NUMBER}) is in|answer) (\w[\w ]*)", step):
        start, angle = places.get(match[2], (state.arrow - query.degrees, 0))
        inside = 0 < (state.arrow - query.degrees - start) % 360 < angle
        return inside and (match[1] is None or Fraction(match[1]) == state.arrow)
    return False


def describe(state: Wheel) -> str:
    """`wheel arrow 45: 20+60 Car, 80+60 Boat …`: where each segment begins, what it spans, its
    prize.
    """
    segments = zip(state.starts, state.angles, state.prizes, strict=True)
    return f"wheel arrow {state.arrow}: " + ", ".join(
        f"{s}+{a} {prize}" for s, a, prize in segments
    )


def parse(text: str) -> Wheel:
    """The inverse of `describe`. Raises ValueError."""
    degrees = r"(?:0|[1-9]\d*)(?:/[1-9]\d*)?"
    match = re.fullmatch(rf"wheel arrow ({degrees}): (.+)", text)
    segments = (
        [
            re.fullmatch(rf"({degrees})\+({degrees}) ([A-Z][a-z]+(?: [A-Z][a-z]+)*)", s)
            for s in match[2].split(", ")
        ]
        if match
        else []
    )
    if not match or None in segments:
        raise ValueError(f"{text!r} is no wheel")
    starts, angles, prizes = zip(*(s.groups() for s in segments if s), strict=True)
    state = Wheel(
        tuple(map(Fraction, starts)), tuple(map(Fraction, angles)), prizes, Fraction(match[1])
    )
    ends = [s + a for s, a in zip(state.starts, state.angles, strict=True)]
    whole = sum(state.angles) == 360 and all(
        e % 360 == s % 360 for e, s in zip(ends, (*state.starts[1:], state.starts[0]), strict=True)
    )
    if not whole or len(set(prizes)) != len(prizes) or describe(state) != text:
        raise ValueError(f"the segments of {text!r} do not make one wheel")
    return state


def facts(state: Wheel) -> Facts:
    """Where the arrow is and the first segment begins, and each segment's angle and prize,
    counterclockwise.
    """
    slots = {"arrow": str(state.arrow), "start": str(state.starts[0])}
    for i, (angle, prize) in enumerate(zip(state.angles, state.prizes, strict=True), 1):
        slots |= {f"angle{i}": str(angle), f"prize{i}": prize}
    return slots


def change(state: Wheel, rng: random.Random) -> Wheel:
    """The arrow elsewhere, or another prize in one segment."""
    if rng.random() < 0.5:
        return replace(state, arrow=(state.arrow + 45 * rng.randint(1, 7)) % 360)
    prizes = list(state.prizes)
    prizes[rng.randrange(len(prizes))] = rng.choice([p for p in PRIZES if p not in prizes])
    return replace(state, prizes=tuple(prizes))


def distractors(state: Wheel, query: Spin) -> list[str]:
    """The wheel's other prizes, all of them: were those next to the right one preferred, their
    middle would be told.
    """
    right = solve(state, query).answer
    return [prize for prize in state.prizes if prize != right]


@cache
def _word(text: str, height: int) -> Image.Image:
    """The mask of a word; setting type takes longer than all the rest of the picture."""
    image = Image.new("RGB", (height * len(text), 2 * height))
    write(ImageDraw.Draw(image), (image.width / 2, image.height / 2), text, height, (255, 255, 255))
    return image.convert("L")


def render(state: Wheel, size: int, style: int = 0) -> Image.Image:
    """The wheel with its prizes written upright, and an arrow outside it. Colours carry no fact."""
    image, pen = paper(size, style)
    paints = random.Random(style).sample(PAINTS, len(PAINTS))
    middle, radius = size / 2, size * 0.42

    def at(degrees: float, share: float) -> tuple[float, float]:
        turn = pi * degrees / 180
        return middle + radius * share * cos(turn), middle - radius * share * sin(turn)

    box = (middle - radius, middle - radius, middle + radius, middle + radius)
    height = size * {4: 0.105, 6: 0.085, 8: 0.07}.get(len(state.prizes), 0.06)
    for i, (start, angle) in enumerate(zip(state.starts, state.angles, strict=True)):
        pen.pieslice(
            box,
            float(-start - angle),
            float(-start),
            paints[i % len(paints)],
            INK,
            max(1, size // 250),
        )
    spot = (
        0.6 if len(state.prizes) < 6 else 0.72
    )  # the more there are, the further out, where there is room
    for start, angle, prize in zip(state.starts, state.angles, state.prizes, strict=True):
        word, (x, y) = _word(prize, round(height)), at(float(start) + float(angle) / 2, spot)
        image.paste(INK, (round(x - word.width / 2), round(y - word.height / 2)), word)
    pen.ellipse((middle - 3, middle - 3, middle + 3, middle + 3), "white", INK)
    degrees = float(state.arrow)
    pen.line((at(degrees, 1.18), at(degrees, 1.12)), ARROW, max(3, size // 36))
    pen.polygon([at(degrees, 1.0), at(degrees + 5, 1.13), at(degrees - 5, 1.13)], ARROW)
    return image
