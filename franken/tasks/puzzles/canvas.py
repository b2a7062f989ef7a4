"""Drawing that the renderers share: paper, a grid that fills the picture, words. No bitmap is
read.
"""

import random
from collections.abc import Iterator
from functools import cache

from PIL import Image, ImageDraw, ImageFont

INK = (24, 24, 28)
Box = tuple[int, int, int, int]
Colour = tuple[int, int, int]


def paper(size: int, style: int) -> tuple[Image.Image, ImageDraw.ImageDraw]:
    """An empty square picture and its pen. The shade of the paper carries no fact and follows from
    `style`.
    """
    shade = random.Random(style)
    image = Image.new("RGB", (size, size), tuple(shade.randrange(236, 250) for _ in range(3)))
    return image, ImageDraw.Draw(image)


def cells(rows: int, columns: int, area: Box) -> Iterator[tuple[int, int, Box]]:
    """(row, column, box) of a grid of square cells centred in `area`; corners included, as PIL
    draws them.
    """
    left, top, right, bottom = area
    side = min((right - left) / columns, (bottom - top) / rows)
    x0, y0 = left + (right - left - side * columns) / 2, top + (bottom - top - side * rows) / 2
    for r in range(rows):
        for c in range(columns):
            x, y = x0 + c * side, y0 + r * side
            yield r, c, (round(x), round(y), round(x + side) - 1, round(y + side) - 1)


def centre(box: Box) -> tuple[float, float]:
    """The middle of a box."""
    return (box[0] + box[2]) / 2, (box[1] + box[3]) / 2


def shrink(box: Box, share: float) -> Box:
    """The box without `share` of its width on every side."""
    by = round((box[2] - box[0]) * share)
    return box[0] + by, box[1] + by, box[2] - by, box[3] - by


def write(
    pen: ImageDraw.ImageDraw,
    at: tuple[float, float],
    text: str,
    height: float,
    fill: Colour = INK,
    anchor: str = "mm",
) -> None:
    """Text of a height in pixels, centred at a point unless `anchor` says otherwise."""
    pen.text(at, text, fill=fill, font=_font(max(6, round(height))), anchor=anchor)


@cache
def _font(height: int) -> ImageFont.FreeTypeFont | ImageFont.ImageFont:
    return ImageFont.load_default(height)
