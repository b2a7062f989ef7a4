"""Rotting kiwi: rot spreads to the four neighbours every minute. When is the last fresh kiwi
gone?
"""

import random
import re
from dataclasses import dataclass

from PIL import Image

from franken.tasks.puzzle import Facts, StrategySteps
from franken.tasks.puzzles.canvas import INK, cells, paper, shrink
from franken.tasks.puzzles.solved import Solved, Unsolvable

EMPTY, FRESH, ROTTEN = 0, 1, 2
LETTERS = ".fr"
SMALLEST = 84
STRATEGIES = ("waves", "each")
SLICES = {
    FRESH: ((94, 66, 40), (128, 190, 60), (236, 240, 190)),
    ROTTEN: ((40, 28, 20), (92, 70, 50), (60, 46, 34)),
}


@dataclass(frozen=True)
class Kiwis:
    """`grid[row][column]`: EMPTY, FRESH or ROTTEN."""

    grid: tuple[tuple[int, ...], ...]


@dataclass(frozen=True)
class Minutes:
    """The minutes until no cell holds a fresh kiwi."""


def solve(state: Kiwis, query: Minutes = Minutes()) -> Solved:
    """The number of minutes. Raises Unsolvable when some kiwi stays fresh for ever."""
    rots_at = times(state)
    fresh = [
        (r, c) for r, row in enumerate(state.grid) for c, cell in enumerate(row) if cell == FRESH
    ]
    safe = [cell for cell in fresh if cell not in rots_at]
    if safe:
        raise Unsolvable(
            "some kiwi never rots", why=f"no chain of kiwis leads from a rotten one to {safe[0]}"
        )
    last = max(fresh, key=rots_at.__getitem__, default=None)
    if last is None:
        return Solved("0", "no kiwi is fresh")
    return Solved(str(rots_at[last]), f"the kiwi at (row, column from 0) {last} rots last")


def times(state: Kiwis) -> dict[tuple[int, int], int]:
    """The minute in which each kiwi that ever rots does so; 0 for those that are rotten."""
    kiwis = {(r, c): cell for r, row in enumerate(state.grid) for c, cell in enumerate(row)}
    rotten_at = {cell: 0 for cell, what in kiwis.items() if what == ROTTEN}
    front, minute = list(rotten_at), 0
    while front:
        minute += 1
        beside = {
            (r + dr, c + dc) for r, c in front for dr, dc in ((0, 1), (1, 0), (0, -1), (-1, 0))
        }
        front = [cell for cell in beside if kiwis.get(cell) == FRESH and cell not in rotten_at]
        rotten_at |= dict.fromkeys(front, minute)
    return rotten_at


def sample(rng: random.Random, level: int) -> Kiwis:
    """A grid of 3 × 3, 4 × 4 or 5 × 5 with one or two rotten kiwis, in which every fresh one rots
    in the end.
    """
    side = 2 + level
    while True:
        grid = [[rng.choices((EMPTY, FRESH), (1, 2))[0] for _ in range(side)] for _ in range(side)]
        for _ in range(rng.randint(1, 2)):
            grid[rng.randrange(side)][rng.randrange(side)] = ROTTEN
        state = Kiwis(tuple(map(tuple, grid)))
        if any(FRESH in row for row in grid) and len(times(state)) == sum(
            cell != EMPTY for row in grid for cell in row
        ):
            return state


def ask(state: Kiwis, rng: random.Random) -> Minutes:
    """There is one question."""
    return Minutes()


def questions(state: Kiwis, query: Minutes) -> tuple[str, ...]:
    """In words, two wordings."""
    rule = "Every minute the fresh kiwis above, below, left and right of a rotten one rot."
    return (
        "Each cell of the grid holds nothing, a fresh (green) kiwi or a rotten (brown) one. "
        f"{rule} After how many minutes is no kiwi fresh?",
        f"{rule} In what minute does the last fresh (green) kiwi of this grid rot, counting from "
        "1?",
    )


