"""Wood slide: a sliding block puzzle. The minimum number of one-unit moves from one configuration
to another.

The picture shows both configurations; the blocks are numbered there, so that two of one shape can
be told apart.
"""

import random
import re
from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import lru_cache

from PIL import Image

from franken.tasks.puzzle import Facts, StrategySteps
from franken.tasks.puzzles.canvas import INK, cells, centre, paper, write
from franken.tasks.puzzles.solved import Solved, fewest_moves, shortest

Grid = tuple[str, ...]  # rows of block names, one character a cell; 0 is empty
Place = tuple[int, int]  # row, column of a block's upper left cell
SMALLEST = 84
STRATEGIES = ("path", "layers")
STEPS = {"right": (0, 1), "down": (1, 0), "left": (0, -1), "up": (-1, 0)}
SHAPES = ((1, 1), (1, 1), (1, 2), (2, 1), (2, 2))  # rows, columns; single cells twice as often
SIZES = ((3, 3), (4, 3), (5, 4))  # rows, columns, by level
BROWNS = (
    (210, 180, 140),
    (222, 184, 135),
    (244, 164, 96),
    (205, 133, 63),
    (193, 154, 107),
    (188, 118, 80),
    (160, 82, 45),
    (139, 115, 85),
    (165, 123, 92),
)


@dataclass(frozen=True)
class Blocks:
    """The starting and the ending configuration. Blocks of one shape differ by their shade, and so
    by their name.
    """

    start: Grid
    end: Grid


@dataclass(frozen=True)
class Moves:
    """The minimum number of moves from start to end."""


@lru_cache(256)
def solve(state: Blocks, query: Moves = Moves()) -> Solved:
    """The minimum number of moves. Raises Unsolvable when the end cannot be reached."""
    return fewest_moves(state.start, state.end, moves, "/".join)


def moves(grid: Grid) -> Iterator[tuple[str, Grid]]:
    """Every move of one block by one unit, and the configuration after it."""
    cells: dict[str, list[tuple[int, int]]] = {}
    for r, row in enumerate(grid):
        for c, name in enumerate(row):
            cells.setdefault(name, []).append((r, c))
    free = set(cells.pop("0", ()))
    for name, places in cells.items():
        own = set(places)
        for step, (down, right) in STEPS.items():
            moved = {(r + down, c + right) for r, c in places}
            if moved - own <= free:
                after = [list(row) for row in grid]
                for r, c in own - moved:
                    after[r][c] = "0"
                for r, c in moved:
                    after[r][c] = name
                yield f"{name} {step}", tuple("".join(row) for row in after)


def layers(start: Grid) -> Iterator[set[Grid]]:
    """The configurations that take 0, 1, 2 … moves at least, as long as there are any."""
    before: set[Grid] = set()
    layer = {start}
    while layer:
        yield layer
        after = {grid for here in layer for _, grid in moves(here)} - layer - before
        before, layer = (
            layer,
            after,
        )  # a move can be undone: the moves of a layer lead to it and its two neighbours


def sample(rng: random.Random, level: int) -> Blocks:
    """A grid of 3 × 3, 4 × 3 or 5 × 4 with two empty cells, and an end 1-4, 2-5 or 3-6 moves
    away.
    """
    rows, columns = SIZES[level - 1]
    least = rng.randint(level, level + 3)
    while True:
        start = _filled(rng, rows, columns)
        if start is None:
            continue
        for n, layer in enumerate(layers(start)):
            if n == least:
                return Blocks(start, rng.choice(sorted(layer)))


def _filled(rng: random.Random, rows: int, columns: int) -> Grid | None:
    """A grid covered with up to nine blocks except for two cells; None when the blocks drawn do not
    come out so.
    """
    grid, blocks = [["?"] * columns for _ in range(rows)], []
    for r in range(rows):
        for c in range(columns):
            if grid[r][c] != "?":
                continue
            fitting = [
                (h, w) for h, w in SHAPES if r + h <= rows and grid[r][c : c + w] == ["?"] * w
            ]
            blocks.append((r, c, *rng.choice(fitting)))
            _put(grid, blocks[-1], "x")
    single = [block for block in blocks if block[2:] == (1, 1)]
    if len(single) < 2 or not 3 <= len(blocks) - 2 <= 9:
        return None
    empty = rng.sample(single, 2)
    for block in empty:
        _put(grid, block, "0")
    for name, block in enumerate((b for b in blocks if b not in empty), 1):
        _put(grid, block, str(name))
    return tuple("".join(row) for row in grid)


def _put(grid: list[list[str]], block: tuple[int, int, int, int], name: str) -> None:
    r, c, height, width = block
    for row in grid[r : r + height]:
        row[c : c + width] = [name] * width


