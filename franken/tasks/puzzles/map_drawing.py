"""Maps of regions: grown on a grid of cells, and drawn with bent borders.

A layout is rows of letters: the cells of one letter are one region. Borders bend by `style`; who
borders on whom does not.
"""

import random

from PIL import Image

from franken.tasks.puzzles.canvas import INK, Colour, centre, paper, write

Layout = tuple[str, ...]
BEND = (
    0.22  # of a cell's side: the corners and the middles of borders are moved by this much at most
)


def grown(rng: random.Random, rows: int, columns: int, regions: int) -> Layout:
    """Regions that grow cell by cell from seeds until they cover the grid, lettered in reading
    order.
    """
    free = {(r, c) for r in range(rows) for c in range(columns)}
    owner = dict(zip(rng.sample(sorted(free), regions), range(regions), strict=True))
    front = list(owner)
    while front:
        r, c = front[rng.randrange(len(front))]
        beside = [
            cell
            for cell in ((r + 1, c), (r - 1, c), (r, c + 1), (r, c - 1))
            if cell in free and cell not in owner
        ]
        if beside:
            cell = rng.choice(beside)
            owner[cell] = owner[r, c]
            front.append(cell)
        else:
            front.remove((r, c))
    letters: dict[int, str] = {}
    for cell in sorted(owner):
        letters.setdefault(owner[cell], chr(65 + len(letters)))
    return tuple("".join(letters[owner[r, c]] for c in range(columns)) for r in range(rows))


def borders(layout: Layout) -> set[tuple[str, str]]:
    """The pairs of letters (a, b), a < b, that share a side of a cell."""
    across = {(a, b) for row in layout for a, b in zip(row, row[1:], strict=False)}
    down = {
        (a, b)
        for above, below in zip(layout, layout[1:], strict=False)
        for a, b in zip(above, below, strict=True)
    }
    return {(min(pair), max(pair)) for pair in across | down if pair[0] != pair[1]}


def is_connected(layout: Layout, letter: str) -> bool:
    """Whether the cells of a letter hang together by their sides."""
    cells = {(r, c) for r, row in enumerate(layout) for c, what in enumerate(row) if what == letter}
    reached = front = {min(cells)}
    while front:
        front = {
            (r + dr, c + dc) for r, c in front for dr, dc in ((1, 0), (-1, 0), (0, 1), (0, -1))
        } & cells - reached
        reached = reached | front
    return reached == cells


def draw(layout: Layout, paint: dict[str, Colour], size: int, style: int) -> Image.Image:
    """The map: each region in its paint with its letter, black borders."""
    image, pen = paper(size, style)
    rng = random.Random(style)
    rows, columns = len(layout), len(layout[0])
    side, margin = (size - 7) / max(rows, columns), 3
    thick = max(1, size // 120)

    def bent(y: float, x: float, along_y: bool, along_x: bool) -> tuple[float, float]:
        dy, dx = (rng.uniform(-BEND, BEND) for _ in range(2))
        return margin + side * (x + dx * along_x), margin + side * (y + dy * along_y)

    corners = {
        (r, c): bent(r, c, 0 < r < rows, 0 < c < columns)
        for r in range(rows + 1)
        for c in range(columns + 1)
    }
    # Where a cell's upper and left sides are bent; those on the rim are straight.
    uppers = {
        (r, c): bent(r, c + 0.5, 0 < r < rows, False)
        for r in range(rows + 1)
        for c in range(columns)
    }
    lefts = {
        (r, c): bent(r + 0.5, c, False, 0 < c < columns)
        for r in range(rows)
        for c in range(columns + 1)
    }
    for r, row in enumerate(layout):
        for c, letter in enumerate(row):
            ring = [corners[r, c], uppers[r, c], corners[r, c + 1], lefts[r, c + 1]]
            ring += [corners[r + 1, c + 1], uppers[r + 1, c], corners[r + 1, c], lefts[r, c]]
            pen.polygon(ring, paint[letter], paint[letter])
    for r, row in enumerate(layout):
        for c, letter in enumerate(row):
            if r == 0 or layout[r - 1][c] != letter:
                pen.line([corners[r, c], uppers[r, c], corners[r, c + 1]], INK, thick)
            if c == 0 or row[c - 1] != letter:
                pen.line([corners[r, c], lefts[r, c], corners[r + 1, c]], INK, thick)
    right, bottom = margin + side * columns, margin + side * rows
    pen.line([(right, margin), (right, bottom), (margin, bottom)], INK, thick)
    for letter, (r, c) in _middles(layout).items():
        x, y = margin + side * c, margin + side * r
        write(
            pen, centre((round(x), round(y), round(x + side), round(y + side))), letter, side * 0.5
        )
    return image


def _middles(layout: Layout) -> dict[str, tuple[int, int]]:
    """For each letter the cell of its region that most of the region's cells are about."""
    cells: dict[str, list[tuple[int, int]]] = {}
    for r, row in enumerate(layout):
        for c, letter in enumerate(row):
            cells.setdefault(letter, []).append((r, c))
    return {
        letter: min(
            own, key=lambda cell: sum((cell[0] - r) ** 2 + (cell[1] - c) ** 2 for r, c in own)
        )
        for letter, own in cells.items()
    }
