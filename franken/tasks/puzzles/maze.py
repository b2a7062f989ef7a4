"""Maze: the shortest path with the fewest turns from the entrance to the exit; its cells and its
turns.
"""

import random
import re
from collections import deque
from dataclasses import dataclass
from typing import Literal

from PIL import Image

from franken.tasks.puzzle import Facts, StrategySteps
from franken.tasks.puzzles.canvas import cells, centre, paper
from franken.tasks.puzzles.maze_paths import STEPS, WAYS, Cell, corners, runs_of, turns
from franken.tasks.puzzles.solved import Solved, Unsolvable, the_one
from franken.tasks.puzzles.squares import SQUARE, SQUARES, beside, named, read

SMALLEST = 84
STRATEGIES = ("walk", "flood")
WALL, OPEN, LINE = (0, 0, 0), (255, 255, 255), (236, 236, 236)
GREEN, BLUE = (0, 128, 0), (0, 0, 255)
SIDES = {
    1: ((3, 3), (3, 4), (4, 3)),
    2: ((4, 5), (5, 4), (5, 5)),
    3: ((6, 7), (7, 6), (7, 7)),
}  # open cells


@dataclass(frozen=True)
class Maze:
    """`walls[row][column]` is True where a cell is blocked."""

    walls: tuple[tuple[bool, ...], ...]
    entrance: Cell
    exit: Cell


@dataclass(frozen=True)
class PathQuery:
    """What is counted along the best path; cells include both ends."""

    count: Literal["cells", "left", "right", "turns"]


def solve(state: Maze, query: PathQuery) -> Solved:
    """The count. Raises Unsolvable where there is no path, or where best paths differ in what is
    asked.
    """
    best = best_paths(state)
    if not best:
        raise Unsolvable(
            "there is no path", why=f"no open way leads from {state.entrance} to {state.exit}"
        )
    answers: dict[str, str] = {}
    for (passed, left, right), path in best.items():
        count = {"cells": passed, "left": left, "right": right, "turns": left + right}[query.count]
        answers[str(count)] = f"{passed} cells, {left} left and {right} right turns: {path}"
    return the_one(answers, f"the number of {query.count} on the best path")


def best_paths(state: Maze) -> dict[tuple[int, int, int], str]:
    """(cells, left turns, right turns) of each kind of best path, with one such path as r/d/l/u
    letters.

    Best is fewest cells, then fewest turns. Walked layer by layer, so that every shortest path is
    counted.
    """
    to_exit = _distances(state, state.exit)
    if state.entrance not in to_exit:
        return {}
    layer: dict[tuple[Cell, int | None, int, int], str] = {(state.entrance, None, 0, 0): ""}
    for left_to_go in range(to_exit[state.entrance] - 1, -1, -1):
        following: dict[tuple[Cell, int | None, int, int], str] = {}
        for ((row, column), heading, lefts, rights), path in layer.items():
            for new, (down, right) in enumerate(STEPS):
                cell = (row + down, column + right)
                if to_exit.get(cell) == left_to_go:
                    turn = 0 if heading is None else (new - heading) % 4
                    following[(cell, new, lefts + (turn == 3), rights + (turn == 1))] = (
                        path + "rdlu"[new]
                    )
        layer = following
    fewest = min(lefts + rights for _, _, lefts, rights in layer)
    cells = to_exit[state.entrance] + 1
    return {(cells, a, b): path for (_, _, a, b), path in layer.items() if a + b == fewest}


def _distances(state: Maze, start: Cell) -> dict[Cell, int]:
    distances = {start: 0}
    queue = deque([start])
    while queue:
        row, column = queue.popleft()
        for down, right in STEPS:
            cell = (row + down, column + right)
            if cell not in distances and is_open(state, cell):
                distances[cell] = distances[(row, column)] + 1
                queue.append(cell)
    return distances


def is_open(state: Maze, cell: Cell) -> bool:
    """Whether a cell is on the board and not blocked."""
    row, column = cell
    return (
        0 <= row < len(state.walls)
        and 0 <= column < len(state.walls[row])
        and not state.walls[row][column]
    )


