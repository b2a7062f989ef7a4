"""From the published rows of AlgoPuzzleVQA to our states and questions: one reader a type.

A reader sees the question and the initial part of `solution`. A question in words it does not know is an error.
"""

import re
from calendar import isleap
from collections.abc import Callable
from datetime import date
from typing import Any

from franken.errors import FrankenError
from franken.tasks.puzzles import (
    board_tile,
    calendar,
    chain_link,
    checker_move,
    clock,
    colour_hue,
    maze,
    move_box,
    n_queens,
    number_slide,
)
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


def _board_tile(question: str, given: Given) -> Read:
    _find("Is it possible to place all the \\d+ dominoes in the checkerboard", question)
    removed = frozenset(_cells(given["removed_positions"]))
    return board_tile.Board(given["rows"], given["columns"], removed), board_tile.Coverable()


def _calendar(question: str, given: Given) -> Read:
    leap = _find(r"month of a particular (non-leap|leap) year", question)[1].lower() == "leap"
    month_name, day, which = _find(
        r"Which day of the week (?:was|is|will be) on (\w+) (\d+) of (that|the previous|the next) year", question
    ).groups()
    month = calendar.MONTHS.index(month_name.capitalize()) + 1
    year = {"that": 0, "the previous": -1, "the next": 1}[which.lower()]
    other = leap
    if year:
        other = _find(rf"{which} year (?:was|is|will be) a (non-leap|leap) year", question)[1].lower() == "leap"
    for offset, said in ((0, leap), (year, other)):
        if isleap(given["image_year"] + offset) != said:
            raise ValueError(f"the question's leap years are not those of {given['image_year']}")
    first = date(given["image_year"], given["image_month"][0], 1).weekday()
    return (
        calendar.Page(given["image_month"][0], first, leap),
        calendar.Date(year, month, int(day), other),  # pyright: ignore[reportArgumentType]
    )


def _chain_link(question: str, given: Given) -> Read:
    cut = int(_find(r"Each cut takes (\d+) minutes?", question)[1])
    weld = int(_find(r"each (?:welding|weld|join) takes (\d+) minutes?", question)[1])
    _find("What is the minimum time", question)
    open_pieces, *counts = given["steps"][0]  # then how many closed segments there are of length 1, 2, …
    segments = tuple(length for length, count in enumerate(counts, 1) for _ in range(count))
    return chain_link.Chains(open_pieces, segments), chain_link.Times(cut, weld)


def _checker_move(question: str, given: Given) -> Read:
    _find("How many moves are required to reach the ending configuration", question)
    return checker_move.Checkers(given["start_position"], given["end_position"]), checker_move.Moves()


def _colour_hue(question: str, given: Given) -> Read:
    _find("minimum number of swaps", question)
    ideal, shuffled = (tuple(tuple(tile) for row in given[k] for tile in row) for k in ("ideal_grid", "shuffled_grid"))
    return colour_hue.Hues(ideal, shuffled), colour_hue.Swaps()  # pyright: ignore[reportArgumentType]


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
    "board_tile": (board_tile.solve, _board_tile),
    "calendar": (calendar.solve, _calendar),
    "chain_link": (chain_link.solve, _chain_link),
    "checker_move": (checker_move.solve, _checker_move),
    "colour_hue": (colour_hue.solve, _colour_hue),
    "clock": (clock.solve, _clock),
    "maze": (maze.solve, _maze),
    "move_box": (move_box.solve, _move_box),
    "n_queens": (n_queens.solve, _n_queens),
    "number_slide": (number_slide.solve, _number_slide),
}
