"""Error kinds of the eighteen puzzle types: chains with one planted fault, which is known to be of
the eye or of the mind.
"""

import random
import re

import pytest

from franken import tasks
from franken.evaluate.reading import ALGORITHM, CONTRADICTION, PERCEPTION, UNCLEAR, error_kind
from franken.tasks.puzzles.looks import LOOKS
from franken.tasks.puzzles.solved import Unsolvable
from franken.tasks.puzzles.suite import NAMES, puzzle

SILENT = {
    ("board_tile", "cover"),
    ("number_slide", "walks"),
}  # solutions that never say what the picture shows
HIDDEN = {
    "maze",
    "n_queens",
    "rotting_kiwi",
    "water_jugs",
}  # a fact may change that some solution does not name


def kind_of(thought: str, answer: str, item: tasks.Item) -> str:
    reply = f"<think> {thought} </think> <answer> {answer} </answer>"
    return error_kind(reply, item, tasks.grade(reply, item), truncated=False)


def test_every_type_has_its_looks():
    assert set(LOOKS) == set(NAMES)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("level", [1, 2])
def test_right_chains_misread_nothing(name, level):
    made = puzzle(name, level=level)
    for item in made.items(4, 11, "test"):
        for strategy, chain in item.solutions.items():
            assert made.misread(chain, item) == (None if (name, strategy) in SILENT else [])


@pytest.mark.parametrize("name", NAMES)
def test_the_solution_of_a_twin_is_a_perception_error(name):
    made, seen = puzzle(name), 0
    for item in made.items(6, 12, "test"):
        try:
            twin, _ = made.twin(item.state, item.query, random.Random(item.id))
        except Unsolvable:
            continue
        answer = made.answer(twin, item.query)
        for strategy, chain in made.solutions(twin, item.query).items():
            kind = kind_of(chain, answer, item)
            if strategy not in item.solutions or (name, strategy) in SILENT:
                assert kind == UNCLEAR
            else:
                assert kind == PERCEPTION or (name in HIDDEN and kind == UNCLEAR)
                seen += kind == PERCEPTION
    assert seen


@pytest.mark.parametrize("name", NAMES)
def test_right_looks_and_a_wrong_conclusion_are_an_algorithm_error(name):
    made = puzzle(name)
    for item in made.items(3, 13, "test"):
        wrong = {"Yes": "No", "No": "Yes"}.get(item.answer) or next(
            option
            for option in made.options(item.state, item.query, random.Random(0))
            if option != item.answer
        )
        for strategy, chain in item.solutions.items():
            tampered = chain.removesuffix(item.answer) + wrong
            expected = UNCLEAR if (name, strategy) in SILENT else ALGORITHM
            assert kind_of(tampered, wrong, item) == expected
            assert kind_of(chain, wrong, item) == CONTRADICTION


def tampered(name: str, strategy: str, pattern: str, by: str) -> str:
    """The kind of error of the first solution in which something can be replaced, with a wrong
    answer at its end.
    """
    for item in puzzle(name).items(12, 14, "test"):
        chain = item.solutions.get(strategy, "")
        changed = re.sub(pattern, by, chain, count=1)
        if changed != chain:
            return kind_of(changed.rsplit(" ", 1)[0] + " 99", "99", item)
    raise AssertionError("nothing to tamper with")


@pytest.mark.parametrize(
    ("name", "strategy", "pattern", "by", "kind"),
    [
        ("rotting_kiwi", "waves", r"rotten are r\dc\d", "rotten are r9c9", PERCEPTION),
        ("rotting_kiwi", "waves", r"minute 1 rots r\dc\d", "minute 1 rots r9c9", PERCEPTION),
        (
            "rotting_kiwi",
            "each",
            r"; minute \d rots r\dc\d",
            "",
            UNCLEAR,
        ),  # not seen, or not thought of
        ("rotting_kiwi", "waves", r"minute 1", "minute 2", UNCLEAR),
        ("maze", "walk", r"enter at r\d+c\d+", "enter at r2c2", PERCEPTION),
        ("maze", "flood", r"(\d) left and", r"1\1 left and", ALGORITHM),
        ("water_jugs", "pours", r"gives \d", "gives 77", ALGORITHM),
        (
            "water_jugs",
            "pours",
            r"goal \d",
            "goal 77",
            ALGORITHM,
        ),  # the goal stands in the question
        ("wheel_of_fortune", "wheel", r"begins at \d+", "begins at 1", PERCEPTION),
        ("wheel_of_fortune", "wheel", r"= -?\d+ and", "= 1000 and", ALGORITHM),
        ("n_queens", "scan", r"hit by r\dc\d", "hit by r9c9", PERCEPTION),
        ("n_queens", "scan", r"is hit by r\dc\d", "is open", UNCLEAR),
        ("map", "groups", r"touches (\w+)", "touches Black", PERCEPTION),
        ("map", "list", r"; map 1: [^;]*", "", UNCLEAR),
        ("think_dot", "tally", r"gets \d", "gets 9", ALGORITHM),
        ("rubiks_cube", "origins", r"(before \w+ \w+ r\dc\d) \w+;", r"\1 black;", PERCEPTION),
        ("move_box", "pushes", r"on r\dc\d", "on r1c1", PERCEPTION),
    ],
)
def test_one_planted_fault(name, strategy, pattern, by, kind):
    assert tampered(name, strategy, pattern, by) == kind


def test_the_order_of_a_list_is_no_misreading():
    for item in puzzle("rotting_kiwi", level=3).items(8, 15, "test"):
        turned = re.sub(
            r"rotten are ([^;]*)",
            lambda m: "rotten are " + " ".join(m[1].split()[::-1]),
            item.solutions["waves"],
        )
        assert puzzle("rotting_kiwi", level=3).misread(turned, item) == []


def test_free_words_and_unknown_strategies_are_unclear():
    item = puzzle("clock").items(1, 16, "test")[0]
    assert kind_of("I think it is 99", "99", item) == UNCLEAR
    assert kind_of("guess the clock shows 1:11; answer 99", "99", item) == UNCLEAR


def test_in_multiple_choice_the_chain_may_end_in_the_options_text():
    for item in puzzle("clock", choice=True).items(5, 17, "test"):
        letter, text = next(
            (x, t) for x, t in zip("ABCD", item.options, strict=True) if x != item.answer
        )
        chain = item.solutions["parts"].rsplit(" ", 1)[0]
        assert kind_of(f"{chain} {text}", letter, item) == ALGORITHM
        assert (
            kind_of(f"{chain} {item.options['ABCD'.index(item.answer)]}", letter, item)
            == CONTRADICTION
        )
