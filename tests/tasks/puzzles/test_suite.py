"""What holds for every puzzle type: round trips, splits, pairs, options, pictures, and how fast they come."""

import random
import time

import numpy as np
import pytest

from franken.errors import UsageError
from franken.tasks.puzzle import split_of
from franken.tasks.puzzles.suite import LEVELS, NAMES, differing, puzzle

SIMPLE = ("clock", "rotting_kiwi")  # what training draws at 84 pixels


def states(name, level, n=25):
    task = puzzle(name, level=level)
    return task, [task.sample(random.Random(seed)) for seed in range(n)]


@pytest.mark.parametrize("level", LEVELS)
@pytest.mark.parametrize("name", NAMES)
def test_descriptions_are_lossless_and_questions_have_answers(name, level):
    task, drawn = states(name, level)
    assert len(set(drawn)) > 3
    for seed, state in enumerate(drawn):
        assert task.parse(task.describe(state)) == state
        query = task.ask(state, random.Random(seed))
        assert task.answer(state, query)
        assert task.question(state, query).endswith("?")
        assert task.answer(state, query) in task.solutions(state, query)["proof"]


@pytest.mark.parametrize("name", NAMES)
def test_nonsense_is_no_description(name):
    task, drawn = states(name, 1, 3)
    for text in ("", "nonsense", task.describe(drawn[0]) + " x", task.describe(drawn[0])[:-1] + "?"):
        with pytest.raises(ValueError):  # noqa: PT011 - any reason will do
            task.parse(text)


@pytest.mark.parametrize("name", NAMES)
def test_different_states_have_different_facts_and_pictures(name):
    """A fact that does not show would leave two states with one picture."""
    task, drawn = states(name, 1, 12)
    for state in drawn:
        other = task.module.change(state, random.Random(repr(state)))
        one, two = np.asarray(task.render(state)), np.asarray(task.render(other))
        assert (state == other) == (not differing(task.facts(state), task.facts(other))) == np.array_equal(one, two)


@pytest.mark.parametrize("name", NAMES)
def test_no_state_is_in_both_splits_and_items_are_reproducible(name):
    task = puzzle(name, size=84)
    train, test = task.items(6, 0, "train"), task.items(6, 0, "test")
    assert {split_of(i.description) for i in train} == {"train"}
    assert {split_of(i.description) for i in test} == {"test"}
    again = task.items(6, 0, "train")
    assert [(i.description, i.question, i.answer) for i in train] == [
        (i.description, i.question, i.answer) for i in again
    ]
    assert all(np.array_equal(np.asarray(a.image), np.asarray(b.image)) for a, b in zip(train, again, strict=True))


@pytest.mark.parametrize("name", NAMES)
def test_pairs_differ_in_one_fact_and_in_the_answer(name):
    task = puzzle(name, size=84, level=2)
    eligible = 0
    for pair in task.pairs(8, 0):
        assert pair.target.question == pair.source.question
        if pair.ineligible:
            assert pair.target.state == pair.source.state
            continue
        eligible += 1
        assert differing(task.facts(pair.target.state), task.facts(pair.source.state)) == [pair.fact]
        assert pair.target.answer != pair.source.answer
    assert eligible >= 4


@pytest.mark.parametrize("name", NAMES)
def test_options_hold_the_answer_once_among_different_ones(name):
    task, drawn = states(name, 2, 12)
    places = set()
    for seed, state in enumerate(drawn):
        query = task.ask(state, random.Random(seed))
        options = task.options(state, query, random.Random(seed))
        assert options.count(task.answer(state, query)) == 1
        assert len(set(options)) == len(options)
        assert len(options) == (2 if "Yes" in options else 4)
        places.add(options.index(task.answer(state, query)))
    assert len(places) > 1


@pytest.mark.parametrize("size", [64, 84, 252, 500])
@pytest.mark.parametrize("name", NAMES)
def test_pictures_have_the_size_asked_for(name, size):
    task = puzzle(name, size=size, level=3)
    image = task.render(task.sample(random.Random(1)), style=3)
    assert image.size == (size, size)
    assert len(np.unique(np.asarray(image).reshape(-1, 3), axis=0)) > 2


@pytest.mark.parametrize("name", SIMPLE)
def test_simple_puzzles_come_fast_enough_for_training(name):
    """A thousand items a second a core; half of that is asked for here, as test machines are busy."""
    task = puzzle(name, size=84)
    task.items(20, 1)
    began = time.process_time()
    task.items(200, 0)
    assert 200 / (time.process_time() - began) > 500


def test_unknown_puzzles_levels_and_sizes_are_usage_errors():
    for bad in ({"name": "clok"}, {"name": "clock", "level": 4}, {"name": "clock", "size": 3}):
        with pytest.raises(UsageError):
            puzzle(**bad)
