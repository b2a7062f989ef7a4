"""From the published rows of AlgoPuzzleVQA to our states and questions: one reader a type.

A reader sees the question and the initial part of `solution`. A question in words it does not know
is an error.
"""

import re
from calendar import isleap
from collections.abc import Callable
from datetime import date
from fractions import Fraction
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
    rotting_kiwi,
    rubiks_cube,
    think_dot,
    tower_of_hanoi,
    water_jugs,
    wheel_of_fortune,
    wood_slide,
)
from franken.tasks.puzzles import map as map_puzzle
from franken.tasks.puzzles.map_polygons import adjacency
from franken.tasks.puzzles.solved import Solved

Read = tuple[Any, Any]  # state, query
Given = dict[str, Any]


def _find(pattern: str, question: str) -> re.Match[str]:
    match = re.search(pattern, question, re.IGNORECASE)
    if match is None:
        raise FrankenError(
            "the question is in words we do not know", why=f"nothing in it matches {pattern!r}"
        )
    return match


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
        r"Which day of the week (?:was|is|will be) on (\w+) (\d+) of "
        r"(that|the previous|the next) year",
        question,
    ).groups()
    month = calendar.MONTHS.index(month_name.capitalize()) + 1
    year = {"that": 0, "the previous": -1, "the next": 1}[which.lower()]
    other = leap
    if year:
        other = (
            _find(rf"{which} year (?:was|is|will be) a (non-leap|leap) year", question)[1].lower()
            == "leap"
        )
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
    open_pieces, *counts = given["steps"][
        0
    ]  # then how many closed segments there are of length 1, 2, …
    segments = tuple(length for length, count in enumerate(counts, 1) for _ in range(count))
    return chain_link.Chains(open_pieces, segments), chain_link.Times(cut, weld)


def _checker_move(question: str, given: Given) -> Read:
    _find("How many moves are required to reach the ending configuration", question)
    return checker_move.Checkers(
        given["start_position"], given["end_position"]
    ), checker_move.Moves()


def _colour_hue(question: str, given: Given) -> Read:
    _find("minimum number of swaps", question)
    ideal, shuffled = (
        tuple(tuple(tile) for row in given[k] for tile in row)
        for k in ("ideal_grid", "shuffled_grid")
    )
    rows = len(given["ideal_grid"])
    return colour_hue.Hues(ideal, shuffled, rows), colour_hue.Swaps()  # pyright: ignore[reportArgumentType]


def _clock(question: str, given: Given) -> Read:
    length = r"(?:(\d+) hours?)?(?: and)? ?(?:(\d+) minutes?)?"
    match = _find(rf"is going to start in {length}\.|came to an event {length} ago", question)
    hours, minutes, hours_ago, minutes_ago = (int(g) if g else 0 for g in match.groups())
    shift = hours * 60 + minutes - hours_ago * 60 - minutes_ago
    return clock.Clock(given["current_hour"], given["current_minute"]), clock.Shift(shift)


def _n_queens(question: str, given: Given) -> Read:
    _find("Manhattan distance between these two squares", question)
    if given["rows"] != given["columns"]:
        raise ValueError(f"the board is {given['rows']} * {given['columns']}, not square")
    return n_queens.Queens(
        given["rows"], _cells(given["given_queen_positions"])
    ), n_queens.Distance()


def _maze(question: str, given: Given) -> Read:
    walls = tuple(tuple(bool(cell) for cell in row) for row in given["maze"])
    rim = [(r, c) for r, row in enumerate(walls) for c in range(len(row)) if not row[c]]
    rim = [(r, c) for r, c in rim if r in (0, len(walls) - 1) or c in (0, len(walls[r]) - 1)]
    if len(rim) != 2:
        raise ValueError(
            f"the maze has {len(rim)} openings in its rim, not an entrance and an exit"
        )
    entrance, exit_ = sorted(
        rim, key=lambda cell: (cell[1], cell[0])
    )  # the entrance is drawn on the left
    asked = _find(
        r"number of (left) turns|number of (right) turns|number of (left and right) turns|"
        r"How many (cells)",
        _last_sentence(question),  # the one before it speaks of the fewest turns
    )
    count = {"left and right": "turns"}.get(
        word := next(g.lower() for g in asked.groups() if g), word
    )
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
            r"the (maximum number in|minimum number in|sum of numbers of) the (row|column) "
            r"which now has",
            question,
        ).groups()
        return state, number_slide.AfterPath(path, what.split()[0].lower(), line.lower())  # pyright: ignore
    if re.search("How many unique final board positions", question):
        return state, number_slide.Boards(moves)
    best, edge = _find(
        r"(maximum|minimum) sum that you can achieve across the (top|bottom|left|right) most",
        question,
    ).groups()
    return state, number_slide.BestSum(moves, best.lower(), edge.lower())  # pyright: ignore[reportArgumentType]


def _map(question: str, given: Given) -> Read:
    _find("How many unique complete maps can be created", question)
    polygons = {
        int(n): tuple((float(x), float(y)) for x, y in points)
        for n, points in given["polygon_vertices"].items()
    }
    known = tuple(
        sorted((int(n), colour.capitalize()) for n, colour in given["known_colours"].items())
    )
    named = _find(r"available colours: ([a-z, ]+), such that", question)[1]
    colours = tuple(colour.capitalize() for colour in re.split(r", | and ", named))
    state = map_puzzle.Map(tuple(sorted(polygons)), adjacency(polygons), known)
    return state, map_puzzle.Completions(colours)


