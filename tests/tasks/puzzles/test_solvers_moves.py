"""Solvers of puzzles of moves, times and turns against independent brute force, closed forms and
public end states.
"""

import json
import random
from datetime import date, datetime, timedelta
from fractions import Fraction
from itertools import permutations, product

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from public_data import needs, public

from franken.tasks.puzzles import (
    calendar,
    chain_link,
    checker_move,
    clock,
    rubiks_cube,
    think_dot,
    tower_of_hanoi,
    water_jugs,
    wheel_of_fortune,
    wood_slide,
)
from franken.tasks.puzzles.solved import Unsolvable

PUBLIC = public("algopuzzlevqa")


def answer_of(solver, *arguments) -> str | None:
    try:
        return solver(*arguments).answer
    except Unsolvable:
        return None


def levels(start, goal, after) -> str | None:
    """The number of rounds until `goal` is among all that can be reached; whole sets, no queue."""
    seen, rounds = {start}, 0
    while goal not in seen:
        grown = seen | {state for s in seen for state in after(s)}
        if grown == seen:
            return None
        seen, rounds = grown, rounds + 1
    return str(rounds)


@given(st.integers(1, 12), st.integers(0, 59), st.integers(-1500, 1500))
def test_clock_against_datetime(hour, minute, shift):
    then = datetime(2000, 1, 5, hour % 12, minute) + timedelta(minutes=shift)
    answer = clock.solve(clock.Clock(hour, minute), clock.Shift(shift)).answer
    assert answer == then.strftime("%I:%M").lstrip("0")


@given(
    st.dates(date(1600, 1, 1), date(2900, 12, 31)), st.sampled_from((-1, 0, 1)), st.integers(1, 12)
)
def test_calendar_against_datetime(asked, offset, month):
    year = asked.year - offset
    leap = {y: (date(y + 1, 1, 1) - date(y, 1, 1)).days == 366 for y in (year, asked.year)}
    page = calendar.Page(month, date(year, month, 1).weekday(), leap[year])
    query = calendar.Date(offset, asked.month, asked.day, leap[asked.year])
    assert calendar.solve(page, query).answer == asked.strftime("%A")


def test_there_is_no_thirtieth_of_february():
    with pytest.raises(Unsolvable):
        calendar.solve(calendar.Page(1, 0, False), calendar.Date(0, 2, 29, False))


def closes(pieces: tuple[int, tuple[int, ...]]) -> bool:
    """Whether some ring of the open pieces and the closed segments has no two closed ones side by
    side.
    """
    opened, closed = pieces[0], len(pieces[1])
    return any(
        not any(ring[i] == ring[i - 1] == "closed" for i in range(len(ring)))
        for ring in set(permutations(["open"] * opened + ["closed"] * closed))
    )


def cut_anywhere(pieces):
    opened, segments = pieces
    for i, length in enumerate(segments):
        for at in range(length):
            rest = [part for part in (at, length - 1 - at) if part]
            yield opened + 1, tuple(sorted([*segments[:i], *segments[i + 1 :], *rest]))


@settings(max_examples=40, deadline=None)
@given(
    st.integers(0, 3),
    st.lists(st.integers(1, 4), min_size=1, max_size=4),
    st.integers(1, 5),
    st.integers(1, 5),
)
def test_chain_link_against_every_cut(opened, segments, cut, weld):
    state = chain_link.Chains(opened, tuple(segments))
    if opened + sum(segments) < 3:
        assert answer_of(chain_link.solve, state, chain_link.Times(cut, weld)) is None
        return
    reached, cuts = {(opened, tuple(sorted(segments)))}, 0
    while not any(closes(pieces) for pieces in reached):
        reached, cuts = {after for pieces in reached for after in cut_anywhere(pieces)}, cuts + 1
    expected = cuts * cut + (opened + cuts) * weld
    assert chain_link.solve(state, chain_link.Times(cut, weld)).answer == str(expected)


def rewrite(row: str):
    """The four rules as rewriting of words."""
    for old, new in (("G_", "_G"), ("_R", "R_"), ("GR_", "_RG"), ("_GR", "RG_")):
        for at in range(len(row)):
            if row.startswith(old, at):
                yield row[:at] + new + row[at + len(old) :]


@given(st.text("GR_", min_size=2, max_size=6), st.integers(0, 6), st.randoms(use_true_random=False))
def test_checker_move_against_rewriting(start, moves, rng: random.Random):
    end = start
    for _ in range(moves):
        end = rng.choice([*rewrite(end), end])
    assert checker_move.solve(checker_move.Checkers(start, end)).answer == levels(
        start, end, rewrite
    )
    back = checker_move.Checkers(end, start)
    assert answer_of(checker_move.solve, back) == levels(end, start, rewrite)


@pytest.mark.parametrize(("green", "red"), [(1, 1), (1, 4), (2, 2), (2, 3), (3, 3)])
def test_checkers_that_change_sides_take_the_known_number_of_moves(green, red):
    row = checker_move.Checkers("G" * green + "_" + "R" * red, "R" * red + "_" + "G" * green)
    assert checker_move.solve(row).answer == str(green * red + green + red)


