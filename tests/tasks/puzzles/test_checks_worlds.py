"""The step checkers: they move by rules of their own, and no tampering with a solution escapes
them.
"""

import random
import re
from collections import Counter

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from franken.tasks.puzzles import map as map_puzzle
from franken.tasks.puzzles import rubiks_cube, think_dot, wood_slide
from franken.tasks.puzzles.suite import LEVELS, puzzle

NAMES = ("map", "rubiks_cube", "think_dot", "wheel_of_fortune", "wood_slide")
SWAPS = [
    ("left", "right"),
    ("blue", "yellow"),
    ("Red", "Green"),
    ("up", "down"),
    ("clockwise", "counterclockwise"),
    ("with", "without"),
    ("b", "y"),
    ("red", "grey"),
    ("A", "B"),
]
SWAP = {a: b for pair in SWAPS for a, b in (pair, pair[::-1])}


def tampered(step):
    """The step with one number one higher, or one word exchanged for its opposite."""
    for found in re.finditer(r"\d+|[A-Za-z]+", step):
        word = found[0]
        other = str(int(word) + 1) if word.isdigit() else SWAP.get(word)
        if other is not None:
            yield step[: found.start()] + other + step[found.end() :]


@pytest.mark.parametrize("level", LEVELS)
@pytest.mark.parametrize("name", NAMES)
def test_no_tampering_escapes(name, level):
    task = puzzle(name, level=level)
    for seed in range(3):
        state = task.sample(random.Random(seed))
        query = task.ask(state, random.Random(seed))
        for chain in task.solutions(state, query).values():
            strategy, _, rest = chain.partition(" ")
            steps = rest.split("; ")
            for i, step in enumerate(steps):
                for other in tampered(step):
                    assert task.check(
                        f"{strategy} {'; '.join([*steps[:i], other, *steps[i + 1 :]])}",
                        state,
                        query,
                    ), other


@pytest.mark.parametrize("name", NAMES)
@settings(max_examples=60, deadline=None)
@given(data=st.data())
def test_checkers_take_any_text(name, data):
    """Whatever a model writes is judged, not an exception."""
    task = puzzle(name)
    state = task.sample(random.Random(1))
    query = task.ask(state, random.Random(1))
    steps = next(iter(task.solutions(state, query).values())).split(" ")
    words = data.draw(
        st.lists(
            st.sampled_from([*steps, "0", "99999999999", "1/0", "-3", "=", "*", "", ";"]),
            max_size=30,
        )
    )
    chain = " ".join([data.draw(st.sampled_from(task.strategies)), *words])
    assert task.check(chain, state, query) is None or isinstance(
        task.check(chain, state, query), str
    )


def test_numbers_without_end_or_sense_are_judged_too():
    for name, step in (
        ("wheel_of_fortune", "the arrow is at 1/0"),
        ("wheel_of_fortune", f"that is {'9' * 5000}"),
        ("wood_slide", f"{'9' * 5000} moves reach the end"),
        ("map", f"{'9' * 5000} = {'9' * 5000}"),
    ):
        task = puzzle(name)
        state = task.sample(random.Random(1))
        assert task.check(f"{task.strategies[0]} {step}", state, task.ask(state, random.Random(1)))


def test_a_chain_that_leaves_out_the_work_is_wrong():
    for name in NAMES:
        task = puzzle(name)
        state = task.sample(random.Random(2))
        query = task.ask(state, random.Random(2))
        for chain in task.solutions(state, query).values():
            assert task.check(f"{chain.split(' ')[0]} {chain.split('; ')[-1]}", state, query)


def test_strips_turn_the_cube_as_rotations_in_space_do():
    rng = random.Random(0)
    for size in (2, 3, 4):
        squares = [
            [[f"{f}{r}{c}" for c in range(size)] for r in range(size)] for f in rubiks_cube.FACES
        ]
        cube = rubiks_cube.Cube(tuple(tuple(map(tuple, face)) for face in squares))
        faces = {str(name): face for name, face in zip(rubiks_cube.FACES, squares, strict=True)}
        for _ in range(40):
            face = rng.choice(rubiks_cube.FACES)
            cube, faces = rubiks_cube.turn(cube, face), rubiks_cube.turned(faces, face, 1)
            assert [[list(row) for row in grid] for grid in cube.faces] == list(faces.values())


def test_balls_by_columns_fall_as_by_the_table():
    for n in range(256):
        faces = [("blue", "yellow")[n >> i & 1] for i in range(8)]
        toy = think_dot.Toy((tuple(faces[:3]), tuple(faces[3:5]), tuple(faces[5:])))
        for hole in think_dot.HOLES:
            path, after = think_dot._fall(toy, hole)
            assert (path, after) == (
                think_dot._path(toy, hole),
                think_dot._show(think_dot.drop(toy, hole)),
            )


def test_layers_of_blocks_are_the_shortest_distances():
    for seed in range(5):
        start = wood_slide.sample(random.Random(seed), 1).start
        found, seen = {start: 0}, [start]
        for grid in seen:
            for name in sorted(set("".join(grid)) - {"0"}):
                for down, right in wood_slide.STEPS.values():
                    after = wood_slide._slide(grid, name, down, right)
                    if after is not None and after not in found:
                        found[after] = found[grid] + 1
                        seen.append(after)
        layers = list(wood_slide.layers(start))
        assert {grid: n for n, layer in enumerate(layers) for grid in layer} == found


def test_groups_of_white_regions_multiply():
    for seed in range(20):
        state = map_puzzle.sample(random.Random(seed), 3)
        assert len(map_puzzle._tried(state, map_puzzle.COLOURS)) == int(
            map_puzzle.solve(state).answer
        )


@pytest.mark.parametrize("name", ["map", "rubiks_cube", "think_dot", "wood_slide"])
def test_neither_the_answers_nor_their_rank_among_the_options_can_be_guessed(name):
    """The commonest answer, and the best of the four ranks, are right for little more than their
    share.
    """
    for level in LEVELS:
        task = puzzle(name, level=level)
        answers, ranks = Counter(), Counter()
        for seed in range(300):
            state = task.sample(random.Random(seed))
            query = task.ask(state, random.Random(seed))
            answers[right := task.answer(state, query)] += 1
            ranks[
                sorted(task.options(state, query, random.Random(seed)), key=int).index(right)
            ] += 1
        assert max(answers.values()) < 0.35 * 300
        assert max(ranks.values()) < 0.38 * 300
