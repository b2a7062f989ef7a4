"""Solvers of board puzzles against independent brute force on small states."""

import math
import random
from itertools import combinations, permutations, product

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from franken.tasks.puzzles import (
    board_tile,
    colour_hue,
    maze,
    move_box,
    n_queens,
    number_slide,
    rotting_kiwi,
)
from franken.tasks.puzzles import map as map_puzzle
from franken.tasks.puzzles.map_polygons import adjacency
from franken.tasks.puzzles.solved import Unsolvable

SIDES = ((0, 1), (1, 0), (0, -1), (-1, 0))


def grids(cells, low=2, high=4):
    """Rectangular grids of drawn cells."""
    sides = st.tuples(st.integers(low, high), st.integers(low, high))
    return sides.flatmap(lambda s: st.tuples(*[st.tuples(*[cells] * s[1])] * s[0]))


def answer_of(solver, *arguments) -> str | None:
    try:
        return solver(*arguments).answer
    except Unsolvable:
        return None


def cover(squares: frozenset) -> bool:
    if not squares:
        return True
    r, c = min(squares)
    return any(o in squares and cover(squares - {(r, c), o}) for o in ((r, c + 1), (r + 1, c)))


@given(grids(st.booleans() | st.just(True), 1, 5))
def test_board_tile_against_trying_every_domino(grid):
    removed = frozenset(
        (r, c) for r, row in enumerate(grid) for c, kept in enumerate(row) if not kept
    )
    board = board_tile.Board(len(grid), len(grid[0]), removed)
    squares = frozenset(board_tile.squares(board))
    assert board_tile.solve(board).answer == ("Yes" if cover(squares) else "No")
    pairs = board_tile.tiling(board)
    if pairs is not None:
        assert frozenset(pairs) | frozenset(pairs.values()) == squares
        assert all(abs(a[0] - b[0]) + abs(a[1] - b[1]) == 1 for a, b in pairs.items())


def shuffles(n: int):
    return st.lists(st.integers(0, 3), min_size=1, max_size=n).flatmap(
        lambda tiles: st.tuples(st.just(tiles), st.permutations(tiles))
    )


@settings(max_examples=60)
@given(shuffles(6))
def test_colour_hue_against_breadth_first_swaps(boards):
    ideal, shuffled = boards
    reached, swaps = {tuple(shuffled)}, 0
    while tuple(ideal) not in reached:
        swaps += 1
        for board in list(reached):
            for i, j in combinations(range(len(board)), 2):
                tiles = list(board)
                tiles[i], tiles[j] = tiles[j], tiles[i]
                reached.add(tuple(tiles))
    state = colour_hue.Hues(tuple((t, 0, 0) for t in ideal), tuple((t, 0, 0) for t in shuffled))
    assert colour_hue.solve(state).answer == str(swaps)


def simple_paths(walls, path, goal):
    r, c = path[-1]
    if path[-1] == goal:
        yield path
        return
    for dr, dc in SIDES:
        cell = (r + dr, c + dc)
        inside = 0 <= cell[0] < len(walls) and 0 <= cell[1] < len(walls[0])
        if inside and not walls[cell[0]][cell[1]] and cell not in path:
            yield from simple_paths(walls, [*path, cell], goal)


def turns_of(path):
    steps = [(b[0] - a[0], b[1] - a[1]) for a, b in zip(path, path[1:], strict=False)]
    crosses = [a[0] * b[1] - a[1] * b[0] for a, b in zip(steps, steps[1:], strict=False)]
    return sum(x > 0 for x in crosses), sum(
        x < 0 for x in crosses
    )  # rows grow downwards: positive is left


@settings(deadline=None)
@given(
    grids(st.sampled_from((False, False, True)), 2, 4),
    st.sampled_from(("cells", "left", "right", "turns")),
)
def test_maze_against_every_simple_path(walls, count):
    start, goal = (0, 0), (len(walls) - 1, len(walls[0]) - 1)
    walls = tuple(
        tuple(w and (r, c) not in (start, goal) for c, w in enumerate(row))
        for r, row in enumerate(walls)
    )
    paths = [(len(p), *turns_of(p)) for p in simple_paths(walls, [start], goal)]
    least = min(((n, a + b) for n, a, b in paths), default=None)
    best = {(n, a, b) for n, a, b in paths if (n, a + b) == least}
    counts = {{"cells": n, "left": a, "right": b, "turns": a + b}[count] for n, a, b in best}
    expected = str(counts.pop()) if len(counts) == 1 else None
    assert answer_of(maze.solve, maze.Maze(walls, start, goal), maze.PathQuery(count)) == expected