def by_disk(rods):
    return tuple(
        next(i for i, rod in enumerate(rods) if disk in rod) for disk in sorted(sum(rods, ()))
    )


def move_disk(places):
    """Disk d may go from a to b when no smaller disk stands on either."""
    for disk, at in enumerate(places):
        for to in range(3):
            if to != at and at not in places[:disk] and to not in places[:disk]:
                yield (*places[:disk], to, *places[disk + 1 :])


@given(st.lists(st.tuples(st.integers(0, 2), st.integers(0, 2)), min_size=1, max_size=5))
def test_hanoi_against_a_search_over_places_of_disks(places):
    starts, ends = zip(*places, strict=True)
    rods = [
        tuple(tuple(d + 1 for d in reversed(range(len(p))) if p[d] == rod) for rod in range(3))
        for p in (starts, ends)
    ]
    assert by_disk(rods[0]) == starts
    assert tower_of_hanoi.solve(tower_of_hanoi.Hanoi(*rods)).answer == levels(
        starts, ends, move_disk
    )


@pytest.mark.parametrize("n", [1, 3, 6])
def test_a_whole_tower_takes_two_to_the_n_less_one(n):
    tower = tuple(range(n, 0, -1))
    assert tower_of_hanoi.solve(
        tower_of_hanoi.Hanoi((tower, (), ()), ((), (), tower))
    ).answer == str(2**n - 1)


def test_a_disk_on_a_smaller_one_is_no_state():
    with pytest.raises(Unsolvable, match="smaller"):
        tower_of_hanoi.solve(tower_of_hanoi.Hanoi(((1, 2), (), ()), ((2, 1), (), ())))


@given(
    st.lists(
        st.tuples(st.integers(1, 6), st.integers(0, 6), st.integers(0, 6)), min_size=2, max_size=3
    )
)
def test_water_jugs_against_pouring_drop_by_drop(jugs):
    capacities = [c for c, _, _ in jugs]
    start, goal = (tuple(min(j[k], j[0]) for j in jugs) for k in (1, 2))

    def pour(water):
        for a, b in permutations(range(len(water)), 2):
            held = list(water)
            while held[a] > 0 and held[b] < capacities[b]:
                held[a], held[b] = held[a] - 1, held[b] + 1
            yield tuple(held)

    state = water_jugs.Jugs(tuple(capacities), start)
    assert answer_of(water_jugs.solve, state, water_jugs.Reach(goal)) == levels(start, goal, pour)


@given(
    st.integers(0, 23),
    st.integers(0, 71),
    st.integers(-80, 80),
    st.lists(st.integers(1, 5), min_size=2, max_size=6),
)
def test_wheel_against_turning_it_step_by_step(first, arrow, steps, weights):
    """A wheel of 72 slots of five degrees that turns slot by slot; the arrow points at the middle
    of a slot.
    """
    weights = [*weights, 72 - sum(weights)]
    slots: list[int] = []
    for prize, weight in enumerate(weights):
        slots += [prize] * weight
    slots = slots[-first:] + slots[:-first] if first else slots
    starts = [Fraction(5 * ((first + sum(weights[:i])) % 72)) for i in range(len(weights))]
    for _ in range(abs(steps)):
        slots = slots[-1:] + slots[:-1] if steps > 0 else slots[1:] + slots[:1]
    wheel = wheel_of_fortune.Wheel(
        tuple(starts),
        tuple(Fraction(5 * w) for w in weights),
        tuple(map(str, range(len(weights)))),
        5 * arrow + Fraction(5, 2),
    )
    assert wheel_of_fortune.solve(wheel, wheel_of_fortune.Spin(Fraction(5 * steps))).answer == str(
        slots[arrow]
    )


def test_an_arrow_between_two_prizes_has_no_answer():
    half = (Fraction(180), Fraction(180))
    wheel = wheel_of_fortune.Wheel((Fraction(0), Fraction(180)), half, ("a", "b"), Fraction(90))
    with pytest.raises(Unsolvable, match="2 answers"):
        wheel_of_fortune.solve(wheel, wheel_of_fortune.Spin(Fraction(-90)))


SHAPES = {"1": (2, 2), "2": (1, 2), "3": (2, 1), "4": (1, 1)}


def placed(corners) -> tuple[str, ...] | None:
    """The grid of 3 × 4 with each block at its corner; None where two overlap or one sticks out."""
    cells: dict[tuple[int, int], str] = {}
    for name, (r, c) in corners:
        for dr, dc in product(range(SHAPES[name][0]), range(SHAPES[name][1])):
            if (r + dr, c + dc) in cells or not (0 <= r + dr < 3 and 0 <= c + dc < 4):
                return None
            cells[(r + dr, c + dc)] = name
    return tuple("".join(cells.get((r, c), "0") for c in range(4)) for r in range(3))


def nudge(corners):
    for i, (name, (r, c)) in enumerate(corners):
        for dr, dc in ((0, 1), (1, 0), (0, -1), (-1, 0)):
            after = (*corners[:i], (name, (r + dr, c + dc)), *corners[i + 1 :])
            if placed(after):
                yield after