def sample(rng: random.Random, level: int) -> Maze:
    """A maze without loops of 7 × 7 cells up to 15 × 15, entered on the left and left on the right
    or at the bottom.
    """
    down, across = rng.choice(SIDES[level])
    rows, columns = 2 * down + 1, 2 * across + 1
    walls = [[True] * columns for _ in range(rows)]
    stack = [(2 * rng.randrange(down) + 1, 2 * rng.randrange(across) + 1)]
    walls[stack[0][0]][stack[0][1]] = False
    while stack:
        row, column = stack[-1]
        ahead = [
            (r, c) for r, c in STEPS if 0 < row + 2 * r < rows and 0 < column + 2 * c < columns
        ]
        ahead = [(r, c) for r, c in ahead if walls[row + 2 * r][column + 2 * c]]
        if not ahead:
            stack.pop()
            continue
        r, c = rng.choice(ahead)
        walls[row + r][column + c] = walls[row + 2 * r][column + 2 * c] = False
        stack.append((row + 2 * r, column + 2 * c))
    entrance = (2 * rng.randrange(down) + 1, 0)
    exit_ = _spread_exit(walls, entrance, rng)
    for row, column in (entrance, exit_):
        walls[row][column] = False
    return Maze(tuple(map(tuple, walls)), entrance, exit_)


def _spread_exit(walls: list[list[bool]], entrance: Cell, rng: random.Random) -> Cell:
    """An exit on the right or at the bottom: every number of turns that leads to one is as
    likely.
    """
    rows, columns = len(walls), len(walls[0])
    exits: dict[int, list[Cell]] = {}
    ways = [(entrance[0], 1, 0, 0)]  # row, column, heading, turns so far
    for (
        row,
        column,
        heading,
        turned,
    ) in ways:  # grows as it is read; there are no loops to walk round
        for new, (r, c) in enumerate(STEPS):
            step = (row + r, column + c, new, turned + (new != heading))
            if new < 2 and (step[0] == rows - 1 or step[1] == columns - 1):
                exits.setdefault(step[3], []).append(step[:2])
            elif new != (heading + 2) % 4 and not walls[step[0]][step[1]]:
                ways.append(step)
    return rng.choice(exits[rng.choice(sorted(exits))])


def ask(state: Maze, rng: random.Random) -> PathQuery:
    """What the public rows ask, each as often."""
    return PathQuery(rng.choice(("cells", "left", "right", "turns")))


def questions(state: Maze, query: PathQuery) -> tuple[str, ...]:
    """In words, two wordings."""
    asked = {
        "cells": "How many cells does it pass, with the entrance and the exit",
        "left": "How many left turns, as seen by the one who walks, does it take",
        "right": "How many right turns, as seen by the one who walks, does it take",
        "turns": "How many turns, left and right together, does it take",
    }[query.count]
    return (
        "In this maze white cells are empty and black ones are walls. One walks up, down, left "
        "or right from an empty cell to the next, from the entrance (green arrow) to the exit "
        "(blue arrow). The best way passes the fewest cells and, among those that do, takes the "
        f"fewest turns. {asked}?",
        "The green arrow enters the maze and the blue one leaves it, black is wall, no step is "
        "diagonal. Take the shortest way from arrow to arrow, of several the one with the fewest "
        f"turns. {asked}?",
    )


def steps(state: Maze, query: PathQuery) -> StrategySteps:
    """The best way run by run; or the steps to every cell from the entrance up to the exit, and the
    way back.
    """
    path = follow(state, next(iter(best_paths(state).values())))
    answer = f"answer {solve(state, query).answer}"
    runs = runs_of(path)
    walked, heading = [f"enter at {named([state.entrance])}"], None
    for way, n, end in runs:
        turn = (
            ""
            if heading is None
            else f"turn {'right' if (way - heading) % 4 == 1 else 'left'} and "
        )
        walked.append(f"{turn}go {WAYS[way]} {n} to {named([end])}")
        heading = way
    far = _distances(state, state.entrance)
    reached = [sorted(cell for cell, d in far.items() if d == n) for n in range(1, len(path))]
    waves = [f"step {n} reaches {named(wave)}" for n, wave in enumerate(reached, 1)]
    left, right = turns(path)
    if query.count == "cells":
        walk_total = f"1 + {' + '.join(str(n) for _, n, _ in runs)} = {len(path)} cells"
        totals, counted = (walk_total,), (f"{len(path) - 1} steps pass {len(path)} cells",)
    else:
        totals = (f"{left} left and {right} right turns are {left + right}",)
        bends = [(way, end) for way, _, end in runs]
        bent = [
            f"{name} turns at {named(corners(bends, by)) or 'none'}"
            for name, by in (("left", 3), ("right", 1))
        ]
        counted = (*bent, *totals)
    return {
        "walk": (*walked, *totals, answer),
        "flood": (*waves, f"the way is {named(path)}", *counted, answer),
    }


