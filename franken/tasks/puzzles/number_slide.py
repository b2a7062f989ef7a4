"""Number slide: a board of numbered tiles with one open position; what can it look like after
exactly n moves?
"""

import random
import re
from collections import Counter
from collections.abc import Iterator
from functools import lru_cache

from PIL import Image

from franken.tasks.puzzle import Facts, StrategySteps
from franken.tasks.puzzles import number_slide_replay as replay
from franken.tasks.puzzles.canvas import INK, cells, centre, paper, write
from franken.tasks.puzzles.number_slide_questions import (
    AfterPath,
    BestSum,
    Boards,
    Grid,
    Query,
    Slide,
)
from franken.tasks.puzzles.number_slide_questions import questions as questions
from franken.tasks.puzzles.solved import Solved, Unsolvable

Cell = tuple[int, int]
SMALLEST = 84
STRATEGIES = ("boards", "walks")
WALL, TILE = (190, 40, 40), (232, 212, 170)
STEPS = {"left": (0, -1), "right": (0, 1), "up": (-1, 0), "down": (1, 0)}


def solve(state: Slide, query: Query) -> Solved:
    """The answer. Raises Unsolvable when `path` leaves the board."""
    if isinstance(query, AfterPath):
        return _after_path(state.grid, query)
    ends = reachable(state.grid, query.moves)
    if isinstance(query, Boards):
        return Solved(
            str(len(ends)),
            f"{len(ends)} boards end a walk of {query.moves}: " + "; ".join(ends.values()),
        )
    sums = {path: sum(_edge(grid, query.edge)) for grid, path in ends.items()}
    path = (max if query.best == "maximum" else min)(sums, key=sums.__getitem__)
    return Solved(
        str(sums[path]),
        f"{query.best} of the {query.edge} sums of {len(ends)} boards, reached by {path}",
    )


@lru_cache(64)
def reachable(grid: Grid, moves: int) -> dict[Grid, str]:
    """Every board that exactly `moves` moves can end in, with one way there."""
    boards = {grid: ""}
    for _ in range(moves):
        boards = {
            after: f"{path} {name}".strip()
            for now, path in boards.items()
            for name, after in moves_of(now)
        }
    return boards


def moves_of(grid: Grid) -> Iterator[tuple[str, Grid]]:
    """Every move of the open position, and the board after it."""
    row, column = _open(grid)
    for name, (down, right) in STEPS.items():
        r, c = row + down, column + right
        if 0 <= r < len(grid) and 0 <= c < len(grid[r]):
            after = [list(line) for line in grid]
            after[row][column], after[r][c] = after[r][c], 0
            yield name, tuple(map(tuple, after))


def _after_path(grid: Grid, query: AfterPath) -> Solved:
    for name in query.path:
        after = dict(moves_of(grid)).get(name)
        if after is None:
            raise Unsolvable(
                f"the open position cannot move {name}", why=f"it stands at {_open(grid)}"
            )
        grid = after
    row, column = _open(grid)
    line = grid[row] if query.line == "row" else tuple(r[column] for r in grid)
    tiles = [n for n in line if n]  # the open position is no number
    answer = {"maximum": max, "minimum": min, "sum": sum}[query.what](tiles)
    return Solved(str(answer), f"the {query.line} of the open position then holds {tiles}")


def _edge(grid: Grid, edge: str) -> tuple[int, ...]:
    if edge in ("top", "bottom"):
        return grid[0 if edge == "top" else -1]
    return tuple(row[0 if edge == "left" else -1] for row in grid)


def _open(grid: Grid) -> tuple[int, int]:
    return next((r, c) for r, row in enumerate(grid) for c, n in enumerate(row) if n == 0)


def sample(rng: random.Random, level: int) -> Slide:
    """Different numbers on a board of 3 × 3, 4 × 4 or 5 × 5; not always 1, 2, 3 …, so that each one
    has to be read.
    """
    side = 2 + level
    numbers = rng.sample(range(1, _most(side * side) + 1), side * side - 1)
    numbers.insert(rng.randrange(side * side), 0)
    return Slide(tuple(tuple(numbers[i : i + side]) for i in range(0, side * side, side)))


