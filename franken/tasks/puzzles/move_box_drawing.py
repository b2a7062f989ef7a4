"""What stands in the cells of a warehouse: bricks, a person, a box and a flag, drawn with lines and
fills.
"""

from PIL import ImageDraw

from franken.tasks.puzzles.canvas import INK, Box, shrink

BRICKS, MORTAR = (178, 66, 44), (226, 214, 204)
SHIRT, SKIN = (30, 110, 190), (236, 188, 150)
WOOD, TAPE = (206, 150, 72), (120, 78, 30)
FLAG = (20, 140, 60)


def draw_brick(pen: ImageDraw.ImageDraw, box: Box, bond: int) -> None:
    """Three courses of bricks, every other one shifted."""
    left, top, right, bottom = box
    pen.rectangle(box, BRICKS)
    width, height = right - left + 1, bottom - top + 1
    for course in range(3):
        y = top + round(course * height / 3)
        pen.line((left, y, right, y), MORTAR)
        x = left + round(width * (0.25 if (course + bond) % 2 else 0.75))
        pen.line((x, y, x, top + round((course + 1) * height / 3) - 1), MORTAR)


def draw_player(pen: ImageDraw.ImageDraw, box: Box) -> None:
    """Head, shirt and two legs."""
    left, top, right, bottom = shrink(box, 0.08)
    width, height, middle = right - left, bottom - top, (left + right) / 2

    def at(x: float, y: float) -> tuple[float, float]:
        return middle + x * width, top + y * height

    for leg in (-0.14, 0.14):
        pen.line((*at(leg, 0.6), *at(leg, 1)), INK, max(2, width // 6))
    pen.rectangle((*at(-0.3, 0.36), *at(0.3, 0.72)), SHIRT)
    pen.ellipse((*at(-0.2, 0), *at(0.2, 0.36)), SKIN, INK)


def draw_box(pen: ImageDraw.ImageDraw, box: Box) -> None:
    """A wooden box with a cross of battens."""
    box = shrink(box, 0.1)
    left, top, right, bottom = box
    width = max(1, (right - left) // 12)
    pen.rectangle(box, WOOD, TAPE, width)
    pen.line((left, top, right, bottom), TAPE, width)
    pen.line((left, bottom, right, top), TAPE, width)


def draw_flag(pen: ImageDraw.ImageDraw, box: Box) -> None:
    """A pole with a flag of green and white squares."""
    left, top, right, bottom = shrink(box, 0.1)
    pole = max(1, (right - left) // 12)
    pen.rectangle((left, top, left + pole, bottom), INK)
    x0, side = left + pole + 1, (right - left - pole - 1) / 3
    for row in range(2):
        for column in range(3):
            x, y = x0 + column * side, top + row * side
            pen.rectangle(
                (x, y, x + side - 1, y + side - 1), "white" if (row + column) % 2 else FLAG, FLAG
            )