def follow(state: Maze, letters: str) -> list[Cell]:
    """The cells of a path of r/d/l/u letters."""
    path = [state.entrance]
    for letter in letters:
        down, right = STEPS["rdlu".index(letter)]
        path.append((path[-1][0] + down, path[-1][1] + right))
    return path


def check(state: Maze, query: PathQuery, steps: tuple[str, ...]) -> str | None:
    """See `suite.Module.check`. The way is walked cell by cell; the answer needs it whole and as
    short as any.
    """
    path: list[Cell] = []
    for step in steps:
        if not _holds(step, state, query, path):
            return f"{step!r} is wrong or cannot be read"
    return None if steps and steps[-1].startswith("answer ") else "there is no answer"


def _holds(step: str, state: Maze, query: PathQuery, path: list[Cell]) -> bool:
    """Whether a step is true after those before it, which made `path`; one that walks on lengthens
    it.
    """
    if step == f"enter at {named([state.entrance])}" and not path:
        path.append(state.entrance)
        return True
    if match := re.fullmatch(
        rf"(?:turn (left|right) and )?go (right|down|left|up) ([1-9]\d*) to ({SQUARE})", step
    ):
        return bool(path) and _walk(
            state, path, match[1], WAYS.index(match[2]), int(match[3]), read(match[4])[0]
        )
    if match := re.fullmatch(rf"step (\d+) reaches ({SQUARES})", step):
        far = _distances(state, state.entrance)
        return set(read(match[2])) == {cell for cell, n in far.items() if n == int(match[1])}
    if match := re.fullmatch(rf"the way is ({SQUARES})", step):
        path[:] = read(match[1])
        joined = all(other in beside(one) for one, other in zip(path, path[1:], strict=False))
        return joined and path[0] == state.entrance and all(is_open(state, cell) for cell in path)
    if not path:
        return False
    left, right = turns(path)
    if match := re.fullmatch(rf"(left|right) turns at (none|{SQUARES})", step):
        bends = [(way, end) for way, _, end in runs_of(path)]
        return read(match[2]) == corners(bends, 3 if match[1] == "left" else 1)
    if match := re.fullmatch(r"(\d+) left and (\d+) right turns are (\d+)", step):
        return tuple(map(int, match.groups())) == (left, right, left + right)
    if match := re.fullmatch(r"(\d+(?: \+ \d+)*) = (\d+) cells", step):
        return sum(map(int, match[1].split(" + "))) == int(match[2]) == len(path)
    if match := re.fullmatch(r"(\d+) steps pass (\d+) cells", step):
        return int(match[1]) + 1 == int(match[2]) == len(path)
    best = path[-1] == state.exit and (len(path), left, right) in best_paths(state)
    return best and step == f"answer {solve(state, query).answer}"


def _walk(state: Maze, path: list[Cell], turn: str | None, way: int, n: int, end: Cell) -> bool:
    """Walk `n` cells on. False when a wall is in the way, the end is another or the turn was no
    such turn.
    """
    runs = runs_of(path)
    quarter = (way - runs[-1][0]) % 4 if runs else 0
    if turn != {0: None, 1: "right", 3: "left"}.get(quarter, "back") or (runs and not quarter):
        return False
    for _ in range(n):
        path.append((path[-1][0] + STEPS[way][0], path[-1][1] + STEPS[way][1]))
        if not is_open(state, path[-1]):
            return False
    return path[-1] == end


def describe(state: Maze) -> str:
    """`maze` and the rows: # wall, . empty, E entrance, X exit."""
    marks = {state.entrance: "E", state.exit: "X"}
    rows = [
        "".join(marks.get((r, c), "#" if wall else ".") for c, wall in enumerate(row))
        for r, row in enumerate(state.walls)
    ]
    return "maze " + "/".join(rows)


