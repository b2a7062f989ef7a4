"""Maze: the shortest path with the fewest turns from the entrance to the exit; its cells and its turns."""

from collections import deque
from dataclasses import dataclass
from typing import Literal

from franken.tasks.puzzles.solved import Solved, Unsolvable, the_one

Cell = tuple[int, int]  # row, column, from the top left, from 0
STEPS = ((0, 1), (1, 0), (0, -1), (-1, 0))  # right, down, left, up: each a right turn after the one before


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
    """The count. Raises Unsolvable where there is no path, or where best paths differ in what is asked."""
    best = best_paths(state)
    if not best:
        raise Unsolvable("there is no path", why=f"no open way leads from {state.entrance} to {state.exit}")
    answers: dict[str, str] = {}
    for (cells, left, right), path in best.items():
        count = {"cells": cells, "left": left, "right": right, "turns": left + right}[query.count]
        answers[str(count)] = f"{cells} cells, {left} left and {right} right turns: {path}"
    return the_one(answers, f"the number of {query.count} on the best path")


def best_paths(state: Maze) -> dict[tuple[int, int, int], str]:
    """(cells, left turns, right turns) of each kind of best path, with one such path as r/d/l/u letters.

    Best is fewest cells, then fewest turns. Walked layer by layer, so that every shortest path is counted.
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
                    following[(cell, new, lefts + (turn == 3), rights + (turn == 1))] = path + "rdlu"[new]
        layer = following
    fewest = min(lefts + rights for _, _, lefts, rights in layer)
    cells = to_exit[state.entrance] + 1
    return {(cells, a, b): path for (_, _, a, b), path in layer.items() if a + b == fewest}


def _distances(state: Maze, start: Cell) -> dict[Cell, int]:
    found = {start: 0}
    queue = deque([start])
    while queue:
        row, column = queue.popleft()
        for down, right in STEPS:
            cell = (row + down, column + right)
            if cell not in found and is_open(state, cell):
                found[cell] = found[(row, column)] + 1
                queue.append(cell)
    return found


def is_open(state: Maze, cell: Cell) -> bool:
    """Whether a cell is on the board and not blocked."""
    row, column = cell
    return 0 <= row < len(state.walls) and 0 <= column < len(state.walls[row]) and not state.walls[row][column]
