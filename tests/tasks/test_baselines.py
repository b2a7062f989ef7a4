"""Blind baselines against distributions whose best guess is known."""

import json

import pytest

from franken import tasks
from franken.cli import run_command
from franken.stats import rate
from franken.tasks.baselines import STRATEGIES, baselines, cross_fitted, default_names, of_tasks
from franken.tasks.puzzle import Item


def numbers(answers, question="How many?", task="mine"):
    return [Item(f"{task}-{i}", task, question, str(a)) for i, a in enumerate(answers)]


def table(rows):
    return {(r.task, r.answer_type, r.baseline): r for r in rows}


def test_majority_is_fitted_on_train_and_scored_on_test():
    found = table(baselines(numbers([3] * 6 + [1] * 4), numbers([3] * 3 + [1] * 7)))
    row = found["mine", "number", "majority"]
    assert (row.value, row.n, row.n_train, row.says) == (0.3, 10, 10, "3")
    assert (row.low, row.high) == rate(3, 10)[1:]
    assert found["mine", "number", "chance"].value == 0.5


def test_chance_counts_answers_that_train_never_had():
    found = table(baselines(numbers([1, 2, 3, 4]), numbers([1, 2, 9, 9])))
    assert found["mine", "number", "chance"].value == pytest.approx(2 / 4 / 4)


def test_what_the_question_gives_away_is_found():
    def some(n):
        return [
            Item(
                f"{i}",
                "leak",
                f"Is it {'red' if i % 2 else 'blue'} number {i}?",
                "yes" if i % 2 else "no",
            )
            for i in range(n)
        ]

    found = table(baselines(some(40), some(30)))
    assert found["leak", "yes_no", "majority"].value == 0.5
    assert found["leak", "yes_no", "question"].value == 1
    assert found["leak", "yes_no", "words"].value == 1
    assert set(r.baseline for r in found.values()) == set(STRATEGIES) - {"rank"}


def test_options_that_give_themselves_away_are_found():
    def some(n, start=0):
        made = []
        for i in range(start, start + n):
            options = [str(i * 10 + d) for d in (0, 1, 2)]
            order = [options[(i + k) % 3] for k in range(3)]
            answer = "ABC"[order.index(options[1])]  # always the middle one, at a changing letter
            question = f"How many?\n(A) {order[0]}\n(B) {order[1]}\n(C) {order[2]}"
            made.append(Item(f"{i}", "middle", question, answer, options=tuple(order)))
        return made

    found = table(baselines(some(30), some(30, 1000)))
    assert found["middle", "option", "rank"].value == 1
    assert found["middle", "option", "chance"].value == pytest.approx(1 / 3)
    assert found["middle", "option", "majority"].value == pytest.approx(1 / 3)


def test_in_multiple_choice_the_likeliest_text_is_chosen_and_not_the_letter():
    options = [("red", "blue"), ("blue", "red")]
    items = [
        Item(f"{i}", "t", "Which?", "AB"[options[i % 2].index("red")], options=options[i % 2])
        for i in range(20)
    ]
    found = table(baselines(items, items))
    assert found["t", "option", "majority"].value == 0.5
    assert found["t", "option", "question"].value == 1
    assert found["t", "option", "words"].value == 1


def test_formats_of_one_task_are_kept_apart_and_broken_items_left_out():
    mixed = [
        *numbers([1, 1, 2]),
        Item("x", "mine", "Which?", "A", options=("1", "2")),
        Item("y", "mine", "?", "1", error="broken"),
    ]
    found = table(baselines(mixed, mixed))
    assert {k[:2] for k in found} == {("mine", "number"), ("mine", "option")}
    assert found["mine", "number", "majority"].n == 3


def test_cross_fitting_asks_every_item_once():
    rows = cross_fitted(numbers([1] * 60 + [2] * 40))
    row = table(rows)["mine", "number", "majority"]
    assert row.n == 100
    assert row.value == 0.6
    assert row.says == "1"


def test_nothing_learned_is_no_row():
    assert {r.baseline for r in baselines([], numbers([1]))} == set()
    assert {r.baseline for r in baselines([], [Item("x", "t", "?", "A", options=("1", "2"))])} == {
        "chance"
    }


def test_built_in_tasks_on_both_splits():
    found = table(of_tasks(["count"], 40, 0))
    assert found["count", "number", "majority"].n == 40
    assert 0 < found["count", "number", "majority"].value < 0.6
    assert set(tasks.names()) <= set(default_names())


def test_the_command(capsys, tmp_path):
    assert run_command(["tasks", "baselines", "read", "--samples", "20", "--json"], False) == 0
    found = json.loads(capsys.readouterr().out)["baselines"]
    assert [row["baseline"] for row in found] == ["chance", "majority", "question", "words"]
    assert all(row["n"] == 20 and row["low"] <= row["value"] <= row["high"] for row in found)
    rows = "\n".join(json.dumps({"question": "how?", "answer": "yes"}) for _ in range(12))
    (tmp_path / "mine.jsonl").write_text(rows)
    assert run_command(["tasks", "baselines", "--data", str(tmp_path / "mine.jsonl")], False) == 0
    assert "1.000" in capsys.readouterr().out
    assert run_command(["tasks", "baselines", "raed"], False) == 2
    assert "did you mean 'read'" in capsys.readouterr().err
