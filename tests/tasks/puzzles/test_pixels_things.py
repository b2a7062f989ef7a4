"""Pictures of things, read back from their pixels: tiles, a warehouse, disks, jugs, calendar pages
and chains.

Text is read by comparing crops: what a number, month or weekday looks like is learned from some
pictures and must be found again in others. That it can be read by a person was seen on contact
sheets at 252 pixels and at the smallest size.
"""

import random

import numpy as np
from scipy import ndimage

from franken.tasks.puzzles import (
    calendar,
    chain_link,
    move_box,
    move_box_drawing,
    number_slide,
    tower_of_hanoi,
    water_jugs,
)
from franken.tasks.puzzles.canvas import INK

LEVELS = (1, 2, 3)


def pixels(module, state, size=252, style=0):
    return np.asarray(module.render(state, size, style)).astype(int)


def drawn(module, n=20):
    """Random states, and those that one change makes of them."""
    for seed in range(n):
        rng = random.Random(seed)
        state = module.sample(rng, rng.choice(LEVELS))
        yield from (state, module.change(state, rng))


def areas(mask, joined=None) -> tuple[np.ndarray, int]:
    """The areas of a mask, numbered from 1, and how many there are."""
    return ndimage.label(mask, joined)  # pyright: ignore[reportReturnType]


def where(picture, colour):
    return (picture == colour).all(axis=-1)


def test_tiles_show_their_numbers_and_the_open_position():
    known: dict[tuple[int, int], bytes] = {}  # (cells a side, number) → how it looks
    seen = 0
    for state in drawn(number_slide, 80):
        picture, side = pixels(number_slide, state), len(state.grid)
        cell = 240 // side
        read = []
        for r in range(side):
            for c in range(side):
                crop = picture[6 + r * cell : 6 + (r + 1) * cell, 6 + c * cell : 6 + (c + 1) * cell]
                number = state.grid[r][c]
                if not where(crop, number_slide.TILE).any():
                    read.append(0)
                    continue
                look = known.setdefault((side, number), crop.tobytes())
                alike = [
                    n for (s, n), other in known.items() if s == side and other == crop.tobytes()
                ]
                seen += look == crop.tobytes()
                read += alike
        assert read == [n for row in state.grid for n in row]
    assert seen > 500


def test_cells_of_a_warehouse_are_told_by_their_colours():
    marks = {
        "#": move_box_drawing.BRICKS,
        "P": move_box_drawing.SHIRT,
        "B": move_box_drawing.WOOD,
        "F": move_box_drawing.FLAG,
    }
    for size in (move_box.SMALLEST, 252):
        for style, state in enumerate(drawn(move_box)):
            picture, side = pixels(move_box, state, size, style), len(state.walls)
            rows = []
            for r in range(side):
                row = ""
                for c in range(side):
                    y, x = (
                        slice(round(i * size / side), round((i + 1) * size / side)) for i in (r, c)
                    )
                    found = [
                        letter
                        for letter, colour in marks.items()
                        if where(picture[y, x], colour).any()
                    ]
                    assert len(found) <= 1
                    row += found[0] if found else "."
                rows.append(row)
            assert move_box.describe(state) == "warehouse " + "/".join(rows)


def test_disks_are_read_by_colour_and_are_as_wide_as_their_rank():
    for size in (tower_of_hanoi.SMALLEST, 252):
        for state in drawn(tower_of_hanoi):
            picture, disks = pixels(tower_of_hanoi, state, size), sum(map(len, state.start))
            for half, rods in enumerate((state.start, state.end)):
                part = picture[half * size // 2 : (half + 1) * size // 2]
                widths, found = [], [[] for _ in rods]
                for disk in range(1, disks + 1):
                    ys, xs = np.nonzero(where(part, tower_of_hanoi.COLOURS[disk - 1]))
                    found[int(xs.mean() * 3 / size)].append(
                        (-ys.mean(), disk)
                    )  # heights from the bottom up
                    widths.append(np.ptp(xs))
                assert tuple(tuple(disk for _, disk in sorted(rod)) for rod in found) == rods
                assert all(a < b for a, b in zip(widths, widths[1:], strict=False))


def test_capacities_and_water_are_read_off_the_scale():
    for size in (water_jugs.SMALLEST, 252):
        for state in drawn(water_jugs):
            if size < 252 and max(state.capacities) > 6:
                continue
            picture, n = pixels(water_jugs, state, size), len(state.water)
            left, litre = round(size * 0.13), size * 0.81 / (-(-max(state.capacities) // 6) * 6)
            ground = round(size * 0.88)
            read = []
            for jug in range(n):
                part = picture[
                    :ground,
                    round(left + jug * (size - left) / n) : round(
                        left + (jug + 1) * (size - left) / n
                    ),
                ]
                wall, water = (
                    np.nonzero(where(part, colour).any(axis=1))[0]
                    for colour in (INK, water_jugs.WATER)
                )
                full = round((ground - water.min()) / litre) if len(water) > 1 else 0
                read.append((full, round((ground - wall.min()) / litre)))
            assert read == list(zip(state.water, state.capacities, strict=True))


def test_calendar_pages_show_month_weekdays_and_days():
    pages = [
        calendar.Page(month, first, leap, starts)
        for month in range(1, 13)
        for first in range(7)
        for leap in (False, True)
        for starts in (0, 5, 6)
    ]
    months, weeks = {}, {}
    for page in random.Random(0).sample(pages, 150):
        picture = pixels(calendar, page)
        band, high, wide = 252 * 0.13, (252 - 252 * 0.13 - 2) / 7, 248 / 7
        months.setdefault(picture[: int(band)].tobytes(), set()).add(page.month)
        weeks.setdefault(picture[int(band) + 1 : int(band + high)].tobytes(), set()).add(
            page.starts
        )
        inked = [
            where(
                picture[
                    round(band + (i // 7 + 1) * high) : round(band + (i // 7 + 2) * high),
                    round(2 + i % 7 * wide) : round(2 + (i % 7 + 1) * wide),
                ],
                INK,
            ).any()
            for i in range(42)
        ]
        first = inked.index(True)
        assert inked == [
            first <= i < first + calendar.month_length(page.month, page.leap) for i in range(42)
        ]
        assert (first + page.starts) % 7 == page.first
    assert sorted(map(sorted, months.values())) == [[m] for m in range(1, 13)]
    assert sorted(map(sorted, weeks.values())) == [[0], [5], [6]]


def test_pieces_are_counted_by_their_holes():
    """k linked rings enclose 2 k - 1 areas, an open piece none."""
    for size in (chain_link.SMALLEST, 252):
        for style, state in enumerate(drawn(chain_link)):
            if size < 252 and (len(state.segments) > 5 or max(state.segments) > 3):
                continue
            picture = pixels(chain_link, state, size, style)
            ring = where(picture, chain_link.GOLD[0]) | where(picture, chain_link.GOLD[1])
            shapes, n = areas(ring, np.ones((3, 3)))
            found = []
            for i, box in enumerate(ndimage.find_objects(shapes), 1):
                free = np.pad(shapes[box] != i, 1, constant_values=True)
                holes = areas(free)[1] - 1  # the outside is one area
                found.append((box[0].start, box[1].start, (holes + 1) // 2))
            lengths = [length for *_, length in sorted(found)]  # rows begin at one height
            assert tuple(lengths) == (*state.segments, *[0] * state.open_pieces)
            assert n == len(state.segments) + state.open_pieces
