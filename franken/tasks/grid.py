"""A 3×3 grid of coloured shapes or digits: the world in which the small puzzles live.

A cell is empty or holds one object with a colour and a kind (a shape or a digit). The image is
drawn with PIL, one 28-pixel square a cell, which for a patch size of 14 merged 2×2 is exactly one
visual token a cell. A faint tint of the background grows with row and column: with few rotary
frequencies a small model has no other way to tell neighbouring columns apart.
"""

import random
from functools import lru_cache
from typing import NamedTuple

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from franken.tasks.puzzle import Facts

SIDE = 3
COLORS = ("red", "green", "blue", "yellow")
SHAPES = ("circle", "square", "triangle")
DIGITS = tuple(str(d) for d in range(1, 10))
EMPTY = "empty"

CELL_PIXELS = 28
NOISE_SD = 8.0  # grey levels
TINT = 35  # grey levels between the first and the last row or column
RGB = {
    "red": (220, 40, 40),
    "green": (40, 170, 60),
    "blue": (50, 80, 220),
    "yellow": (230, 200, 40),
}
PAPER = 245
SHADE_JITTER = 20


class Thing(NamedTuple):
    """What a cell holds."""

    color: str
    kind: str


Grid = tuple[Thing | None, ...]  # SIDE * SIDE cells, row by row


def cell_name(index: int) -> str:
    """`r1c1` … `r3c3`: rows and columns are counted from one, as people do."""
    return f"r{index // SIDE + 1}c{index % SIDE + 1}"


CELLS = tuple(cell_name(i) for i in range(SIDE * SIDE))
ORDERS = {
    "rows": tuple(range(SIDE * SIDE)),
    "cols": tuple(row * SIDE + col for col in range(SIDE) for row in range(SIDE)),
}


def filled(grid: Grid) -> list[int]:
    """Indices of the cells that hold something."""
    return [i for i, thing in enumerate(grid) if thing is not None]


def words(thing: Thing | None) -> str:
    """`red circle`, `blue 7` or `empty`."""
    return EMPTY if thing is None else f"{thing.color} {thing.kind}"


def describe(grid: Grid, order: str = "rows") -> str:
    """All cells in reading order: `r1c1 red circle r1c2 empty …`."""
    return " ".join(f"{CELLS[i]} {words(grid[i])}" for i in ORDERS[order])


def parse(text: str) -> Grid:
    """The inverse of `describe`, for cells in any order. Raises ValueError unless every cell is
    named once.
    """
    things = dict.fromkeys(CELLS)
    seen: set[str] = set()
    tokens = text.split()
    at = 0
    while at < len(tokens):
        name, at = tokens[at], at + 1
        if name not in things or name in seen:
            raise ValueError(f"{name!r} is not a cell, or is named twice")
        seen.add(name)
        if tokens[at : at + 1] == [EMPTY]:
            at += 1
            continue
        color, kind = (tokens[at : at + 2] + ["", ""])[:2]
        if color not in COLORS or kind not in SHAPES + DIGITS:
            raise ValueError(f"{name} holds {color!r} {kind!r}: not a colour and a shape or digit")
        things[name] = Thing(color, kind)
        at += 2
    if len(seen) != len(CELLS):
        raise ValueError(f"{len(CELLS) - len(seen)} cells are not described")
    return tuple(things[name] for name in CELLS)


def facts(grid: Grid) -> Facts:
    """Slot → value: one fact a cell."""
    return {CELLS[i]: words(thing) for i, thing in enumerate(grid)}


def random_grid(rng: random.Random, kinds: tuple[str, ...], empty_share: float) -> Grid:
    """Independent cells; never entirely empty."""
    while True:
        grid = tuple(
            None if rng.random() < empty_share else Thing(rng.choice(COLORS), rng.choice(kinds))
            for _ in CELLS
        )
        if any(grid):
            return grid


def clustered_grid(rng: random.Random) -> Grid:
    """Shapes in which one colour is frequent, so that counts spread over 0..9 and not around
    two.
    """
    grid = random_grid(rng, SHAPES, 0.25)
    favourite, second = rng.sample(COLORS, 2)
    recoloured = []
    for thing in grid:
        draw = rng.random()
        color = favourite if draw < 0.3 else second if draw < 0.5 else thing and thing.color
        recoloured.append(thing and Thing(str(color), thing.kind))
    return tuple(recoloured)


def render(grid: Grid, style: int = 0) -> Image.Image:
    """Draw the grid, 84×84 RGB. `style` fixes size, place and shade per cell, and the noise: no
    fact depends on it.
    """
    side = SIDE * CELL_PIXELS
    canvas = Image.new("RGB", (side, side), (PAPER,) * 3)
    pen = ImageDraw.Draw(canvas)
    for i, thing in enumerate(grid):
        if thing is not None:
            _draw(pen, thing, i, random.Random(style * 16 + i))
    pixels = np.asarray(canvas, dtype=np.float32)
    pixels = pixels + (pixels.min(-1, keepdims=True) > 225) * _tint()
    noise = np.random.default_rng(style).standard_normal(pixels.shape, dtype=np.float32)
    return Image.fromarray(np.clip(pixels + NOISE_SD * noise, 0, 255).astype(np.uint8))


def _draw(pen: ImageDraw.ImageDraw, thing: Thing, index: int, rng: random.Random) -> None:
    size = rng.uniform(15, 20)
    room = CELL_PIXELS - size - 2
    left = (index % SIDE) * CELL_PIXELS + rng.uniform(2, room)
    top = (index // SIDE) * CELL_PIXELS + rng.uniform(2, room)
    fill = tuple(
        max(0, min(255, v + rng.randint(-SHADE_JITTER, SHADE_JITTER))) for v in RGB[thing.color]
    )
    box = (left, top, left + size, top + size)
    if thing.kind == "circle":
        pen.ellipse(box, fill=fill)
    elif thing.kind == "square":
        pen.rectangle(box, fill=fill)
    elif thing.kind == "triangle":
        pen.polygon(
            [(left + size / 2, top), (left, top + size), (left + size, top + size)], fill=fill
        )
    else:
        centre = (left + size / 2, top + size / 2)
        pen.text(centre, thing.kind, fill=fill, font=_font(int(rng.uniform(19, 24))), anchor="mm")


@lru_cache(maxsize=16)
def _font(size: int) -> ImageFont.FreeTypeFont | ImageFont.ImageFont:
    return ImageFont.load_default(
        size=size
    )  # the face that Pillow carries: the same on every machine


@lru_cache(maxsize=1)
def _tint() -> np.ndarray:
    ramp = np.linspace(-1, 1, SIDE).repeat(CELL_PIXELS)
    rows, cols = np.meshgrid(ramp, ramp, indexing="ij")
    zeros = np.zeros_like(rows)
    return (TINT * np.stack([rows - 1, cols - 1, zeros], -1)).astype(np.float32)