def _most(places: int) -> int:
    return 2 * places


def ask(state: Slide, rng: random.Random) -> Query:
    """The number of boards, the best sum along an edge, or what a path leads to; more moves on a
    larger board.
    """
    moves = max(1, len(state.grid) - rng.randint(1, 2))
    kind = rng.randrange(3)
    if kind == 0:
        return Boards(moves)
    if kind == 1:
        return BestSum(
            moves,
            rng.choice(("maximum", "minimum")),
            rng.choice(("top", "bottom", "left", "right")),
        )
    grid, path = state.grid, ()
    for _ in range(moves + 1):
        name, grid = rng.choice(list(moves_of(grid)))
        path = (*path, name)
    return AfterPath(path, rng.choice(("maximum", "minimum", "sum")), rng.choice(("row", "column")))


def steps(state: Slide, query: Query) -> StrategySteps:
    """Board after board; or the walk of the open position alone."""
    answer, start = f"answer {solve(state, query).answer}", f"board {_show(state.grid)}"
    if isinstance(query, Boards):
        counts = _turnless(state.grid, query.moves)
        added = f"{' + '.join(str(n) for _, n in counts)} = {sum(n for _, n in counts)}"
        chains = {"boards": (start, *_spread(state.grid, query.moves), answer)}
        if query.moves < 6:  # see `_turnless`
            ways = [f"{length} moves without turning back go {n} ways" for length, n in counts]
            chains["walks"] = (f"open at {_name(_open(state.grid))}", *ways, added, answer)
        return chains
    if isinstance(query, BestSum):
        sums = {
            sum(_edge(grid, query.edge)): path
            for grid, path in reachable(state.grid, query.moves).items()
        }
        best = max(sums) if query.best == "maximum" else min(sums)
        end, boards, _ = _replay(state.grid, tuple(sums[best].split()))
        return {
            "boards": (
                start,
                *boards,
                *_added(f"the {query.edge} edge holds", _edge(end, query.edge)),
                answer,
            ),
            "walks": (
                *(f"{sums[total]} makes the {query.edge} edge {total}" for total in sorted(sums)),
                f"the sums are {' '.join(map(str, sorted(sums)))}",
                answer,
            ),
        }
    end, boards, walk = _replay(state.grid, query.path)
    row, column = _open(end)
    line = [n for n in (end[row] if query.line == "row" else [r[column] for r in end]) if n]
    holds = f"the {query.line} holds"
    last = _added(holds, line) if query.what == "sum" else (f"{holds} {' '.join(map(str, line))}",)
    return {
        "boards": (start, *boards, *last, answer),
        "walks": (f"open at {_name(_open(state.grid))}", *walk, *last, answer),
    }


def _replay(grid: Grid, path: tuple[str, ...]) -> tuple[Grid, list[str], list[str]]:
    """The board after a path, and its steps as boards and as places of the open position."""
    boards, walk = [], []
    for name in path:
        after = dict(moves_of(grid))[name]
        boards.append(f"{name} gives {_show(after)}")
        row, column = _open(grid)
        walk.append(
            f"{name} to {_name(_open(after))} moves {after[row][column]} to {_name((row, column))}"
        )
        grid = after
    return grid, boards, walk


def _added(text: str, numbers: tuple[int, ...] | list[int]) -> tuple[str, str]:
    return (
        f"{text} {' '.join(map(str, numbers))}",
        f"{' + '.join(map(str, numbers))} = {sum(numbers)}",
    )


def _spread(grid: Grid, moves: int) -> Iterator[str]:
    """How many boards have the open position where, move by move."""
    at = Counter([_open(grid)])
    for done in range(1, moves + 1):
        at = Counter(_open(board) for board in reachable(grid, done))
        yield f"after {done} " + " ".join(f"{_name(cell)}:{n}" for cell, n in sorted(at.items()))
    yield f"{' + '.join(str(n) for _, n in sorted(at.items()))} = {at.total()}"


