"""Wheel of fortune: a wheel of prizes turns and stops. Which prize stands at the arrow?

Angles are degrees counterclockwise from the right, exact fractions.
"""

from dataclasses import dataclass
from fractions import Fraction

from franken.tasks.puzzles.solved import Solved, the_one


@dataclass(frozen=True)
class Wheel:
    """Segment i begins at `starts[i]`, spans `angles[i]` and holds `prizes[i]`; the arrow stands at `arrow`."""

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
                f"the arrow then points at {_show(at)} degrees of the wheel as drawn, {_show(into)} into it{edge}"
            )
    return the_one(under, "the prize at the arrow")


def _show(degrees: Fraction) -> str:
    return f"{float(degrees):g}"