def parse(text: str) -> Maze:
    """The inverse of `describe`. Raises ValueError, also where the rim is open elsewhere than at
    entrance and exit.
    """
    match = re.fullmatch(r"maze ([#.EX/]+)", text)
    rows = match[1].split("/") if match else []
    if len(rows) < 3 or len({len(row) for row in rows}) != 1 or len(rows[0]) < 3:
        raise ValueError(f"{text!r} is no maze")
    ends = {
        mark: [(r, c) for r, row in enumerate(rows) for c, cell in enumerate(row) if cell == mark]
        for mark in "EX"
    }
    rim = rows[0] + rows[-1] + "".join(row[0] + row[-1] for row in rows[1:-1])
    corners = rows[0][0] + rows[0][-1] + rows[-1][0] + rows[-1][-1]
    if [len(places) for places in ends.values()] != [1, 1] or "." in rim or corners != "####":
        raise ValueError(f"{text!r} has no one entrance and exit in its rim")
    if not all(mark in rim for mark in "EX"):
        raise ValueError(f"{text!r} has its entrance or exit inside")
    return Maze(
        tuple(tuple(cell == "#" for cell in row) for row in rows), ends["E"][0], ends["X"][0]
    )


def facts(state: Maze) -> Facts:
    """The sides, where the arrows are, and what each cell inside the rim is."""
    inside = {
        f"r{r + 1}c{c + 1}": "wall" if state.walls[r][c] else "empty"
        for r in range(1, len(state.walls) - 1)
        for c in range(1, len(state.walls[0]) - 1)
    }
    sides = {"rows": str(len(state.walls)), "columns": str(len(state.walls[0]))}
    return {**sides, "entrance": named([state.entrance]), "exit": named([state.exit]), **inside}


def change(state: Maze, rng: random.Random) -> Maze:
    """The entrance or the exit elsewhere on its side; or one cell inside the rim a wall or
    empty.
    """
    walls = [list(row) for row in state.walls]
    rows, columns = len(walls), len(walls[0])
    entrance, exit_ = state.entrance, state.exit
    which = rng.choice(("entrance", "exit", "cell", "cell"))
    if which == "cell":
        row, column = rng.randrange(1, rows - 1), rng.randrange(1, columns - 1)
        walls[row][column] = not walls[row][column]
        return Maze(tuple(map(tuple, walls)), entrance, exit_)
    row, column = end = entrance if which == "entrance" else exit_
    if column in (0, columns - 1):
        side = [(r, column) for r in range(1, rows - 1)]
    else:
        side = [(row, c) for c in range(1, columns - 1)]
    side = [
        cell
        for cell in side
        if any(is_open(state, inner) for inner in beside(cell) if inner not in side)
    ]
    new = rng.choice([cell for cell in side if cell not in (entrance, exit_)] or [end])
    walls[row][column], walls[new[0]][new[1]] = True, False
    return Maze(
        tuple(map(tuple, walls)), *((new, exit_) if which == "entrance" else (entrance, new))
    )


def distractors(state: Maze, query: PathQuery) -> list[str]:
    """Cells of the same parity (all ways in a maze have it); turns of the other kinds and numbers
    nearby.
    """
    right = int(solve(state, query).answer)
    if query.count == "cells":
        return [str(right + by) for by in (-6, -4, -2, 2, 4, 6) if right + by > 2]
    kinds = {
        count
        for _, left, right_turns in best_paths(state)
        for count in (left, right_turns, left + right_turns)
    }
    return [str(n) for n in sorted(kinds | set(range(max(0, right - 2), right + 4)))]


def render(state: Maze, size: int, style: int = 0) -> Image.Image:
    """Black walls; a green arrow into the entrance and a blue one out of the exit."""
    image, pen = paper(size, style)
    rows, columns = len(state.walls), len(state.walls[0])
    for r, c, box in cells(rows, columns, (2, 2, size - 2, size - 2)):
        wall = state.walls[r][c]
        pen.rectangle(box, WALL if wall else OPEN, WALL if wall else LINE)
        if (r, c) in (state.entrance, state.exit):
            outward = STEPS[0 if c == columns - 1 else 2 if c == 0 else 1 if r == rows - 1 else 3]
            down, right = outward if (r, c) == state.exit else (-outward[0], -outward[1])
            (x, y), reach = centre(box), (box[2] - box[0]) * 0.42
            tip, back = (x + right * reach, y + down * reach), (x - right * reach, y - down * reach)
            wings = [(back[0] + down * reach * k, back[1] + right * reach * k) for k in (0.9, -0.9)]
            pen.polygon([tip, *wings], GREEN if (r, c) == state.entrance else BLUE)
    return image
