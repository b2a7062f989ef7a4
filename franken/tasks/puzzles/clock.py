"""Clock: an analog clock without a seconds hand, and an event some hours and minutes ahead or ago."""

import random
import re
from dataclasses import dataclass, replace
from math import cos, pi, sin

from PIL import Image

from franken.tasks.puzzles.canvas import INK, paper, write
from franken.tasks.puzzles.solved import Solved


@dataclass(frozen=True)
class Clock:
    """The time shown: hour 1-12 (0 is read as 12), minute 0-59."""

    hour: int
    minute: int


@dataclass(frozen=True)
class Shift:
    """The event is this many minutes ahead; negative: it was that long ago."""

    minutes: int


def solve(state: Clock, query: Shift) -> Solved:
    """The time of the event on a twelve-hour clock, as H:MM."""
    now = state.hour % 12 * 60 + state.minute
    hour, minute = divmod((now + query.minutes) % 720, 60)
    answer = show(Clock(hour, minute))
    return Solved(answer, f"{show(state)} {query.minutes:+d} minutes is {answer}")


def show(time: Clock) -> str:
    """H:MM, with 12 for 0."""
    return f"{time.hour % 12 or 12}:{time.minute:02d}"


def sample(rng: random.Random, level: int) -> Clock:
    """Whole hours and quarters, fives of minutes, or any minute, by level."""
    step = {1: 15, 2: 5, 3: 1}[level]
    return Clock(rng.randint(1, 12), rng.randrange(0, 60, step))


def ask(state: Clock, rng: random.Random) -> Shift:
    """An event five minutes to four hours away."""
    return Shift(rng.choice((-1, 1)) * rng.randint(5, 240))


def question(state: Clock, query: Shift) -> str:
    """In words."""
    hours, minutes = divmod(abs(query.minutes), 60)
    parts = [f"{n} {word}{'s' * (n != 1)}" for n, word in ((hours, "hour"), (minutes, "minute")) if n]
    length = " ".join(parts) or "0 minutes"
    if query.minutes < 0:
        return f"The clock shows the time now. An event began {length} ago. At what time did it begin?"
    return f"The clock shows the time now. An event begins in {length}. At what time does it begin?"


def describe(state: Clock) -> str:
    """`clock 2:43`."""
    return f"clock {show(state)}"


def parse(text: str) -> Clock:
    """The inverse of `describe`. Raises ValueError."""
    found = re.fullmatch(r"clock (1[0-2]|[1-9]):([0-5]\d)", text)
    if not found:
        raise ValueError(f"{text!r} is no clock")
    return Clock(int(found[1]), int(found[2]))


def facts(state: Clock) -> dict[str, str]:
    """The hour and the minute."""
    return {"hour": str(state.hour), "minute": str(state.minute)}


def change(state: Clock, rng: random.Random) -> Clock:
    """Another hour, or another minute."""
    if rng.random() < 0.5:
        return replace(state, hour=rng.randint(1, 12))
    return replace(state, minute=rng.randrange(60))


def distractors(state: Clock, query: Shift) -> list[str]:
    """The usual slips: the other direction, hands swapped, an hour too many or few, the hours or minutes forgotten."""
    hours = abs(query.minutes) // 60 * 60 * (1 if query.minutes > 0 else -1)
    slips = [-query.minutes, query.minutes + 60, query.minutes - 60, hours, query.minutes - hours]
    swapped = Clock(round(state.minute / 5) or 12, state.hour * 5 % 60)
    return [solve(state, Shift(slip)).answer for slip in slips] + [solve(swapped, query).answer]


def render(state: Clock, size: int, style: int = 0) -> Image.Image:
    """A dial with its ticks; numbers from 120 pixels on. The short hand moves with the minutes."""
    image, pen = paper(size, style)
    middle, radius = size / 2, size * 0.47

    def at(turn: float, share: float) -> tuple[float, float]:
        angle = 2 * pi * turn
        return middle + radius * share * sin(angle), middle - radius * share * cos(angle)

    pen.ellipse((middle - radius, middle - radius, middle + radius, middle + radius), "white", INK, max(1, size // 60))
    for tick in range(60 if size >= 120 else 12):
        turn = tick / (60 if size >= 120 else 12)
        long = size < 120 or tick % 5 == 0
        pen.line((at(turn, 0.9 if long else 0.95), at(turn, 0.98)), INK, max(1, size // 120))
    if size >= 120:
        for hour in range(1, 13):
            write(pen, at(hour / 12, 0.78), str(hour), size * 0.075)
    pen.line((middle, middle, *at((state.hour % 12 + state.minute / 60) / 12, 0.5)), INK, max(3, size // 28))
    pen.line((middle, middle, *at(state.minute / 60, 0.86)), (170, 30, 30), max(1, size // 60))
    return image
