"""Every fact of the first two types is read again from the pixels of its picture, by code that
knows colours and nothing else.
"""

import random
from math import atan2, degrees

import numpy as np
import pytest

from franken.tasks.puzzles import clock, rotting_kiwi
from franken.tasks.puzzles.canvas import INK
from franken.tasks.puzzles.suite import puzzle

RED = (170, 30, 30)  # the minute hand
SIZES = [84, 126, 252]


def pixels_of(kind: str, state, size: int, style: int) -> np.ndarray:
    return np.asarray(puzzle(kind, size=size).render(state, style=style)).astype(int)


def is_colour(pixels: np.ndarray, colour) -> np.ndarray:
    return (pixels == np.array(colour)).all(axis=2)


def angle(mask: np.ndarray) -> float:
    """Degrees clockwise from twelve at which the pixels of a hand lie, seen from the middle of the
    picture.
    """
    rows, columns = np.nonzero(mask)
    middle = mask.shape[0] / 2
    return degrees(atan2((columns - middle).mean(), (middle - rows).mean())) % 360


def apart(one: float, other: float) -> float:
    return abs((one - other + 180) % 360 - 180)


def hands(pixels: np.ndarray) -> tuple[float, float]:
    """The angles of the hour hand and the minute hand: ink near the middle, and red anywhere."""
    size = pixels.shape[0]
    away = np.hypot(*(np.indices((size, size)) - size / 2))
    reach = 0.47 * size * np.array([0.1, 0.6])  # beyond the hub, short of the numbers
    return angle(is_colour(pixels, INK) & (away > reach[0]) & (away < reach[1])), angle(
        is_colour(pixels, RED)
    )


@pytest.mark.parametrize("size", SIZES)
def test_both_hands_of_the_clock_are_read_from_pixels(size):
    for minutes in range(0, 720, 7):
        state = clock.Clock(minutes // 60 or 12, minutes % 60)
        short, long = hands(pixels_of("clock", state, size, minutes))
        assert apart(long, state.minute * 6) < 3  # nearer to this minute than to the next one
        assert (
            apart(short, minutes / 2) < 6
        )  # hours are 30 apart: far from the next one at this minute


@pytest.mark.parametrize("size", SIZES)
def test_times_of_every_level_are_read_from_pixels(size):
    for level in (1, 2, 3):
        for seed in range(40):
            state = puzzle("clock", level=level).sample(random.Random(seed))
            short, long = hands(pixels_of("clock", state, size, seed))
            minute = round(long / 6) % 60
            hour = round((short - minute / 2) / 30) % 12
            assert clock.Clock(hour or 12, minute) == state


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("level", [1, 2, 3])
def test_kiwis_are_read_from_pixels(level, size):
    seen = {colours[2]: cell for cell, colours in rotting_kiwi.SLICES.items()} | {
        (255, 255, 255): rotting_kiwi.EMPTY
    }
    for seed in range(40):
        state = puzzle("rotting_kiwi", level=level).sample(random.Random(seed))
        pixels = pixels_of("rotting_kiwi", state, size, seed)
        lines = np.flatnonzero(is_colour(pixels, INK)[:, size // 16 : -size // 16].all(axis=1))
        centres = (
            lines[0::2] + lines[1::2]
        ) // 2  # each row of cells has a line above it and one below it
        assert (
            tuple(tuple(seen[tuple(pixels[r, c])] for c in centres) for r in centres) == state.grid
        )


def test_a_reader_that_sees_another_time_fails():
    seen = hands(pixels_of("clock", clock.Clock(3, 0), 84, 0))
    assert apart(seen[1], 6) > 3
    assert apart(seen[0], 120) > 6