def fewest_pushes(walls, player, box, target):
    """Every state reached with 0, 1, 2, … pushes, one step of the player at a time."""
    reached, seen, pushes = {(player, box)}, set(), 0
    while reached:
        following, todo = set(), list(reached)
        while todo:
            state = todo.pop()
            if state in seen:
                continue
            seen.add(state)
            (r, c), at = state
            if at == target:
                return str(pushes)
            for dr, dc in SIDES:
                to, beyond = (r + dr, c + dc), (r + 2 * dr, c + 2 * dc)
                inside = [
                    0 <= x < len(walls) and 0 <= y < len(walls[0]) and not walls[x][y]
                    for x, y in (to, beyond)
                ]
                if to == at and all(inside):
                    following.add((to, beyond))
                elif to != at and inside[0]:
                    todo.append((to, at))
        reached, pushes = following, pushes + 1
    return None


@settings(max_examples=200, deadline=None)
@given(grids(st.sampled_from((False, False, False, True)), 3, 5), st.randoms(use_true_random=False))
def test_move_box_against_stepping_the_player(walls, rng: random.Random):
    cells = [(r, c) for r in range(len(walls)) for c in range(len(walls[0]))]
    player, box, target = rng.sample(cells, 3)
    floor = {player, box, target}
    walls = tuple(
        tuple(w and (r, c) not in floor for c, w in enumerate(row)) for r, row in enumerate(walls)
    )
    state = move_box.Warehouse(walls, player, box, target)
    assert answer_of(move_box.solve, state) == fewest_pushes(walls, player, box, target)


@settings(max_examples=60)
@given(st.integers(4, 7), st.randoms(use_true_random=False))
def test_n_queens_against_every_permutation(n, rng: random.Random):
    boards = [
        p
        for p in permutations(range(n))
        if all(abs(p[i] - p[j]) != j - i for i, j in combinations(range(n), 2))
    ]
    board = rng.choice(boards)
    missing = rng.sample(range(n), 2)
    placed = tuple((r, board[r]) for r in range(n) if r not in missing)
    a, b = missing
    distances = {abs(a - b) + abs(p[a] - p[b]) for p in boards if all(p[r] == c for r, c in placed)}
    expected = str(distances.pop()) if len(distances) == 1 else None
    assert answer_of(n_queens.solve, n_queens.Queens(n, placed)) == expected


def slide(grid, path):
    """The board after a path, tile by tile; None when the path leaves it."""
    cells = {(r, c): n for r, row in enumerate(grid) for c, n in enumerate(row)}
    for step in path:
        at = next(cell for cell, n in cells.items() if n == 0)
        down, right = {"up": (-1, 0), "down": (1, 0), "left": (0, -1), "right": (0, 1)}[step]
        to = (at[0] + down, at[1] + right)
        if to not in cells:
            return None
        cells[at], cells[to] = cells[to], 0
    return [[cells[(r, c)] for c in range(len(grid[0]))] for r in range(len(grid))]


slides = st.tuples(st.integers(2, 3), st.integers(2, 4)).flatmap(
    lambda s: st.permutations(range(s[0] * s[1])).map(
        lambda p: tuple(tuple(p[i : i + s[1]]) for i in range(0, len(p), s[1]))
    )
)


@settings(deadline=None)
@given(
    slides,
    st.integers(0, 4),
    st.sampled_from(("maximum", "minimum")),
    st.sampled_from(("top", "bottom", "left", "right")),
)
def test_number_slide_against_every_sequence(grid, moves, best, edge):
    ends = [
        e
        for path in product(("up", "down", "left", "right"), repeat=moves)
        if (e := slide(grid, path))
    ]
    state = number_slide.Slide(grid)
    assert number_slide.solve(state, number_slide.Boards(moves)).answer == str(
        len({str(e) for e in ends})
    )
    lines = {
        "top": lambda g: g[0],
        "bottom": lambda g: g[-1],
        "left": lambda g: [r[0] for r in g],
        "right": lambda g: [r[-1] for r in g],
    }
    sums = [sum(lines[edge](e)) for e in ends]
    pick = max(sums) if best == "maximum" else min(sums)
    assert number_slide.solve(state, number_slide.BestSum(moves, best, edge)).answer == str(pick)