def _turnless(grid: Grid, moves: int) -> list[tuple[int, int]]:
    """(length, number of walks) of the walks that never turn back, of every length that leaves an
    even number of moves.

    Two such walks end in different boards, as long as they are too short to go round a ring three
    times together: 12 moves.
    """
    counts, ends = [], Counter([(_open(grid), (0, 0))])
    for length in range(moves + 1):
        if (moves - length) % 2 == 0:
            counts.append((length, ends.total()))
        after: Counter[tuple[Cell, Cell]] = Counter()
        for ((r, c), last), n in ends.items():
            for down, right in STEPS.values():
                if (
                    (-down, -right) != last
                    and 0 <= r + down < len(grid)
                    and 0 <= c + right < len(grid[0])
                ):
                    after[(r + down, c + right), (down, right)] += n
        ends = after
    return counts


def _name(cell: Cell) -> str:
    return f"r{cell[0] + 1}c{cell[1] + 1}"


def _show(grid: Grid) -> str:
    return "/".join(" ".join(str(n or ".") for n in row) for row in grid)


def check(state: Slide, query: Query, steps: tuple[str, ...]) -> str | None:
    """See `suite.Module.check`. Slides the tiles of a dictionary, and tries every sequence of
    directions.
    """
    board, made = replay.places(state.grid), []
    for step in steps[:-1]:
        if not _holds(step, state, query, board, made):
            return f"{step!r} is wrong or cannot be read"
    if steps and steps[-1] == f"answer {solve(state, query).answer}":
        return None
    return "the answer is wrong or missing"


def _holds(
    step: str,
    state: Slide,
    query: Query,
    board: dict[Cell, int],
    made: list[str],
) -> bool:
    """Whether a step is true; `board` and `made` follow the moves that it makes."""
    if match := re.fullmatch(r"(\w+) (?:gives|to r\d+c\d+ moves) .+", step):
        before = replay.hole(board)
        if not replay.slide(board, match[1]):
            return False
        made.append(match[1])
        if isinstance(query, AfterPath) and tuple(made) != query.path[: len(made)]:
            return False
        to = f"{match[1]} to {_name(replay.hole(board))} moves {board[before]} to {_name(before)}"
        return step in (to, f"{match[1]} gives {replay.text(board)}")
    if match := re.fullmatch(r"the (\w+)( edge)? holds (\d+(?: \d+)*)", step):
        return step == _line_held(query, board, made)
    if match := re.fullmatch(r"(\d+(?: \+ \d+)*) = (\d+)", step):
        return sum(map(int, match[1].split(" + "))) == int(match[2])
    if isinstance(query, BestSum):
        return _sums_hold(step, state.grid, query) or step == f"board {replay.text(board)}"
    if isinstance(query, Boards) and _counts_hold(step, state.grid, query):
        return True
    return step in (f"board {replay.text(board)}", f"open at {_name(replay.hole(board))}")


def _sums_hold(step: str, grid: Grid, query: BestSum) -> bool:
    if match := re.fullmatch(r"((?:\w+ )+)makes the (\w+) edge (\d+)", step):
        path, end = match[1].split(), replay.places(grid)
        is_walk = len(path) == query.moves and all(replay.slide(end, name) for name in path)
        return is_walk and (match[2], int(match[3])) == (
            query.edge,
            sum(replay.along(end, query.edge)),
        )
    sums = {sum(replay.along(end, query.edge)) for _, end in replay.ends(grid, query.moves)}
    return step == f"the sums are {' '.join(map(str, sorted(sums)))}"