def ask(state: Blocks, rng: random.Random) -> Moves:
    """There is one question."""
    return Moves()


def questions(state: Blocks, query: Moves) -> tuple[str, ...]:
    """In words, two wordings."""
    size = f"{len(state.start)} * {len(state.start[0])}"
    rule = (
        "A move slides one whole block by one unit up, down, left or right, within the grid and "
        "into empty (white) space only. Blocks cannot be lifted or turned."
    )
    return (
        "The picture shows the starting and the ending configuration of a sliding block puzzle "
        f"on a grid of {size} units. The wooden blocks are numbered. {rule} What is the minimum "
        "number of moves required to reach the ending configuration, with every block in its "
        "place, from the starting one?",
        f"How few moves can bring every numbered block of this {size} grid from where it is on "
        f"the left (start) to where it is on the right (end)? {rule}",
    )


def steps(state: Blocks, query: Moves) -> StrategySteps:
    """A least bound and the moves one by one; or how many configurations are one, two … moves
    away.
    """
    path = shortest(state.start, lambda grid: grid == state.end, moves) or []
    answer = f"answer {len(path)}"
    begin = (f"the start is {'/'.join(state.start)}", f"the end is {'/'.join(state.end)}")
    first, last = _places(state.start), _places(state.end)
    apart = {
        name: abs(r - last[name][0]) + abs(c - last[name][1]) for name, (r, c) in first.items()
    }
    far = [f"block {name} is {n} from its place" for name, n in apart.items() if n]
    made = [f"{name} gives {'/'.join(grid)}" for name, grid in path]
    counted = []
    for n, layer in enumerate(layers(state.start)):
        ends = state.end in layer
        counted.append(
            f"{n} moves lead to {len(layer)} new {'with' if ends else 'without'} the end"
        )
        if ends:
            break
    bound = f"so at least {sum(apart.values())}"
    return {
        "path": (*begin, *far, bound, *made, f"{len(path)} moves reach the end", answer),
        "layers": (*begin, *counted, answer),
    }


def _places(grid: Grid) -> dict[str, Place]:
    """Block → its upper left cell, from 0, by name."""
    places: dict[str, Place] = {}
    for r, row in enumerate(grid):
        for c, name in enumerate(row):
            places.setdefault(name, (r, c))
    return {name: places[name] for name in sorted(places) if name != "0"}


def check(state: Blocks, query: Moves, steps: tuple[str, ...]) -> str | None:
    """See `suite.Module.check`. A move is made on the grid that the steps before it have led to."""
    grid, made, told = state.start, 0, 0
    for i, step in enumerate(steps):
        if match := re.fullmatch(r"(\d) (up|down|left|right) gives ([\d/]+)", step):
            grid, made = _slide(grid, match[1], *STEPS[match[2]]), made + 1
            if grid is None or "/".join(grid) != match[3]:
                return f"{step!r} is no move there, or leads elsewhere"
        elif match := re.fullmatch(r"(\d{1,9}) moves reach the end", step):
            if grid != state.end or made != int(match[1]):
                return f"{step!r} is wrong after these moves"
        elif step in steps[:i] or not _holds(step, state):
            return f"{step!r} is wrong, said before or cannot be read"
        elif match := re.fullmatch(r"(\d{1,9}) moves lead to .+", step):
            if int(match[1]) != told:
                return f"{step!r}: {told} moves come first"
            told += 1
        elif step.startswith("answer ") and not any(
            before.endswith((" reach the end", " with the end")) for before in steps[:i]
        ):
            return f"{step!r}: the end has not been reached"
    return None if steps and steps[-1].startswith("answer ") else "there is no answer"


def _slide(grid: Grid, name: str, down: int, right: int) -> Grid | None:
    """The grid after a block was taken off and put down one unit on; None when that is no place for
    it.
    """
    cells = {(r, c): what for r, row in enumerate(grid) for c, what in enumerate(row)}
    block = [cell for cell, what in cells.items() if what == name]
    rest = {cell: "0" if what == name else what for cell, what in cells.items()}
    target = [(r + down, c + right) for r, c in block]
    if name == "0" or not block or any(rest.get(cell) != "0" for cell in target):
        return None
    rest |= dict.fromkeys(target, name)
    return tuple("".join(rest[r, c] for c in range(len(row))) for r, row in enumerate(grid))


