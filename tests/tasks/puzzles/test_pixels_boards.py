"""Every fact of a board is read again from the pixels of its picture, by code that knows colours
and nothing else.

No fact of these five types is text or a shape that needs a person, so none is left to looking. What
is drawn besides (captions, grid lines) carries no fact.
"""

import random
from collections import Counter

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from public_data import needs, public

from franken.tasks import algopuzzlevqa
from franken.tasks.algopuzzlevqa_rows import READERS
from franken.tasks.puzzles import board_tile, checker_move, colour_hue, maze, n_queens
from franken.tasks.puzzles.suite import puzzle

PUBLIC = public("algopuzzlevqa")
LEVELS_AND_SIZES = [(1, 0), (1, 84), (2, 126), (3, 252)]  # 0: the smallest size allowed


def drawn(kind: str, level: int, size: int, n: int = 40):
    """States of a level and their pictures' pixels."""
    task = puzzle(kind, level=level, size=size or puzzle(kind).module.SMALLEST)
    for seed in range(n):
        state = task.sample(random.Random(seed))
        yield state, np.asarray(task.render(state, style=seed)).astype(int)


def is_colour(pixels: np.ndarray, colour) -> np.ndarray:
    return (pixels == np.array(colour)).all(axis=2)


def extent(mask: np.ndarray) -> tuple[int, int, int, int]:
    """First row and column, and those after the last, of what is True."""
    rows, columns = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
    return rows[0], columns[0], rows[-1] + 1, columns[-1] + 1


def bands(differs: np.ndarray, within: int = 2) -> int:
    """Into how many bands the positions where something changes cut a side; changes close by are
    one.
    """
    inside = np.flatnonzero(differs[within:-within])
    return 1 + int((np.diff(inside, prepend=-10) > within).sum())


def at_centres(pixels: np.ndarray, rows: int, columns: int) -> np.ndarray:
    """The colours in the middle of each cell of a grid that fills `pixels`."""
    height, width = pixels.shape[:2]
    r, c = (
        (np.arange(n) * 2 + 1) * side // (2 * n) for n, side in ((rows, height), (columns, width))
    )
    return pixels[np.ix_(r, c)]


@pytest.mark.parametrize(("level", "size"), LEVELS_AND_SIZES)
def test_missing_squares_are_read_from_pixels(level, size):
    for state, pixels in drawn("board_tile", level, size):
        colours = (board_tile.DARK, board_tile.LIGHT, board_tile.WHITE, board_tile.EDGE)
        top, left, bottom, right = extent(
            np.any([is_colour(pixels, colour) for colour in colours], axis=0)
        )
        board = pixels[top:bottom, left:right]
        rows, columns = ((np.diff(board, axis=i) != 0).any(axis=(1 - i, 2)) for i in (0, 1))
        grid = at_centres(board, bands(rows), bands(columns))
        missing = zip(*np.nonzero(is_colour(grid, board_tile.WHITE)), strict=True)
        assert grid.shape[:2] == (state.rows, state.columns)
        assert frozenset((int(r), int(c)) for r, c in missing) == state.removed
        assert {tuple(colour) for colour in grid[::2, ::2].reshape(-1, 3)} <= {
            board_tile.DARK,
            board_tile.WHITE,
        }


@settings(max_examples=60)
@given(st.integers(2, 5), st.integers(2, 5), st.data())
def test_few_missing_squares_of_equal_colours_never_block(rows, columns, data):
    """What the step "equal colours are enough" rests on; and that the squares said to block one
    another do.
    """
    squares = [(r, c) for r in range(rows) for c in range(columns)]
    removed = data.draw(st.frozensets(st.sampled_from(squares), max_size=5))
    state = board_tile.Board(rows, columns, removed)
    dark, light = board_tile.counts(state)
    if board_tile.balance_suffices(state):
        assert (board_tile.solve(state).answer == "Yes") == (dark == light)
    stuck = board_tile.blocked(state)
    assert (stuck is None) == (board_tile.tiling(state) is not None)
    for steps in board_tile.steps(state, board_tile.Coverable()).values():
        assert board_tile.check(state, board_tile.Coverable(), steps) is None


def test_half_of_the_boards_can_be_covered_and_level_three_has_equal_colours_that_block():
    for level in (1, 2, 3):
        task = puzzle("board_tile", level=level)
        states = [task.sample(random.Random(seed)) for seed in range(200)]
        yes = [state for state in states if board_tile.solve(state).answer == "Yes"]
        assert 70 <= len(yes) <= 130
        blocked = [s for s in states if s not in yes and len(set(board_tile.counts(s))) == 1]
        assert bool(blocked) == (level == 3)


