"""A cube unfolded: up above front, down below it, and left, front, right, back in a row."""

from collections.abc import Mapping

from PIL import Image

from franken.tasks.puzzles.canvas import INK, Colour, cells, paper, write

# Column and row of each face in the net.
NET = {
    "up": (1, 0),
    "left": (0, 1),
    "front": (1, 1),
    "right": (2, 1),
    "back": (3, 1),
    "down": (1, 2),
}
# the least size at which the names of the faces are written; where they are in the net says it, too
NAMED = 160


def draw(faces: Mapping[str, tuple[tuple[Colour, ...], ...]], size: int, style: int) -> Image.Image:
    """Each face as a grid of its colours, its name above it."""
    image, pen = paper(size, style)
    word = size * 0.05 if size >= NAMED else 0
    gap, side = max(2, size // 40), (size - 4) // 4 - max(2, size // 40)
    height = 3 * side + 2 * gap + 3 * word * 1.3
    left, top = (size - 4 * side - 3 * gap) / 2, (size - height) / 2
    for name, (column, row) in NET.items():
        x, y = (
            round(left + column * (side + gap)),
            round(top + row * (side + gap + word * 1.3) + word * 1.3),
        )
        grid = faces[name]
        for r, c, (x0, y0, x1, y1) in cells(len(grid), len(grid), (x, y, x + side, y + side)):
            pen.rectangle((x0, y0, x1 + 1, y1 + 1), grid[r][c], INK)  # neighbours share their lines
        if word:
            write(pen, (x + side / 2, y - word * 0.7), name.capitalize(), word)
    return image