def _holds(step: str, state: Blocks) -> bool:
    first, last = _places(state.start), _places(state.end)
    apart = {
        name: abs(r - last[name][0]) + abs(c - last[name][1]) for name, (r, c) in first.items()
    }
    if match := re.fullmatch(r"the (start|end) is ([\d/]+)", step):
        return match[2] == "/".join(getattr(state, match[1]))
    if match := re.fullmatch(r"block (\d) is (\d{1,9}) from its place", step):
        return apart.get(match[1]) == int(match[2])
    if match := re.fullmatch(r"so at least (\d{1,9})", step):
        return int(match[1]) == sum(apart.values())
    if match := re.fullmatch(r"(\d{1,9}) moves lead to (\d{1,9}) new (with|without) the end", step):
        for n, layer in enumerate(layers(state.start)):
            if n == int(match[1]):
                return (len(layer), state.end in layer) == (int(match[2]), match[3] == "with")
            if state.end in layer:  # nothing is said of what lies beyond
                break
        return False
    return step == f"answer {solve(state).answer}"


def describe(state: Blocks) -> str:
    """`blocks 120/120/334 to 012/012/334`: both configurations, row by row."""
    return f"blocks {'/'.join(state.start)} to {'/'.join(state.end)}"


def parse(text: str) -> Blocks:
    """The inverse of `describe`. Raises ValueError."""
    match = re.fullmatch(r"blocks ([\d/]+) to ([\d/]+)", text)
    if not match:
        raise ValueError(f"{text!r} shows no blocks")
    start, end = (tuple(side.split("/")) for side in match.groups())
    if len({len(row) for row in (*start, *end)}) != 1 or len(start) != len(end) or not start[0]:
        raise ValueError(f"{text!r} shows no two grids of one size")
    if _shapes(start) != _shapes(end):
        raise ValueError(f"{text!r} shows other blocks at the end than at the start")
    return Blocks(start, end)


def _shapes(grid: Grid) -> dict[str, tuple[int, int]]:
    """Block → rows and columns, by name. Raises ValueError for one that is no rectangle."""
    shapes = {}
    for name, (r, c) in _places(grid).items():
        height, width = sum(row[c] == name for row in grid), grid[r].count(name)
        rectangle = all(row[c : c + width] == name * width for row in grid[r : r + height])
        if not rectangle or sum(row.count(name) for row in grid) != height * width:
            raise ValueError(f"block {name} is no rectangle")
        shapes[name] = (height, width)
    return shapes


def facts(state: Blocks) -> Facts:
    """The size of the grid, and each block's shape (rows x columns) and place, as of its upper left
    cell.
    """
    slots = {"grid": f"{len(state.start)}x{len(state.start[0])}"}
    for name, (height, width) in _shapes(state.start).items():
        slots[f"shape {name}"] = f"{height}x{width}"
    for side, grid in (("start", state.start), ("end", state.end)):
        slots |= {f"{side} {name}": f"r{r + 1}c{c + 1}" for name, (r, c) in _places(grid).items()}
    return slots


def change(state: Blocks, rng: random.Random) -> Blocks:
    """One block one unit further, at the start or at the end."""
    side = rng.choice(("start", "end"))
    return replace(state, **{side: rng.choice([grid for _, grid in moves(getattr(state, side))])})


def distractors(state: Blocks, query: Moves) -> list[str]:
    """The other numbers of moves that grids of this size are sampled with: each is as likely as the
    right one.
    """
    right = int(solve(state, query).answer)
    least = next(
        (i for i, size in enumerate(SIZES, 1) if size == (len(state.start), len(state.start[0]))), 1
    )
    least = max(0, min(max(least, right - 3), right))
    return [str(n) for n in range(least, least + 4) if n != right]


def render(state: Blocks, size: int, style: int = 0) -> Image.Image:
    """Start on the left and end on the right. Which block has which shade of brown carries no
    fact.
    """
    image, pen = paper(size, style)
    browns = random.Random(style).sample(BROWNS, len(BROWNS))
    top = max(12, size // 9)
    for word, grid, left in (("Start", state.start, 0), ("End", state.end, size // 2)):
        right = left + size // 2
        boxes = {
            (r, c): box
            for r, c, box in cells(len(grid), len(grid[0]), (left + 5, top, right - 5, size - 3))
        }
        around = (*boxes[0, 0][:2], *boxes[len(grid) - 1, len(grid[0]) - 1][2:])
        pen.rectangle((around[0] - 2, around[1] - 2, around[2] + 2, around[3] + 2), "white", INK)
        write(pen, ((left + right) / 2, around[1] - top / 2 - 2), word, top * 0.7)
        places = _places(grid)
        for name, (height, width) in _shapes(grid).items():
            r, c = places[name]
            box = (*boxes[r, c][:2], *boxes[r + height - 1, c + width - 1][2:])
            pen.rectangle(box, browns[int(name) - 1], (92, 58, 30))
            cell = boxes[r, c]
            write(pen, centre(box), name, (cell[3] - cell[1]) * 0.75)
    return image