@pytest.mark.parametrize(
    ("chain", "why"),
    [
        (("lay r1c1 r1c2", "answer Yes"), "answer Yes"),  # not all are covered
        (("lay r1c1 r3c1",), "lay r1c1 r3c1"),  # not beside each other
        (("lay r1c1 r1c2", "lay r1c2 r2c2"), "lay r1c2 r2c2"),  # covered twice
        (("r1c1 touch only r1c2", "1 squares are more than 1"), "r1c1 touch only r1c2"),  # and r2c1
        (("r1c1 touch only r1c2 r2c1", "1 squares are more than 2"), "1 squares are more than 2"),
        (("answer No",), "answer No"),  # without a proof
        (("answer ",), "answer"),
        (("row 2 has 2 dark and 2 light",), "row 2"),
        (("equal colours are not enough when more are missing",), "equal colours are not"),
        (("equal colours are enough when so few are missing", "answer Yes"), None),
    ],
)
def test_board_tile_steps_are_replayed(chain, why):
    fault = board_tile.check(
        board_tile.parse("board 3x4 without r2c3 r3c3"), board_tile.Coverable(), chain
    )
    assert (why in fault) if why else fault is None


@pytest.mark.parametrize(("level", "size"), LEVELS_AND_SIZES)
def test_queens_are_read_from_pixels(level, size):
    for state, pixels in drawn("n_queens", level, size):
        yellow = is_colour(pixels, n_queens.DARK) | is_colour(pixels, n_queens.LIGHT)
        top, left, bottom, right = extent(yellow)
        board = pixels[top:bottom, left:right]
        first = is_colour(board, n_queens.DARK)[0]  # a row of pixels above any crown
        side = bands(np.diff(first) != 0)
        other = ~yellow[top:bottom, left:right]
        edges = np.round(np.linspace(0, len(board), side + 1)).astype(int)
        inked = [
            (r, c)
            for r in range(side)
            for c in range(side)
            if other[edges[r] : edges[r + 1], edges[c] : edges[c + 1]].mean() > 0.2
        ]
        assert (side, tuple(inked)) == (state.n, state.placed)


@pytest.mark.parametrize(
    ("chain", "why"),
    [
        (("rows 1 4 and columns 1 4 are free",), "rows 1 4"),  # 1 and 3 are
        (("r1c1 is hit by r3c4",), "r1c1 is hit"),  # on no common line
        (("r1c4 is hit by r3c4",), "r1c4 is hit"),  # no queen is there
        (("r1c1 r3c2 share a diagonal",), "share a diagonal"),
        (("r1c2 r3c3 are safe",), "are safe"),  # r2c4 and r4c3 stand there
        (("r1c3 is open",), "r1c3 is open"),  # hit down the column
        (("rows 1 to 4 are 3",), "rows 1 to 4"),  # true of numbers, not of the queens missing
        (("2 + 2 = 4",), "2 + 2"),
        (("rows 1 3 and columns 1 2 are free", "r1c1 r3c2 are safe"), "r1c1 r3c2"),
    ],
)
def test_queen_steps_are_replayed(chain, why):
    state = n_queens.parse("queens 4x4 at r2c4 r4c3")
    assert why in (n_queens.check(state, n_queens.Distance(), chain) or "")


def test_distances_are_spread():
    for level, most in ((1, 0.22), (2, 0.15), (3, 0.12)):
        answers = Counter(
            item.answer for item in puzzle("n_queens", level=level, size=84).items(300, 0)
        )
        assert max(answers.values()) <= most * 300


@pytest.mark.parametrize(("level", "size"), LEVELS_AND_SIZES)
def test_mazes_are_read_from_pixels(level, size):
    for state, pixels in drawn("maze", level, size):
        masks = [
            is_colour(pixels, c) for c in (maze.WALL, maze.OPEN, maze.LINE, maze.GREEN, maze.BLUE)
        ]
        top, left, bottom, right = extent(np.any(masks, axis=0))
        wall, empty, _, green, blue = (mask[top:bottom, left:right] for mask in masks)
        inner = empty | green | blue  # the cells without the faint lines around them
        rows, columns = (bands((np.diff(inner, axis=i) != 0).any(axis=1 - i), 3) for i in (0, 1))
        grid = at_centres(np.stack([wall, green, blue], axis=2), rows, columns)
        assert np.array_equal(grid[:, :, 0], state.walls)
        assert [np.argwhere(grid[:, :, i]).tolist() for i in (1, 2)] == [
            [[*state.entrance]],
            [[*state.exit]],
        ]