def _rotting_kiwi(question: str, given: Given) -> Read:
    _find("minimum number of minutes that must elapse until no cell has a fresh kiwi", question)
    (grid,) = given["timestep"].values()
    ids = given.get("ids") or {"empty": 0, "fresh": 1, "rotten": 2}
    ours = {
        ids["empty"]: rotting_kiwi.EMPTY,
        ids["fresh"]: rotting_kiwi.FRESH,
        ids["rotten"]: rotting_kiwi.ROTTEN,
    }
    return rotting_kiwi.Kiwis(
        tuple(tuple(ours[cell] for cell in row) for row in grid)
    ), rotting_kiwi.Minutes()


def _rubiks_cube(question: str, given: Given) -> Read:
    state = rubiks_cube.Cube(
        tuple(_cells(given["start_position"][face]) for face in rubiks_cube.FACES)
    )
    sequence = _find(r"perform the move sequence '([^']*)'", question)[1].split()
    letters = {face[0].upper(): face for face in rubiks_cube.FACES}
    if bad := [turn for turn in sequence if not re.fullmatch(r"[UDLRFB]\d*", turn)]:
        raise ValueError(f"{bad[0]!r} is no turn")
    turns = tuple((letters[turn[0]], int(turn[1:] or 1)) for turn in sequence)
    colour, face = _find(
        r"number of small 1 \* 1 (\w+) squares in the (\w+) face", question
    ).groups()
    if face.lower() not in rubiks_cube.FACES:
        raise ValueError(f"there is no {face} face")
    return state, rubiks_cube.CountAfter(turns, face.lower(), colour.lower())


def _think_dot(question: str, given: Given) -> Read:
    named = _find(
        r"through the following holes: ([a-z, ]+)\.|through the (left|right|center) hole\.",
        question,
    )
    holes = tuple((named[1] or named[2]).lower().split(", "))
    colour, row = _find(
        r"How many (yellow|blue) faces can be seen in (total|the \w+ row)", question
    ).groups()
    row = "all" if row == "total" else row.split()[1].lower()
    query = think_dot.FacesAfter(holes, colour.lower(), row)  # pyright: ignore[reportArgumentType]
    return think_dot.Toy(_cells(given["start_state"])), query


def _tower_of_hanoi(question: str, given: Given) -> Read:
    _find("minimum number of moves required to go from the starting to the ending", question)
    return tower_of_hanoi.Hanoi(
        _cells(given["start_position"]), _cells(given["end_position"])
    ), tower_of_hanoi.Moves()


def _water_jugs(question: str, given: Given) -> Read:
    _find("minimum number of water pouring steps", question)
    capacities = _find(r"jugs of capacities ([\d, ]+?) litres", question)[1]
    goal = _find(
        r"reach the amounts of ([\d, ]+?) litres of water in the jugs from left to right", question
    )[1]
    jugs = water_jugs.Jugs(tuple(map(int, capacities.split(", "))), tuple(given["start"]))
    reach = water_jugs.Reach(tuple(map(int, goal.split(", "))))
    if not len(jugs.capacities) == len(jugs.water) == len(reach.goal):
        raise ValueError("capacities, contents and goal are not of as many jugs")
    return jugs, reach


def _wheel_of_fortune(question: str, given: Given) -> Read:
    _find("What is your prize", question)
    way, degrees, rotations = _find(
        r"spin the wheel (clockwise|counterclockwise|anticlockwise) and it "
        r"(?:rotates ([\d.]+) degrees?|makes ([\d.]+) (?:full )?rotations?) before",
        question,
    ).groups()
    turn = Fraction(degrees) if degrees else Fraction(rotations) * 360
    starts, angles = (
        tuple(Fraction(str(a)) for a in given[k]) for k in ("original_boundaries", "angles")
    )
    wheel = wheel_of_fortune.Wheel(
        starts, angles, tuple(given["original_prizes"]), Fraction(str(given["arrow_at"]))
    )
    return wheel, wheel_of_fortune.Spin(-turn if way.lower() == "clockwise" else turn)


def _wood_slide(question: str, given: Given) -> Read:
    _find("minimum number of moves required to reach the ending configuration", question)
    start, end = (tuple(given[k].split()) for k in ("start_position", "end_position"))
    return wood_slide.Blocks(start, end), wood_slide.Moves()


READERS: dict[str, tuple[Callable[..., Solved], Callable[[str, Given], Read]]] = {
    "board_tile": (board_tile.solve, _board_tile),
    "calendar": (calendar.solve, _calendar),
    "chain_link": (chain_link.solve, _chain_link),
    "checker_move": (checker_move.solve, _checker_move),
    "colour_hue": (colour_hue.solve, _colour_hue),
    "clock": (clock.solve, _clock),
    "map": (map_puzzle.solve, _map),
    "maze": (maze.solve, _maze),
    "move_box": (move_box.solve, _move_box),
    "n_queens": (n_queens.solve, _n_queens),
    "number_slide": (number_slide.solve, _number_slide),
    "rotting_kiwi": (rotting_kiwi.solve, _rotting_kiwi),
    "rubiks_cube": (rubiks_cube.solve, _rubiks_cube),
    "think_dot": (think_dot.solve, _think_dot),
    "tower_of_hanoi": (tower_of_hanoi.solve, _tower_of_hanoi),
    "water_jugs": (water_jugs.solve, _water_jugs),
    "wheel_of_fortune": (wheel_of_fortune.solve, _wheel_of_fortune),
    "wood_slide": (wood_slide.solve, _wood_slide),
}