@settings(max_examples=60, deadline=None)
@given(
    st.randoms(use_true_random=False),
    st.sets(st.sampled_from("1234"), min_size=1),
    st.integers(0, 5),
)
def test_wood_slide_against_moving_corners(rng: random.Random, names, moves):
    corners = None
    while corners is None or placed(corners) is None:
        corners = tuple((name, (rng.randrange(3), rng.randrange(4))) for name in sorted(names))
    end = corners
    for _ in range(moves):
        end = rng.choice([*nudge(end), end])
    start_grid, end_grid = placed(corners), placed(end)
    assert start_grid is not None
    assert end_grid is not None
    assert wood_slide.solve(wood_slide.Blocks(start_grid, end_grid)).answer == levels(
        corners, end, nudge
    )


def solved_cube(size: int) -> rubiks_cube.Cube:
    return rubiks_cube.Cube(tuple(((name,) * size,) * size for name in rubiks_cube.FACES))


def turned(cube, sequence: str):
    letters = {face[0].upper(): face for face in rubiks_cube.FACES}
    for letter in sequence:
        cube = rubiks_cube.turn(cube, letters[letter])
    return cube


@pytest.mark.parametrize(
    ("sequence", "order"),
    [
        ("U", 4),
        ("RU", 105),
        ("RURRRUUU", 6),
        ("FB", 4),
        ("RRUU", 6),
        ("LLLLF", 4),
        ("RUUDDDBDDD", 1260),
    ],
)
def test_cube_sequences_have_their_known_orders(sequence, order):
    """The order of a sequence in the cube's group: a wrong turn anywhere changes them."""
    names = iter(range(54))
    marked = rubiks_cube.Cube(
        tuple(tuple(tuple(str(next(names)) for _ in range(3)) for _ in range(3)) for _ in range(6))
    )
    cube, repeats = turned(marked, sequence), 1
    while cube != marked:
        cube, repeats = turned(cube, sequence), repeats + 1
    assert repeats == order


def test_half_turns_of_opposite_faces_make_the_chequered_cube():
    cube = turned(solved_cube(3), "RRLLUUDDFFBB")
    for face in cube.faces:
        centre, edge = face[1][1], face[0][1]
        assert centre != edge
        chequered = ((centre, edge, centre), (edge, centre, edge), (centre, edge, centre))
        assert face == chequered


@needs("algopuzzlevqa")
def test_cubes_end_as_published():
    for line in (PUBLIC / "rubiks_cube.json").read_text().splitlines():
        solution = json.loads(line)["solution"]
        start, end = (
            rubiks_cube.Cube(
                tuple(tuple(map(tuple, solution[k][face])) for face in rubiks_cube.FACES)
            )
            for k in ("start_position", "end_position")
        )
        sequence = "".join(turn[0] * int(turn[1:] or 1) for turn in solution["moves"].split())
        assert turned(start, sequence) == end


@needs("algopuzzlevqa")
def test_toys_end_as_published():
    for line in (PUBLIC / "think_dot.json").read_text().splitlines():
        solution = json.loads(line)["solution"]
        toy = think_dot.Toy(tuple(map(tuple, solution["start_state"])))
        for hole, after in zip(solution["moves"], solution["state_after_moves"], strict=True):
            toy = think_dot.drop(toy, hole)
            assert toy == think_dot.Toy(tuple(map(tuple, after)))


@given(
    st.lists(st.sampled_from(("blue", "yellow")), min_size=8, max_size=8),
    st.lists(st.sampled_from(think_dot.HOLES), max_size=6),
)
def test_think_dot_against_balls_that_fall_by_columns(faces, holes):
    """Discs at columns 0, 2, 4 / 1, 3 / 0, 2, 4: a ball moves one column aside, and along the wall
    where there is none.
    """
    rows = [
        dict(zip((0, 2, 4), faces, strict=False)),
        dict(zip((1, 3), faces[3:], strict=False)),
        dict(zip((0, 2, 4), faces[5:], strict=False)),
    ]
    blue_right = {(0, 0), (0, 4)}
    for hole in holes:
        column, row = 2 * think_dot.HOLES.index(hole), 0
        while row < 3:
            if column in rows[row]:
                blue = rows[row][column] == "blue"
                rows[row][column] = "yellow" if blue else "blue"
                aside = 1 if blue == ((row, column) in blue_right) else -1
                if row < 2:
                    column += aside
            else:
                column = min(max(column, 0), 4)
                row -= 1 if column in rows[row] else 0
            row += 1
    toy = think_dot.Toy((tuple(faces[:3]), tuple(faces[3:5]), tuple(faces[5:])))
    for row in ("top", "middle", "bottom", "all"):
        shown = [
            f
            for r, name in zip(rows, think_dot.ROWS, strict=True)
            if row in (name, "all")
            for f in r.values()
        ]
        query = think_dot.FacesAfter(tuple(holes), "blue", row)
        assert think_dot.solve(toy, query).answer == str(shown.count("blue"))