@pytest.mark.parametrize(
    ("chain", "why"),
    [
        (("go right 1 to r2c2",), "go right"),  # before entering
        (
            ("enter at r2c1", "go right 2 to r2c3", "turn right and go down 1 to r3c3"),
            "turn right and go down",
        ),  # wall
        (("enter at r2c1", "go right 3 to r2c3"), "go right 3"),  # that is 2
        (
            ("enter at r2c1", "go right 1 to r2c2", "turn left and go down 1 to r3c2"),
            "turn left",
        ),  # a right turn
        (
            ("enter at r2c1", "go right 1 to r2c2", "go right 1 to r2c3"),
            "to r2c3",
        ),  # one run in two
        (("step 2 reaches r2c3",), "step 2"),  # and r3c2
        (("the way is r2c1 r2c2 r4c2",), "the way is"),  # a jump
        (("the way is r2c1 r2c2 r3c2 r4c2 r5c2", "2 left and 0 right turns are 2"), "2 left"),
        (("the way is r2c1 r2c2 r3c2 r4c2", "answer 1"), "answer 1"),  # not at the exit
        (("the way is r2c1 r2c2 r3c2 r4c2 r5c2", "right turns at r2c2", "answer 1"), None),
    ],
)
def test_maze_steps_are_replayed(chain, why):
    state = maze.parse("maze #####/E...#/#.#.#/#...#/#X###")
    fault = maze.check(state, maze.PathQuery("right"), chain)
    assert (why in fault) if why else fault is None


def test_a_way_that_is_not_the_best_has_no_answer():
    state = maze.parse("maze #####/E...#/#.#.#/#...#/#X###")
    long = (
        "the way is r2c1 r2c2 r2c3 r2c4 r3c4 r4c4 r4c3 r4c2 r5c2",
        "9 steps pass 10 cells",
        "answer 5",
    )
    assert maze.check(state, maze.PathQuery("cells"), long)
    for text in (
        "maze #####/E..X#/#####",
        "maze #X#/E.#/#.#",
        "maze E###/#..X/####",
        "maze ####/E.X.#/####",
    ):
        with pytest.raises(ValueError, match="maze|entrance"):
            maze.parse(text)


@pytest.mark.parametrize(("level", "size"), LEVELS_AND_SIZES)
def test_checkers_are_read_from_pixels(level, size):
    for state, pixels in drawn("checker_move", level, size):
        half = len(pixels) // 2
        rows = []
        for part in (pixels[: half - 1], pixels[half + 2 :]):
            squares = np.any(
                [is_colour(part, c) for c in ((255, 255, 255), (120, 120, 120))], axis=0
            )
            top, left, bottom, right = extent(squares)
            middles = at_centres(
                part[top:bottom, left:right], 1, round((right - left) / (bottom - top))
            )[0]
            letters = {(255, 255, 255): "_"} | {
                colour: letter for letter, colour in checker_move.COLOURS.items()
            }
            rows.append("".join(letters[tuple(middle)] for middle in middles.tolist()))
        assert checker_move.Checkers(*rows) == state


@pytest.mark.parametrize(
    ("chain", "why"),
    [
        (("red 2 to 1 makes RG_",), "red 2 to 1"),  # not there
        (("green 1 to 2 makes GG_R",), "green 1 to 2"),  # occupied
        (("green 1 to 3 makes _GGR",), "green 1 to 3"),  # over its own colour
        (("green 2 to 3 makes G_GR", "green 3 to 2 makes GG_R"), "green 3 to 2"),  # backwards
        (("red 4 to 3 makes GGR_", "2 moves reach GGR_"), "2 moves"),
        (
            ("red 4 to 3 makes GGR_", "green 2 to 4 makes G_RG", "2 moves reach G_RG", "answer 2"),
            None,
        ),
        (("green 1 goes 1 to 1 by 0", "green 2 goes 2 to 4 by 3"), "green 2"),
        (("green 1 passes 1 red",), "green 1 passes"),
        (("0 + 2 + 1 = 3 squares", "0 + 1 = 1 jumps", "3 - 1 = 1 moves"), "3 - 1"),
    ],
)
def test_checker_steps_are_replayed(chain, why):
    fault = checker_move.check(checker_move.Checkers("GG_R", "G_RG"), checker_move.Moves(), chain)
    assert (why in fault) if why else fault is None