def steps(state: Kiwis, query: Minutes) -> StrategySteps:
    """Minute by minute; or kiwi by kiwi in reading order."""
    rots_at, answer = times(state), f"answer {solve(state, query).answer}"
    rotten, last = (
        _names([cell for cell, minute in rots_at.items() if minute == 0]),
        max(rots_at.values()),
    )
    waves = [
        f"minute {m} rots {_names([cell for cell, minute in rots_at.items() if minute == m])}"
        for m in range(1, last + 1)
    ]
    each = [
        f"minute {rots_at[cell]} rots {_names([cell])}" for cell in sorted(rots_at) if rots_at[cell]
    ]
    return {
        "waves": (f"rotten are {rotten}", *waves, answer),
        "each": (f"rotten are {rotten}", *each, answer),
    }


def check(state: Kiwis, query: Minutes, steps: tuple[str, ...]) -> str | None:
    """See `suite.Module.check`."""
    rots_at = times(state)
    for step in steps:
        match = re.fullmatch(r"(?:rotten are|minute ([0-9]+) rots) ((?:r[0-9]+c[0-9]+ ?)+)", step)
        if match:
            minute = int(match[1] or 0)
            cells_named = [
                (int(r) - 1, int(c) - 1) for r, c in re.findall(r"r([0-9]+)c([0-9]+)", match[2])
            ]
            if any(rots_at.get(cell) != minute for cell in cells_named):
                return f"{step!r} is wrong"
        elif step != f"answer {solve(state, query).answer}":
            return f"{step!r} is wrong or cannot be read"
    return None if steps and steps[-1].startswith("answer ") else "there is no answer"


def _names(cells: list[tuple[int, int]]) -> str:
    """`r1c2 r3c1`, in reading order."""
    return " ".join(f"r{r + 1}c{c + 1}" for r, c in sorted(cells))


def describe(state: Kiwis) -> str:
    """`kiwis` and the rows: . empty, f fresh, r rotten."""
    return "kiwis " + "/".join("".join(LETTERS[cell] for cell in row) for row in state.grid)


def parse(text: str) -> Kiwis:
    """The inverse of `describe`. Raises ValueError."""
    match = re.fullmatch(rf"kiwis ([{LETTERS}/]+)", text)
    rows = match[1].split("/") if match else []
    if not rows or len({len(row) for row in rows}) != 1 or not rows[0]:
        raise ValueError(f"{text!r} is no grid of kiwis")
    return Kiwis(tuple(tuple(LETTERS.index(letter) for letter in row) for row in rows))


def facts(state: Kiwis) -> Facts:
    """What each cell holds."""
    named = ("empty", "fresh", "rotten")
    return {
        f"r{r}c{c}": named[cell]
        for r, row in enumerate(state.grid, 1)
        for c, cell in enumerate(row, 1)
    }


def change(state: Kiwis, rng: random.Random) -> Kiwis:
    """Something else in one cell."""
    grid = [list(row) for row in state.grid]
    r, c = rng.randrange(len(grid)), rng.randrange(len(grid[0]))
    grid[r][c] = rng.choice([cell for cell in (EMPTY, FRESH, ROTTEN) if cell != grid[r][c]])
    return Kiwis(tuple(map(tuple, grid)))


def render(state: Kiwis, size: int, style: int = 0) -> Image.Image:
    """A slice with seeds for a fresh kiwi, a dark spotted one for a rotten."""
    image, pen = paper(size, style)
    for r, c, box in cells(len(state.grid), len(state.grid[0]), (2, 2, size - 2, size - 2)):
        pen.rectangle(box, "white", INK)
        cell = state.grid[r][c]
        if cell != EMPTY:
            for share, colour in zip((0.12, 0.18, 0.38), SLICES[cell], strict=True):
                pen.ellipse(shrink(box, share), colour)
    return image
