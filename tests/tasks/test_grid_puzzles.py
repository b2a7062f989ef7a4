"""The five grid puzzles: descriptions are lossless, answers right, twins minimal, splits disjoint,
pixels honest.
"""

import random
import re

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from franken import tasks
from franken.errors import UsageError
from franken.tasks import grid as world
from franken.tasks import lessons
from franken.tasks.puzzle import split_of

THINGS = st.none() | st.builds(
    world.Thing, st.sampled_from(world.COLORS), st.sampled_from(world.SHAPES + world.DIGITS)
)
GRIDS = st.tuples(*[THINGS] * 9)


@given(GRIDS, st.sampled_from(sorted(world.ORDERS)))
def test_parse_inverts_describe(grid, order):
    assert world.parse(world.describe(grid, order)) == grid


@given(GRIDS)
def test_facts_name_every_cell(grid):
    described = " ".join(f"{slot} {value}" for slot, value in world.facts(grid).items())
    assert world.parse(described) == grid


@pytest.mark.parametrize(
    "text", ["", "r1c1 red", "r1c1 purple square", "r9c9 empty", "r1c1 empty r1c1 empty"]
)
def test_parse_refuses_what_is_no_description(text):
    with pytest.raises(ValueError, match="cell|holds"):
        world.parse(text)


def answer_by_hand(question: str, grid) -> str:
    """The answer from the question's words alone, written independently of the puzzles."""
    cells = dict(zip([f"r{r}c{c}" for r in (1, 2, 3) for c in (1, 2, 3)], grid, strict=True))
    named = [cells[name] for name in re.findall(r"r\dc\d", question)]
    if question.startswith("How many"):
        color = question.split()[-1].rstrip("?")
        return str(len([t for t in grid if t and t.color == color]))
    if "color" in question:
        return named[0].color
    if "shape" in question or "digit" in question:
        return named[0].kind
    a, b = (int(t.kind) for t in named)
    if "plus" in question:
        return str(a + b)
    first, second = re.findall(r"r\dc\d", question)
    return "same" if a == b else first if a > b else second


@pytest.mark.parametrize("name", tasks.names())
def test_answers_chains_and_grades(name):
    puzzle = tasks.get(name)
    for item in puzzle.items(100, seed=3, split="test"):
        assert item.answer == answer_by_hand(item.question, item.state)
        for strategy, chain in item.solutions.items():
            reply = f"<think> {chain} </think><answer> {item.answer} </answer>"
            grade = puzzle.grade(reply, item)
            assert (grade.score, grade.well_formed) == (1.0, True)
            assert puzzle.strategy(reply) == strategy
            assert item.answer in chain.split()
        assert puzzle.grade("<think> x </think><answer> purple </answer>", item).score == 0.0


@pytest.mark.parametrize("name", tasks.names())
def test_pairs_differ_in_one_fact_and_its_pixels_only(name):
    for pair in tasks.get(name).pairs(40, seed=1):
        assert pair.target.question == pair.source.question
        assert pair.target.answer != pair.source.answer
        changed = [i for i in range(9) if pair.target.state[i] != pair.source.state[i]]
        assert [world.CELLS[i] for i in changed] == [pair.fact]
        row, col = divmod(changed[0], 3)
        difference = np.abs(
            np.asarray(pair.target.image, int) - np.asarray(pair.source.image, int)
        ).sum(-1)
        inside = difference[row * 28 : row * 28 + 28, col * 28 : col * 28 + 28].sum()
        assert inside > 0
        assert difference.sum() == inside


@pytest.mark.parametrize("name", tasks.names())
def test_items_depend_on_their_index_alone_and_splits_are_disjoint(name):
    puzzle = tasks.get(name)
    few, many = puzzle.items(5, 7, "train"), puzzle.items(20, 7, "train")
    assert [i.question for i in few] == [i.question for i in many[:5]]
    assert all(a.image.tobytes() == b.image.tobytes() for a, b in zip(few, many, strict=False))
    assert {split_of(i.description) for i in many} == {"train"}
    assert {split_of(i.description) for i in puzzle.items(20, 7, "test")} == {"test"}


def test_colors_can_be_read_back_from_pixels():
    names = np.array(world.COLORS)
    palette = np.array([world.RGB[c] for c in names])
    for item in tasks.get("recognise").items(30, 5):
        pixels = np.asarray(item.image, float)
        for i, thing in enumerate(item.state):
            row, col = divmod(i, 3)
            cell = pixels[row * 28 : row * 28 + 28, col * 28 : col * 28 + 28].reshape(-1, 3)
            saturated = cell[(cell.max(1) - cell.min(1)) > 100]
            assert (len(saturated) > 10) == (thing is not None)
            if thing:
                votes = np.abs(saturated[:, None] - palette).sum(-1).argmin(1)
                assert names[np.bincount(votes, minlength=4).argmax()] == thing.color


def test_lessons_hold_no_tags_and_no_puzzle_questions():
    rng = random.Random(0)
    for kind in lessons.LESSONS:
        for _ in range(100):
            grid = lessons.lesson_grid(rng)
            for question, answer in lessons.lesson(kind, grid, rng):
                assert "<" not in question + answer
                assert "?" not in question + answer
                if question == "Describe rows":
                    assert world.parse(answer) == grid


def test_an_unknown_task_names_the_nearest():
    with pytest.raises(UsageError) as caught:
        tasks.get("recognize")
    assert "recognise" in caught.value.fix
