"""Every fact of a picture is in its pixels: the facts are read again from renderings, without the
renderer's help.

What is written in words cannot be read so: the wheel's prizes, the blocks' numbers and the regions'
letters. Contact sheets of all levels at 252 pixels, and of level 1 at 84, were looked at for them.
"""

import random

import numpy as np
import pytest
from scipy import ndimage

from franken.tasks.puzzles import map as map_puzzle
from franken.tasks.puzzles import rubiks_cube, think_dot, wheel_of_fortune, wood_slide
from franken.tasks.puzzles.suite import LEVELS, puzzle

N = 25


def pixels(module, state, size, style):
    return np.asarray(module.render(state, size, style)).astype(int)


def pieces(mask):
    """Each pixel's connected piece of the mask, from 1; 0 outside."""
    labels = np.zeros(mask.shape, int)
    ndimage.label(mask, output=labels)
    return labels


def nearest(colour, named):
    return min(
        named,
        key=lambda name: sum(abs(int(a) - b) for a, b in zip(colour, named[name], strict=True)),
    )


def drawn(name, n=N):
    for level in LEVELS:
        task = puzzle(name, level=level)
        for seed in range(n):
            yield level, seed, task.sample(random.Random(seed))


@pytest.mark.parametrize("size", [84, 252])
def test_think_dot_faces_and_bars(size):
    colours = {"blue": (40, 120, 250), "yellow": (252, 206, 40)}
    places = {
        f"{row}{i}": (column, y)
        for row, y, columns in (
            ("t", 1.35, (1.5, 3.5, 5.5)),
            ("m", 3.3, (2.5, 4.5)),
            ("b", 5.25, (1.5, 3.5, 5.5)),
        )
        for i, column in enumerate(columns, 1)
    }
    for _, seed, state in drawn("think_dot"):
        image, unit = pixels(think_dot, state, size, seed), size / 7
        read, rolls = {}, {}
        for name, (x, y) in places.items():
            read[name] = nearest(image[round(y * unit), round(x * unit)], colours)
            top = round((y + 0.5) * unit)
            bar = np.all(
                image[top : top + round(unit), round((x - 0.7) * unit) : round((x + 0.7) * unit)]
                < 110,
                -1,
            )
            down, across = np.nonzero(bar)
            rolls[name] = "right" if np.corrcoef(down, across)[0, 1] > 0 else "left"
        assert read == think_dot.facts(state)
        for index, name in ((0, "t1"), (1, "t2"), (2, "t3"), (0, "m1"), (1, "m2")):
            rule = think_dot.WHEN_BLUE["tm".index(name[0])][index]
            assert (rolls[name] == rule) == (read[name] == "blue")


@pytest.mark.parametrize("size", [84, 252])
def test_wheel_arrow_and_boundaries(size):
    """The prizes are words: they were looked at, at 252 pixels and at 84 (level 1)."""
    for level, seed, state in drawn("wheel_of_fortune"):
        if size == 84 and level > 1:
            continue
        image = pixels(wheel_of_fortune, state, size, seed)
        down, across = np.nonzero(np.all(image == (121, 62, 30), -1))
        arrow = np.degrees(np.arctan2(size / 2 - down.mean(), across.mean() - size / 2)) % 360
        assert min(arrow % 45, 45 - arrow % 45) < 4
        assert round(arrow / 45) % 8 * 45 == state.arrow
        rim = lines_across(image, 0.95 * size * 0.42)  # the ends of long words are seen there, too
        for start in state.starts:
            assert min(abs((at - start + 180) % 360 - 180) for at in rim) < (4 if size == 84 else 2)
        if size == 252:
            assert len(lines_across(image, 0.16 * size * 0.42)) == len(state.prizes)


def lines_across(image, radius):
    """The angles in degrees at which dark lines cross a circle about the picture's middle."""
    turns, middle = np.radians(np.arange(0, 360, 0.25)), len(image) / 2
    x, y = middle + radius * np.cos(turns), middle - radius * np.sin(turns)
    dark = np.flatnonzero(image[np.round(y).astype(int), np.round(x).astype(int)].sum(-1) < 200)
    runs = np.split(dark, np.flatnonzero(np.diff(dark) > 8) + 1)
    if len(runs) > 1 and runs[0][0] + 1440 - runs[-1][-1] <= 8:
        runs = [*runs[1:-1], np.concatenate([runs[-1], runs[0] + 1440])]
    return [float(run.mean()) / 4 % 360 for run in runs]