@given(
    slides,
    st.lists(st.sampled_from(("up", "down", "left", "right")), max_size=5),
    st.sampled_from(("maximum", "minimum", "sum")),
    st.sampled_from(("row", "column")),
)
def test_number_slide_after_a_path(grid, path, what, line):
    end = slide(grid, path)
    query = number_slide.AfterPath(tuple(path), what, line)
    expected = None
    if end is not None:
        row = next(r for r in end if 0 in r)
        numbers = row if line == "row" else [r[row.index(0)] for r in end]
        expected = str(
            {"maximum": max, "minimum": min, "sum": sum}[what](n for n in numbers if n > 0)
        )
    assert answer_of(number_slide.solve, number_slide.Slide(grid), query) == expected


@given(grids(st.integers(0, 2), 1, 4))
def test_rotting_kiwi_against_minute_by_minute(grid):
    now, minute = [list(row) for row in grid], 0
    for _ in range(20):
        if not any(1 in row for row in now):
            break
        minute += 1
        before = [row[:] for row in now]
        for r, row in enumerate(before):
            for c, cell in enumerate(row):
                near = [
                    before[r + a][c + b]
                    for a, b in SIDES
                    if 0 <= r + a < len(grid) and 0 <= c + b < len(row)
                ]
                now[r][c] = 2 if cell == 1 and 2 in near else cell
    expected = None if any(1 in row for row in now) else str(minute)
    assert answer_of(rotting_kiwi.solve, rotting_kiwi.Kiwis(grid)) == expected


@settings(deadline=None)
@given(st.integers(2, 6), st.randoms(use_true_random=False))
def test_map_against_every_assignment(n, rng: random.Random):
    edges = frozenset(pair for pair in combinations(range(1, n + 1), 2) if rng.random() < 0.4)
    known = {r: rng.choice(map_puzzle.COLOURS) for r in range(1, n + 1) if rng.random() < 0.4}
    ways = 0
    for colours in product(map_puzzle.COLOURS, repeat=n):
        ways += all(colours[r - 1] == c for r, c in known.items()) and all(
            colours[a - 1] != colours[b - 1] for a, b in edges
        )
    state = map_puzzle.Map(tuple(range(1, n + 1)), edges, tuple(known.items()))
    assert map_puzzle.solve(state).answer == str(ways)


@given(st.integers(0, 2**30), st.floats(0, math.pi), st.integers(2, 12))
def test_neighbours_of_a_cut_up_square_whatever_way_it_lies(seed, angle, n):
    """A square cut into rectangles at whole numbers, where neighbours can be counted cell by cell,
    then turned.
    """
    rng = random.Random(seed)
    pieces = [(0, 0, 16, 16)]
    while len(pieces) < n:
        x, y, w, h = pieces.pop(rng.randrange(len(pieces)))
        if w > 1 and (h == 1 or rng.random() < 0.5):
            cut = rng.randrange(1, w)
            pieces += [(x, y, cut, h), (x + cut, y, w - cut, h)]
        elif h > 1:
            cut = rng.randrange(1, h)
            pieces += [(x, y, w, cut), (x, y + cut, w, h - cut)]
        else:
            pieces.append((x, y, w, h))
            break
    owner = {
        (a, b): i
        for i, (x, y, w, h) in enumerate(pieces)
        for a in range(x, x + w)
        for b in range(y, y + h)
    }
    beside = [((a, b), (a + da, b + db)) for a, b in owner for da, db in ((0, 1), (1, 0))]
    expected = {
        tuple(sorted((owner[p], owner[q])))
        for p, q in beside
        if q in owner and owner[p] != owner[q]
    }

    def place(x: int, y: int) -> tuple[float, float]:
        u, v = math.cos(angle) * x - math.sin(angle) * y, math.sin(angle) * x + math.cos(angle) * y
        return round(u / 16, 5), round(v / 16, 5)

    polygons = {
        i: (place(x, y), place(x + w, y), place(x + w, y + h), place(x, y + h))
        for i, (x, y, w, h) in enumerate(pieces)
    }
    assert adjacency(polygons) == expected


def test_a_corner_is_no_boundary():
    square = {
        i: ((x, y), (x + 0.5, y), (x + 0.5, y + 0.5), (x, y + 0.5))
        for i, (x, y) in enumerate(product((0, 0.5), repeat=2))
    }
    assert adjacency(square) == {(0, 1), (0, 2), (1, 3), (2, 3)}


def test_neighbours_of_one_colour_leave_no_map():
    state = map_puzzle.Map((1, 2, 3), frozenset({(1, 2)}), ((1, "Red"), (2, "Red")))
    assert map_puzzle.solve(state).answer == "0"


def test_tiles_that_differ_cannot_be_restored():
    with pytest.raises(Unsolvable):
        colour_hue.solve(colour_hue.Hues(((1, 1, 1),), ((2, 2, 2),)))
