"""Every fact of a picture is in its pixels: the facts are read again from renderings, without the renderer's help."""

import random

import numpy as np
import pytest

from franken.tasks.puzzles import think_dot
from franken.tasks.puzzles.suite import LEVELS, puzzle

N = 25


def pixels(module, state, size, style):
    return np.asarray(module.render(state, size, style)).astype(int)


def nearest(colour, named):
    return min(named, key=lambda name: sum(abs(int(a) - b) for a, b in zip(colour, named[name], strict=True)))


def drawn(name, n=N):
    for level in LEVELS:
        task = puzzle(name, level=level)
        for seed in range(n):
            yield level, seed, task.sample(random.Random(seed))


@pytest.mark.parametrize("size", [84, 252])
def test_think_dot_faces_and_bars(size):
    colours = {"blue": (40, 120, 250), "yellow": (252, 206, 40)}
    places = {f"{row}{i}": (column, y) for row, y, columns in (("t", 1.35, (1.5, 3.5, 5.5)), ("m", 3.3, (2.5, 4.5)),
              ("b", 5.25, (1.5, 3.5, 5.5))) for i, column in enumerate(columns, 1)}  # fmt: skip
    for _, seed, state in drawn("think_dot"):
        image, unit = pixels(think_dot, state, size, seed), size / 7
        read, rolls = {}, {}
        for name, (x, y) in places.items():
            read[name] = nearest(image[round(y * unit), round(x * unit)], colours)
            top = round((y + 0.5) * unit)
            bar = np.all(image[top : top + round(unit), round((x - 0.7) * unit) : round((x + 0.7) * unit)] < 110, -1)
            down, across = np.nonzero(bar)
            rolls[name] = "right" if np.corrcoef(down, across)[0, 1] > 0 else "left"
        assert read == think_dot.facts(state)
        for index, name in ((0, "t1"), (1, "t2"), (2, "t3"), (0, "m1"), (1, "m2")):
            rule = think_dot.WHEN_BLUE["tm".index(name[0])][index]
            assert (rolls[name] == rule) == (read[name] == "blue")
