"""What holds for every puzzle type: round trips, splits, pairs, options and pictures."""

import random
import re

import numpy as np
import pytest

from franken.errors import UsageError
from franken.tasks.puzzle import split_of
from franken.tasks.puzzles.suite import LEVELS, NAMES, differing, nearby, puzzle, puzzle_of


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
        wordings = task.module.questions(state, query)
        assert len(set(wordings)) == len(wordings) >= 2
        assert all("?" in text for text in wordings)


@pytest.mark.parametrize("level", LEVELS)
@pytest.mark.parametrize("name", NAMES)
def test_solutions_hold_step_by_step_and_wrong_ones_are_caught(name, level):
    task, drawn = states(name, level, 12)
    caught = tried = 0
    for seed, state in enumerate(drawn):
        query = task.ask(state, random.Random(seed))
        chains = task.solutions(state, query)
        assert set(chains) <= set(task.strategies)
        for strategy, chain in chains.items():
            assert task.check(chain, state, query) is None
            assert task.strategy(f"<think> {chain} </think><answer> x </answer>") == strategy
            assert chain.endswith(f"answer {task.answer(state, query)}")
            assert task.check(chain + "1", state, query)
            assert task.check(chain.rpartition("; ")[0], state, query)
            other = drawn[seed - 1]
            if task.facts(other) != task.facts(state):  # another state's solution is not this one's
                tried += 1
                caught += any(task.check(c, other, query) for c in chains.values())
    assert len(task.strategies) >= 2
    assert caught >= 0.8 * tried > 0


@pytest.mark.parametrize("name", NAMES)
def test_nonsense_is_no_description(name):
    task, drawn = states(name, 1, 3)
    for text in (
        "",
        "nonsense",
        task.describe(drawn[0]) + " x",
        task.describe(drawn[0])[:-1] + "?",
    ):
        with pytest.raises(ValueError):  # noqa: PT011 - any reason will do
            task.parse(text)


@pytest.mark.parametrize("name", NAMES)
def test_different_states_have_different_facts_and_pictures(name):
    """A fact that does not show would leave two states with one picture."""
    task, drawn = states(name, 1, 12)
    for state in drawn:
        other = task.module.change(state, random.Random(repr(state)))
        one, two = np.asarray(task.render(state)), np.asarray(task.render(other))
        assert (
            (state == other)
            == (not differing(task.facts(state), task.facts(other)))
            == np.array_equal(one, two)
        )


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
    assert all(
        np.array_equal(np.asarray(a.image), np.asarray(b.image))
        for a, b in zip(train, again, strict=True)
    )


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
        assert differing(task.facts(pair.target.state), task.facts(pair.source.state)) == [
            pair.fact
        ]
        assert pair.target.answer != pair.source.answer
    assert eligible >= 4


@pytest.mark.parametrize("name", NAMES)
def test_pairs_of_multiple_choice_share_their_options(name):
    task = puzzle(name, choice=True)
    for pair in task.pairs(6, 1):
        assert pair.target.question == pair.source.question
        assert pair.target.options == pair.source.options
        assert (pair.target.answer == pair.source.answer) == bool(pair.ineligible)
        assert task.grade(f"<answer>{pair.source.answer}</answer>", pair.source).score == 1


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


@pytest.mark.parametrize("name", NAMES)
def test_choice_asks_with_letters_and_takes_letter_or_text(name):
    task = puzzle(name, choice=True)
    for item in task.items(5, 3):
        right = item.options["ABCDEFGH".index(item.answer)]
        assert f"({item.answer}) {right}" in item.question
        assert task.grade(f"<answer>({item.answer})</answer>", item).score == 1
        assert task.grade(f"<answer>{right}</answer>", item).score == 1
        assert task.grade("<answer>A B</answer>", item).score == 0
        wrong = next(letter for letter in "AB" if letter != item.answer)
        assert task.grade(f"<answer>{wrong}</answer>", item).score == 0
    assert [i.state for i in task.items(5, 3)] == [i.state for i in puzzle(name).items(5, 3)]


@pytest.mark.parametrize("name", NAMES)
def test_pictures_have_the_size_asked_for(name):
    smallest = puzzle(name).module.SMALLEST
    for size, level in ((smallest, 1), (252, 2), (500, 3)):
        task = puzzle(name, size=size, level=level)
        image = task.render(task.sample(random.Random(1)), style=3)
        assert image.size == (size, size)
        assert len(np.unique(np.asarray(image).reshape(-1, 3), axis=0)) > 2


def test_unknown_puzzles_levels_and_sizes_are_usage_errors():
    for bad in ({"kind": "clok"}, {"kind": "clock", "level": 4}, {"kind": "clock", "size": 3}):
        with pytest.raises(UsageError):
            puzzle(**bad)


def test_tasks_are_named_as_they_are_read():
    for name in ("clock", "clock:2", "rotting_kiwi:3@168+choice"):
        assert puzzle_of(name).name == name
    for bad in ("Clock!", "clock:9", "clock@20", "klock"):
        with pytest.raises(UsageError):
            puzzle_of(bad)


@pytest.mark.parametrize("number", [0, 1, 2, 5, 40])
def test_numbers_close_by_give_no_hint_by_their_rank(number):
    ranks = []
    for seed in range(400):
        wrong = nearby(number, 3, random.Random(seed))
        assert len(set(wrong)) == 3
        assert str(number) not in wrong
        assert all(int(text) >= 0 for text in wrong)
        ranks.append(sum(int(text) < number for text in wrong))
    assert set(ranks) == set(range(min(number, 3) + 1))
    if number >= 3:
        assert max(ranks.count(rank) for rank in range(4)) < 0.33 * 400


def test_runaway_numbers_are_wrong_and_not_an_error():
    for name in NAMES:
        task = puzzle(name)
        state = task.sample(random.Random(0))
        query = task.ask(state, random.Random(0))
        chain = next(iter(task.solutions(state, query).values()))
        digits = "9" * 5000
        assert task.check(re.sub(r"\d+", digits, chain), state, query)
        assert task.check(f"{task.strategies[0]} answer {task.answer(state, query)}", state, query)
        with pytest.raises(ValueError):  # noqa: PT011 - any reason will do
            task.parse(re.sub(r"\d+", digits, task.describe(state)) + digits)