def _counts_hold(step: str, grid: Grid, query: Boards) -> bool:
    match = re.fullmatch(r"after (\d) .+|(\d) moves without turning back go \d+ ways", step)
    moves = int(match[1] or match[2]) if match else query.moves + 1
    if moves > query.moves:
        return False
    ends = list(replay.ends(grid, moves))
    at = Counter(map(replay.hole, {replay.text(end): end for _, end in ends}.values()))
    back = {"up": "down", "down": "up", "left": "right", "right": "left"}
    turnless = sum(all(a != back[b] for a, b in zip(p, p[1:], strict=False)) for p, _ in ends)
    return step in (
        f"after {moves} " + " ".join(f"{_name(cell)}:{n}" for cell, n in sorted(at.items())),
        f"{moves} moves without turning back go {turnless} ways",
    )


def _line_held(query: Query, board: dict[Cell, int], made: list[str]) -> str | None:
    if isinstance(query, BestSum) and len(made) == query.moves:
        return f"the {query.edge} edge holds {' '.join(map(str, replay.along(board, query.edge)))}"
    if isinstance(query, AfterPath) and tuple(made) == query.path:
        axis = 0 if query.line == "row" else 1
        line = [
            n for cell, n in sorted(board.items()) if n and cell[axis] == replay.hole(board)[axis]
        ]
        return f"the {query.line} holds {' '.join(map(str, line))}"
    return None


def describe(state: Slide) -> str:
    """`slide 1 8 7/6 4 5/. 3 2`: the rows, a dot for the open position."""
    return f"slide {_show(state.grid)}"


def parse(text: str) -> Slide:
    """The inverse of `describe`. Raises ValueError."""
    if not re.fullmatch(r"slide (?:\.|[1-9]\d*)(?:[ /](?:\.|[1-9]\d*))*", text, re.ASCII):
        raise ValueError(f"{text!r} is no board of tiles")
    rows = [row.split(" ") for row in text.removeprefix("slide ").split("/")]
    grid = tuple(tuple(0 if n == "." else int(n) for n in row) for row in rows)
    numbers = [n for row in grid for n in row]
    if (
        len({len(row) for row in grid}) != 1
        or numbers.count(0) != 1
        or len(set(numbers)) != len(numbers)
    ):
        raise ValueError(f"{text!r} is no board of different tiles with one open position")
    return Slide(grid)


def facts(state: Slide) -> Facts:
    """The open position, and the tiles in reading order: either can change while the other
    stays.
    """
    tiles = [n for row in state.grid for n in row if n]
    return {"open": _name(_open(state.grid))} | {
        f"tile {i}": str(n) for i, n in enumerate(tiles, 1)
    }


def change(state: Slide, rng: random.Random) -> Slide:
    """Another number on a tile, or the open position elsewhere in its row."""
    grid = [list(row) for row in state.grid]
    row, column = _open(state.grid)
    if rng.random() < 0.3:
        grid[row].pop(column)
        grid[row].insert(rng.randrange(len(grid[row]) + 1), 0)
        return Slide(tuple(map(tuple, grid)))
    numbers = {n for line in grid for n in line}
    places = [(r, c) for r, line in enumerate(grid) for c, n in enumerate(line) if n]
    r, c = rng.choice(places)
    grid[r][c] = rng.choice([n for n in range(1, _most(len(places) + 1) + 1) if n not in numbers])
    return Slide(tuple(map(tuple, grid)))


def render(state: Slide, size: int, style: int = 0) -> Image.Image:
    """Pale tiles with their numbers within a red wall; the open position shows the paper."""
    image, pen = paper(size, style)
    wall = max(2, size // 50)
    pen.rectangle((1, 1, size - 2, size - 2), None, WALL, wall)
    inside = (1 + wall, 1 + wall, size - 1 - wall, size - 1 - wall)
    for r, c, box in cells(len(state.grid), len(state.grid[0]), inside):
        if number := state.grid[r][c]:
            pen.rectangle((box[0] + 1, box[1] + 1, box[2] - 1, box[3] - 1), TILE, INK)
            write(pen, centre(box), str(number), (box[3] - box[1]) * 0.5)
    return image
