"""Clock: an analog clock without a seconds hand, and an event some hours and minutes ahead or
ago.
"""

import random
import re
from dataclasses import dataclass, replace
from math import cos, pi, sin

from PIL import Image

from franken.tasks.puzzle import Facts, StrategySteps
from franken.tasks.puzzles.canvas import INK, paper, write
from franken.tasks.puzzles.solved import Solved

SMALLEST = 84
STRATEGIES = ("minutes", "parts")
ANSWER_TYPE = "clock"  # H:MM alone could be a ratio


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
    hour, minute = divmod((_minutes(state) + query.minutes) % 720, 60)
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


def questions(state: Clock, query: Shift) -> tuple[str, ...]:
    """In words, two wordings."""
    hours, minutes = divmod(abs(query.minutes), 60)
    parts = [
        f"{n} {word}{'s' * (n != 1)}" for n, word in ((hours, "hour"), (minutes, "minute")) if n
    ]
    length = " ".join(parts) or "0 minutes"
    if query.minutes < 0:
        return (
            f"The clock shows the time now. An event began {length} ago. At what time did it "
            "begin?",
            f"What time was it {length} before the time on this clock?",
        )
    return (
        f"The clock shows the time now. An event begins in {length}. At what time does it begin?",
        f"What time will it be {length} after the time on this clock?",
    )


def steps(state: Clock, query: Shift) -> StrategySteps:
    """All in minutes since twelve; or the hours first, then the minutes."""
    start, end = f"the clock shows {show(state)}", solve(state, query).answer
    now, sign, shift = _minutes(state), "-" if query.minutes < 0 else "+", abs(query.minutes)
    later, hours, minutes = now + query.minutes, shift // 60, shift % 60
    between = solve(state, Shift(hours * 60 if sign == "+" else -hours * 60)).answer
    return {
        "minutes": (
            start,
            f"that is {now} minutes",
            f"{now} {sign} {shift} = {later}",
            f"{later} minutes is {end}",
            f"answer {end}",
        ),
        "parts": (
            start,
            f"{show(state)} {sign} {hours} hours is {between}",
            f"{between} {sign} {minutes} minutes is {end}",
            f"answer {end}",
        ),
    }


def check(state: Clock, query: Shift, steps: tuple[str, ...]) -> str | None:
    """See `suite.Module.check`."""
    for step in steps:
        if not _holds(step, state, query):
            return f"{step!r} is wrong or cannot be read"
    return None if steps and steps[-1].startswith("answer ") else "there is no answer"


def _holds(step: str, state: Clock, query: Shift) -> bool:
    time = r"(1[0-2]|[1-9]):([0-5][0-9])"
    if match := re.fullmatch(rf"(the clock shows|answer) {time}", step):
        right = show(state) if match[1] == "the clock shows" else solve(state, query).answer
        return step.endswith(f" {right}")
    if match := re.fullmatch(r"that is ([0-9]+) minutes", step):
        return int(match[1]) == _minutes(state)
    if match := re.fullmatch(r"([0-9]+) ([+-]) ([0-9]+) = (-?[0-9]+)", step):
        shift = int(match[3]) if match[2] == "+" else -int(match[3])
        return int(match[1]) + shift == int(match[4])
    if match := re.fullmatch(rf"(-?[0-9]+) minutes is {time}", step):
        return int(match[1]) % 720 == _minutes(Clock(int(match[2]), int(match[3])))
    if match := re.fullmatch(rf"{time} ([+-]) ([0-9]+) (hours|minutes) is {time}", step):
        before, after = Clock(int(match[1]), int(match[2])), Clock(int(match[6]), int(match[7]))
        shift = int(match[4]) * (60 if match[5] == "hours" else 1) * (1 if match[3] == "+" else -1)
        return (_minutes(before) + shift - _minutes(after)) % 720 == 0
    return False


def _minutes(time: Clock) -> int:
    return time.hour % 12 * 60 + time.minute


def describe(state: Clock) -> str:
    """`clock 2:43`."""
    return f"clock {show(state)}"


def parse(text: str) -> Clock:
    """The inverse of `describe`. Raises ValueError."""
    match = re.fullmatch(r"clock (1[0-2]|[1-9]):([0-5][0-9])", text)
    if not match:
        raise ValueError(f"{text!r} is no clock")
    return Clock(int(match[1]), int(match[2]))


def facts(state: Clock) -> Facts:
    """The hour and the minute."""
    return {"hour": str(state.hour), "minute": str(state.minute)}


def change(state: Clock, rng: random.Random) -> Clock:
    """Another hour, or another minute."""
    if rng.random() < 0.5:
        return replace(state, hour=rng.randint(1, 12))
    return replace(state, minute=rng.randrange(60))


def distractors(state: Clock, query: Shift) -> list[str]:
    """The usual slips: the other direction, hands swapped, an hour too many or few, the hours or
    minutes forgotten.
    """
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

    pen.ellipse(
        (middle - radius, middle - radius, middle + radius, middle + radius),
        "white",
        INK,
        max(1, size // 60),
    )
    for tick in range(60 if size >= 120 else 12):
        turn = tick / (60 if size >= 120 else 12)
        long = size < 120 or tick % 5 == 0
        pen.line((at(turn, 0.9 if long else 0.95), at(turn, 0.98)), INK, max(1, size // 120))
    if size >= 120:
        for hour in range(1, 13):
            write(pen, at(hour / 12, 0.78), str(hour), size * 0.075)
    pen.line(
        (middle, middle, *at((state.hour % 12 + state.minute / 60) / 12, 0.5)),
        INK,
        max(3, size // 28),
    )
    pen.line((middle, middle, *at(state.minute / 60, 0.86)), (170, 30, 30), max(1, size // 60))
    return image