@pytest.mark.parametrize("size", [84, 252])
def test_wood_slide_blocks_by_their_shades(size):
    """Shades tell the blocks apart; that the numbers on them are their names was looked at."""
    for level, seed, state in drawn("wood_slide", 10):
        if size == 84 and level > 1:
            continue
        image = pixels(wood_slide, state, size, seed)
        names = {(255, 255, 255): "0"}
        read = [
            read_blocks(half, names, state.start)
            for half in (image[:, : size // 2], image[:, size // 2 :])
        ]
        assert read == [state.start, state.end]
        assert len(set(names.values())) == len(names) == len(set("".join(state.start)))


def read_blocks(half, names, start):
    """A grid by the shade that fills most of each cell. A shade gets its name where it is first
    met.
    """
    frame = np.argwhere(np.all(half == (24, 24, 28), -1)[:, 5:-5].sum(-1) > 0.6 * half.shape[1])[
        :, 0
    ]
    top, bottom = frame.min() + 2, frame.max() - 2
    side = (bottom - top + 1) / len(start)
    left = (half.shape[1] - side * len(start[0])) / 2
    rows = []
    for r in range(len(start)):
        row = ""
        for c in range(len(start[0])):
            down, right = (
                slice(int(x + 2), int(x + side - 1)) for x in (top + r * side, left + c * side)
            )
            shades, counts = np.unique(half[down, right].reshape(-1, 3), axis=0, return_counts=True)
            shade = tuple(shades[counts.argmax()].tolist())
            row += names.setdefault(shade, start[r][c])
        rows.append(row)
    return tuple(rows)


@pytest.mark.parametrize("size", [84, 252])
def test_map_colours_and_borders(size):
    """Regions are what black lines leave apart. That each has its letter was looked at."""
    colours = {
        "Red": (240, 92, 88),
        "Green": (70, 170, 80),
        "Blue": (70, 150, 245),
        "Yellow": (252, 208, 50),
        "White": (255, 255, 255),
    }
    for level, seed, state in drawn("map", 12):
        if size == 84 and level > 1:
            continue
        image, side = pixels(map_puzzle, state, size, seed), (size - 7) / len(state.layout)
        labels = pieces(image.sum(-1) > 150)
        areas, at, read = np.bincount(labels.ravel()), {}, {}
        for r, row in enumerate(state.layout):
            for c, letter in enumerate(row):
                down, across = (
                    slice(int(3 + (x + 0.3) * side), int(3 + (x + 0.7) * side)) for x in (r, c)
                )
                part = labels[down, across]
                inside = [int(i) for i in np.unique(part) if i]
                at.setdefault(letter, set()).add(
                    max(inside, key=lambda i: areas[i])
                )  # not the hole of an A
                shades, counts = np.unique(
                    image[down, across].reshape(-1, 3), axis=0, return_counts=True
                )
                read[f"colour {letter}"] = nearest(shades[counts.argmax()], colours)
        assert all(
            len(found) == 1 for found in at.values()
        )  # one piece a letter, and each piece another
        assert len(set.union(*at.values())) == len(at)
        piece = {found.pop(): letter for letter, found in at.items()}
        facing = {}
        for one, other in ((labels[:-4], labels[4:]), (labels[:, :-4], labels[:, 4:])):
            across = (one != other) & np.isin(one, list(piece)) & np.isin(other, list(piece))
            for pair in zip(one[across].tolist(), other[across].tolist(), strict=True):
                slot = "-".join(sorted(piece[i] for i in pair))
                facing[slot] = facing.get(slot, 0) + 1
        read |= {
            slot: "adjacent" for slot, n in facing.items() if n > side / 2
        }  # about a corner there are fewer
        assert read == map_puzzle.facts(state)


@pytest.mark.parametrize("size", [84, 252])
def test_cube_squares(size):
    """The faces are found as the pieces of the net; their squares are read at the middles of their
    cells.
    """
    colours = {
        "red": (220, 30, 30),
        "green": (20, 150, 40),
        "blue": (30, 100, 240),
        "yellow": (250, 225, 40),
        "orange": (255, 140, 30),
        "grey": (165, 165, 165),
    }
    for _, seed, state in drawn("rubiks_cube", 12):
        image = pixels(rubiks_cube, state, size, seed)
        is_net = np.abs(image - image[0, 0]).sum(-1) > 30
        boxes = [
            box
            for box in ndimage.find_objects(pieces(is_net))
            if box[0].stop - box[0].start > size / 8
        ]
        assert len(boxes) == 6
        boxes.sort(key=lambda box: (round(4 * box[0].start / size), box[1].start))
        read = {}
        for name, (down, across) in zip(
            ("up", "left", "front", "right", "back", "down"), boxes, strict=True
        ):
            side = (down.stop - down.start) / 3
            for r in range(3):
                for c in range(3):
                    middle = image[
                        int(down.start + (r + 0.5) * side), int(across.start + (c + 0.5) * side)
                    ]
                    read[f"{name} r{r + 1}c{c + 1}"] = nearest(middle, colours)
        assert read == rubiks_cube.facts(state)
