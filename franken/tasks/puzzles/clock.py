"""Clock: an analog clock without a seconds hand, and an event some hours and minutes ahead or ago."""

from dataclasses import dataclass

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
