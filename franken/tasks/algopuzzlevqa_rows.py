"""From the published rows of AlgoPuzzleVQA to our states and questions: one reader a type.

A reader sees the question and the initial part of `solution`. A question in words it does not know is an error.
"""

import re
from collections.abc import Callable
from typing import Any

from franken.errors import FrankenError
from franken.tasks.puzzles import clock, maze, move_box, n_queens, number_slide
from franken.tasks.puzzles.solved import Solved

Read = tuple[Any, Any]  # state, query
Given = dict[str, Any]


def _find(pattern: str, question: str) -> re.Match[str]:
    found = re.search(pattern, question, re.IGNORECASE)
    if found is None:
        raise FrankenError("the question is in words we do not know", why=f"nothing in it matches {pattern!r}")
    return found


def _last_sentence(question: str) -> str:
    return re.split(r"(?<=[.?!])\s+", question.strip())[-1]


def _cells(rows: list[list[Any]]) -> tuple[tuple[Any, ...], ...]:
    return tuple(map(tuple, rows))


def _clock(question: str, given: Given) -> Read:
    length = r"(?:(\d+) hours?)?(?: and)? ?(?:(\d+) minutes?)?"
    found = _find(rf"is going to start in {length}\.|came to an event {length} ago", question)
    hours, minutes, hours_ago, minutes_ago = (int(g) if g else 0 for g in found.groups())
    shift = hours * 60 + minutes - hours_ago * 60 - minutes_ago
    return clock.Clock(given["current_hour"], given["current_minute"]), clock.Shift(shift)


def _n_queens(question: str, given: Given) -> Read:
    _find("Manhattan distance between these two squares", question)
    if given["rows"] != given["columns"]:
        raise ValueError(f"the board is {given['rows']} * {given['columns']}, not square")
    return n_queens.Queens(given["rows"], _cells(given["given_queen_positions"])), n_queens.Distance()


def _maze(question: str, given: Given) -> Read:
    walls = tuple(tuple(bool(cell) for cell in row) for row in given["maze"])
    rim = [(r, c) for r, row in enumerate(walls) for c in range(len(row)) if not row[c]]
    rim = [(r, c) for r, c in rim if r in (0, len(walls) - 1) or c in (0, len(walls[r]) - 1)]
    if len(rim) != 2:
        raise ValueError(f"the maze has {len(rim)} openings in its rim, not an entrance and an exit")
    entrance, exit_ = sorted(rim, key=lambda cell: (cell[1], cell[0]))  # the entrance is drawn on the left
    asked = _find(
        r"number of (left) turns|number of (right) turns|number of (left and right) turns|How many (cells)",
        _last_sentence(question),  # the one before it speaks of the fewest turns
    )
    count = {"left and right": "turns"}.get(word := next(g.lower() for g in asked.groups() if g), word)
    return maze.Maze(walls, entrance, exit_), maze.PathQuery(count)  # pyright: ignore[reportArgumentType]


def _move_box(question: str, given: Given) -> Read:
    _find("minimum number of pushes", question)
    (grid,) = given["timestep"].values()
    ids = given.get("ids") or {"brick": "#", "box": "B", "person": "S", "target": "T"}
    at = {cell: (r, c) for r, row in enumerate(grid) for c, cell in enumerate(row)}
    walls = tuple(tuple(cell == ids["brick"] for cell in row) for row in grid)
    target = at.get(ids["target"]) or tuple(given["target"])
    return move_box.Warehouse(walls, at[ids["person"]], at[ids["box"]], target), move_box.Pushes()


def _number_slide(question: str, given: Given) -> Read:
    state = number_slide.Slide(_cells(given["starting_grid"]))
    moves = int(_find(r"exactly (\d+) moves?", question)[1])
    track = re.search(r"following sequence: ([a-z, ]+)\.", question)
    if track:
        path = tuple(track[1].split(", "))
        if len(path) != moves:
            raise ValueError(f"the question says {moves} moves and names {len(path)}")
        what, line = _find(
            r"the (maximum number in|minimum number in|sum of numbers of) the (row|column) which now has", question
        ).groups()
        return state, number_slide.AfterPath(path, what.split()[0].lower(), line.lower())  # pyright: ignore
    if re.search("How many unique final board positions", question):
        return state, number_slide.Boards(moves)
    best, edge = _find(
        r"(maximum|minimum) sum that you can achieve across the (top|bottom|left|right) most", question
    ).groups()
    return state, number_slide.BestSum(moves, best.lower(), edge.lower())  # pyright: ignore[reportArgumentType]


READERS: dict[str, tuple[Callable[..., Solved], Callable[[str, Given], Read]]] = {
    "clock": (clock.solve, _clock),
    "maze": (maze.solve, _maze),
    "move_box": (move_box.solve, _move_box),
    "n_queens": (n_queens.solve, _n_queens),
    "number_slide": (number_slide.solve, _number_slide),
}
