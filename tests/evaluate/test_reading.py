"""Error kinds, descriptions and shapes against replies whose fault is known because it was
planted.
"""

import random

import pytest

from franken import tasks
from franken.evaluate.reading import (
    ALGORITHM,
    CONTRADICTION,
    NEVER_STOPS,
    PERCEPTION,
    UNCLEAR,
    compare_facts,
    concludes,
    error_kind,
    shape,
)
from franken.evaluate.rows import answer_row, missing_row
from franken.tasks import Item
from franken.tasks.grid import describe

NAMES = ("recognise", "read", "count", "sum", "compare")


def items(name: str) -> list[Item]:
    return tasks.get(name).items(25, 5, "test")


def kind_of(thought: str, answer: str, item: Item, *, truncated: bool = False) -> str:
    reply = f"<think> {thought} </think> <answer> {answer} </answer>"
    return error_kind(reply, item, tasks.grade(reply, item), truncated=truncated)


@pytest.mark.parametrize("name", NAMES)
def test_worked_solutions_state_no_fact_wrongly_and_conclude_in_their_answer(name):
    for item in items(name):
        for strategy, chain in item.solutions.items():
            wrong = tasks.get(name).misread(chain, item)
            glance = strategy == "scan" and name in ("sum", "compare")
            assert wrong == (None if glance else [])
            assert concludes(chain, item.answer)


@pytest.mark.parametrize("name", NAMES)
def test_the_solution_of_a_twin_is_a_perception_error_unless_it_states_nothing(name):
    puzzle = tasks.get(name)
    for item in items(name):
        twin, slot = puzzle.twin(item.state, item.query, random.Random(item.id))
        answer = puzzle.answer(twin, item.query)
        for strategy, chain in puzzle.solutions(twin, item.query).items():
            glance = strategy == "scan" and name in ("sum", "compare")
            assert kind_of(chain, answer, item) == (UNCLEAR if glance else PERCEPTION)
            if not glance:
                assert puzzle.misread(chain, item) == [slot]


def test_right_facts_and_a_wrong_sum_are_an_algorithm_error():
    for item in items("sum"):
        chain = item.solutions["fwd"].rsplit(" ", 1)[0]
        wrong = str(int(item.answer) + 1)
        assert kind_of(f"{chain} {wrong}", wrong, item) == ALGORITHM
        assert kind_of(item.solutions["fwd"], wrong, item) == CONTRADICTION
        assert kind_of(item.solutions["fwd"], wrong, item, truncated=True) == NEVER_STOPS
        assert kind_of("", wrong, item) == UNCLEAR


def test_a_skipped_cell_of_a_walk_is_an_algorithm_error():
    for item in items("count"):
        if item.answer == "0":
            continue
        words = item.solutions["rows"].split()
        at = next(i for i, w in enumerate(words) if w == item.query) - 1
        thought = " ".join(words[:at] + words[at + 3 :])
        assert kind_of(thought.rsplit(" ", 1)[0] + " 9", "9", item) == ALGORITHM
        scan = item.solutions["scan"].split()
        assert kind_of(" ".join([scan[0], *scan[3:-1], "9"]), "9", item) == PERCEPTION


def test_conclusions():
    assert concludes("So it is 3. Wait, 4 so the answer is 5", "5")
    assert not concludes("4 so the answer is 5", "4")
    assert concludes("a red square", "red")
    assert not concludes("total 15", "5")


@pytest.mark.parametrize("name", NAMES)
def test_descriptions_are_read_fact_by_fact(name):
    puzzle = tasks.get(name)
    for item in items(name):
        for order in ("rows", "cols"):
            assert compare_facts(f"<think> {describe(item.state, order)} </think>", item) == (
                1.0,
                [],
                True,
            )
        twin, slot = puzzle.twin(item.state, item.query, random.Random(item.id))
        assert compare_facts(puzzle.describe(twin), item) == (pytest.approx(8 / 9), [slot], True)
        without_last = item.description.rsplit(" r3c3", 1)[0]
        share, _, whole = compare_facts(f"{without_last} r1c1 nothing", item)
        assert (share, whole) == (pytest.approx(8 / 9), False)
        assert compare_facts("no idea", item)[0] == 0


def test_the_shape_of_reasoning_by_hand():
    item = Item("i", "ocr", "q", "1")
    reply = (
        "<think>Look at the image. Wait, let me check\nthe figure; done</think><answer>1</answer>"
    )
    assert shape(reply, item) == {"steps": 4, "reflections": 2, "references": 3}
    assert shape("1", item) == {"steps": 0, "reflections": 0, "references": 0}
    one = items("sum")[0]
    assert shape(f"<think>{one.solutions['fwd']}</think>", one) == {
        "steps": 3,
        "reflections": 0,
        "references": 2,
    }


def test_rows_are_graded_and_say_whether_a_wrong_description_was_followed():
    item = items("sum")[0]
    from franken.evaluate.arms import misled

    found = misled(item)
    assert found is not None
    reply = f"<think> scan = {found[1]} </think> <answer> {found[1]} </answer>"
    row = answer_row("m", "conflict", item, 0, reply, tokens=9, truncated=False)
    assert (row["score"], row["misled"], row["kind"], row["tokens"], row["strategy"]) == (
        0.0,
        True,
        UNCLEAR,
        9,
        "scan",
    )
    assert answer_row("m", "image", item, 0, reply, tokens=9, truncated=False)["misled"] is None
    described = answer_row("m", "describe", item, 0, item.description, tokens=30, truncated=False)
    assert (described["score"], described["facts_right"], described["kind"]) == (1.0, 1.0, None)
    failed = missing_row("m", "image", item, 0, error="broken", ineligible=None)
    assert list(failed) == list(row)
    assert failed["output"] is None