def test_rows_of_other_checkers_are_no_pair():
    for text in ("checkers GG_R to GG_", "checkers GG_R to GR_R"):
        with pytest.raises(ValueError, match="no pair"):
            checker_move.parse(text)


@pytest.mark.parametrize(("level", "size"), LEVELS_AND_SIZES)
def test_tiles_are_read_from_pixels(level, size):
    for state, pixels in drawn("colour_hue", level, size):
        boards, rows = [], 0
        for part in (pixels[: len(pixels) // 2], pixels[len(pixels) // 2 :]):
            edges = is_colour(part, (255, 255, 255))
            top, left, bottom, right = extent(edges)
            lines = edges[top:bottom, left:right]
            rows, columns = (bands(np.diff(lines.all(axis=1 - i)) != 0, 3) for i in (0, 1))
            grid = at_centres(part[top:bottom, left:right], rows, columns)
            boards.append(tuple(tuple(tile) for tile in grid.reshape(-1, 3).tolist()))
        shuffled, ideal = boards
        assert colour_hue.Hues(ideal, shuffled, rows) == state


def test_tiles_of_a_board_are_well_apart_and_swaps_are_spread():
    for level, most in ((1, 0.4), (2, 0.25), (3, 0.2)):
        task = puzzle("colour_hue", level=level)
        states = [task.sample(random.Random(seed)) for seed in range(200)]
        for state in states:
            tiles = np.array(state.ideal)
            far = np.sqrt(((tiles[:, None] - tiles[None]) ** 2).sum(axis=2))
            assert far[~np.eye(len(tiles), dtype=bool)].min() >= colour_hue.APART
        assert (
            max(Counter(colour_hue.solve(state).answer for state in states).values()) <= most * 200
        )


@pytest.mark.parametrize(
    ("chain", "why"),
    [
        (("A holds 2 1 3 4",), "A holds"),
        (("A holds 2 1 4 3", "cycle 1 2 3"), "cycle 1 2 3"),  # does not lead there
        (("A holds 2 1 4 3", "cycle 1 2", "cycle 2 1"), "cycle 2 1"),  # the same again
        (("A holds 2 1 4 3", "cycle 1 2", "4 tiles - 1 cycles = 3"), "4 tiles"),  # one is left out
        (("A holds 2 1 4 3", "cycle 1 2", "cycle 3 4", "4 tiles - 2 cycles = 3"), "4 tiles"),
        (("A holds 2 1 4 3", "swap 1 and 2 makes 1 2 3 4"), "swap 1"),
        (("swap 1 and 2 makes 1 2 4 3",), "swap 1"),  # of nothing known yet
        (("A holds 2 1 4 3", "swap 1 and 2 makes 1 2 4 3", "1 swaps restore it"), "1 swaps"),
        (("A holds 2 1 4 3", "cycle 1 2", "cycle 3 4", "4 tiles - 2 cycles = 2", "answer 2"), None),
    ],
)
def test_colour_hue_steps_are_replayed(chain, why):
    state = colour_hue.parse("hues 2x2 of 800000 008000 000080 808080 order 2 1 4 3")
    fault = colour_hue.check(state, colour_hue.Swaps(), chain)
    assert (why in fault) if why else fault is None


def test_boards_with_a_tile_twice_or_too_few_are_none():
    for tail in (
        "1x2 of 800000 008000 order 1 1",
        "1x3 of 800000 008000 order 1 2",
        "1x2 of 800000 008000 order 2 3",
    ):
        with pytest.raises(ValueError, match="too many"):
            colour_hue.parse(f"hues {tail}")


@needs("algopuzzlevqa")
@pytest.mark.parametrize("kind", ["board_tile", "n_queens", "maze", "checker_move", "colour_hue"])
def test_public_states_are_described_drawn_and_solved_step_by_step(kind):
    """What others drew, not our own sampler: sizes and arrangements that ours may never make."""
    task = puzzle(kind)
    for row in algopuzzlevqa.load(PUBLIC / f"{kind}.json"):
        _, reader = READERS[kind]
        state, query = reader(row.question, row.solution)
        assert task.parse(task.describe(state)) == state
        assert task.render(state).size == (252, 252)
        for chain in task.solutions(state, query).values():
            assert task.check(chain, state, query) is None
            assert chain.endswith(f"answer {row.answer}")
