"""Held-out rows of public data: never trained on, the same for every seed, asked as the stage asks,
refused where too few.
"""

import json

import pandas as pd
import pytest
from PIL import Image

from franken.cli import run_command
from franken.errors import UsageError
from franken.stats import acc_at_k
from franken.tasks import Grade
from trainer import evaluate, loop, public, watch
from trainer.evaluate import quick_look
from trainer.freeze_study import plan_arms, run_freeze_study
from trainer.public import check_held_out, held_out_items, public_items, split_rows
from trainer.recipe import parse_recipe
from trainer.stages import GrpoStage
from trainer.templates import instruction, template

ROWS = 9


@pytest.fixture
def table(tmp_path):
    rows = []
    for i in range(ROWS):
        Image.new("RGB", (84, 84), (25 * i, 0, 0)).save(tmp_path / f"{i}.png")
        rows.append({"question": f"How many are red? {i}", "answer": str(i), "image": f"{i}.png"})
    file = tmp_path / "rows.jsonl"
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return file


def stage_on(data, **changes):
    defaults = {
        "kind": "grpo",
        "steps": 4,
        "lr": 1e-4,
        "data": str(data),
        "prompts": 2,
        "group": 3,
        "eval_every": 2,
    }
    return GrpoStage(
        **{**defaults, "max_new_tokens": 6, "held_out": 3, "entropy_bonus": 0.01, **changes}
    )


def recipe_on(data, *stages, **keys):
    made = [stage.model_dump(mode="json") for stage in (stages or (stage_on(data),))]
    return parse_recipe({"name": "x", "model": "creature:sft", "stages": made, **keys})


def answers(items):
    return [int(item.answer) for item in items]


def test_what_is_held_out_is_never_trained_on(table):
    held = answers(held_out_items(str(table), 3))
    assert len(set(held)) == 3
    for seed in range(3):
        steps = [
            answers(public_items(str(table), 2, seed=seed, step=step, held_out=3))
            for step in range(9)
        ]
        seen = [row for step in steps for row in step]
        for epoch in range(3):  # every other row once an epoch
            assert sorted([*seen[6 * epoch : 6 * epoch + 6], *held]) == list(range(ROWS))
    everything = [answers(public_items(str(table), 2, seed=1, step=step)) for step in range(9)]
    assert {row for step in everything for row in step} == set(range(ROWS))


def test_more_held_out_rows_hold_out_the_fewer_as_well(table):
    for few, many in ((1, 4), (4, 9)):
        assert set(split_rows(str(table), few)[1]) < set(split_rows(str(table), many)[1])
    learnt, held = split_rows(str(table), 4)
    assert sorted([*learnt, *held]) == list(range(ROWS))
    assert split_rows(str(table), 0) == (list(range(ROWS)), [])


@pytest.mark.parametrize("kind", ["jsonl", "parquet"])
def test_a_question_that_stands_twice_is_on_one_side(tmp_path, kind, monkeypatch):
    """The same words about the same pixels, in a file of another name and kind; the same words
    about others are no twin.
    """
    rows = []
    for i in range(40):
        colour = (5 * (i % 20), 0, 0)  # rows i and i + 20 show the same
        name = f"{i}.{'png' if i < 20 else 'bmp'}"
        Image.new("RGB", (28, 28), colour).save(tmp_path / name)
        text = "How many are red?" if i % 2 else f"How many are  red? {i % 20}"
        rows.append(
            {"question": f" {text}" if i < 20 else text, "answer": str(i), "image": str(name)}
        )
    file = tmp_path / f"rows.{kind}"
    if kind == "jsonl":
        file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    else:
        pd.DataFrame(rows).to_parquet(file)
    monkeypatch.setattr(public, "AT_ONCE", 3)
    learnt, held = split_rows(str(file), 8)
    assert len(held) == 8
    assert not {row % 20 for row in learnt} & {row % 20 for row in held}
    assert {row % 20 for row in [*learnt, *held]} == set(range(20))  # nothing else is left out
    assert len(learnt) == 40 - 2 * len({row % 20 for row in held})
    steps = [
        answers(public_items(str(file), 4, seed=0, step=step, held_out=8)) for step in range(8)
    ]
    assert {row for step in steps for row in step} == set(learnt)
    with pytest.raises(UsageError) as caught:
        check_held_out(str(file), 8, len(learnt) + 1)
    assert f"({32 - len(learnt)} ask what a held-out one asks)" in caught.value.why
    check_held_out(str(file), 8, len(learnt))


def test_a_run_evaluates_the_held_out_rows(table, tmp_path, monkeypatch):
    """What is graded while training and what is graded in an evaluation are different rows; the
    best is kept by them.
    """
    trained, asked = set(), set()
    grade = evaluate.tasks.grade

    def learning(text, item):
        trained.add(int(item.answer))
        return grade(text, item)

    monkeypatch.setattr("trainer.rollout.tasks.grade", learning)
    whole = evaluate._accuracy

    def looking(loaded, stage, items):
        asked.update(answers(items))
        before = set(trained)
        found = whole(loaded, stage, items)
        trained.clear()
        trained.update(before)
        return found

    monkeypatch.setattr(evaluate, "_accuracy", looking)
    out = tmp_path / "run"
    loop.run_train(recipe_on(table, keep={"best": 1}, export="best"), out)
    lines = [json.loads(line) for line in (out / "metrics.jsonl").read_text().splitlines()]
    assert [set(line.get("held_out", {})) for line in lines] == [set(), {"acc@1", "acc@4"}] * 2
    assert asked == set(answers(held_out_items(str(table), 3)))
    assert len(trained) >= 6 - 2
    assert not trained & asked


def test_accuracy_is_that_of_the_replies(sft_creature, table, monkeypatch):
    """acc@1 and acc@4 from scripted verdicts; and the question stands as the stage writes it."""
    verdicts = {}

    def grade(text, item):
        said = verdicts.setdefault(item.id, [])
        said.append(
            float(len(said) < len(verdicts) - 1)
        )  # none of the first row's replies, one of the second's, two …
        return Grade(said[-1], "", "", True)

    monkeypatch.setattr(evaluate.tasks, "grade", grade)
    found = quick_look(sft_creature, stage_on(table))
    assert found["acc@1"] == pytest.approx((0 + 1 / 4 + 2 / 4) / 3)
    assert found["acc@4"] == pytest.approx(sum(acc_at_k(4, c, 4) for c in (0, 1, 2)) / 3)
    stage = stage_on(table, instruct=True)
    prompt = evaluate.prompts_of(stage, held_out_items(str(table), 1))[0]
    assert prompt.text.startswith(instruction(template(stage.shape)))
    assert len(prompt.images) == 1


def test_the_gallery_shows_held_out_rows(sft_creature, table):
    cards = watch.completions(sft_creature, stage_on(table))
    assert [int(card.answer) for card in cards] == answers(held_out_items(str(table), 3))


def test_too_few_rows_are_refused_before_anything_is_trained(table, tmp_path, capsys):
    check_held_out(str(table), 7, 2)
    for held, prompts in ((8, 2), (9, 1), (50, 1)):
        with pytest.raises(UsageError, match="too few rows") as caught:
            check_held_out(str(table), held, prompts)
        assert "9" in caught.value.why
    with pytest.raises(UsageError, match="too few rows"):
        loop.run_train(recipe_on(table, stage_on(table, held_out=8)), tmp_path / "run")
    assert not (tmp_path / "run").exists()
    file = tmp_path / "few.yaml"
    file.write_text(
        json.dumps(recipe_on(table, stage_on(table, held_out=8)).model_dump(mode="json"))
    )
    assert run_command(["train", str(file), "--dry-run"], debug=False) == 2
    assert "too few rows" in capsys.readouterr().err


def test_recipes_that_make_no_sense_are_refused(table):
    with pytest.raises(ValueError, match="held_out needs data"):
        stage_on("", tasks={"count": 1.0})
    with pytest.raises(ValueError, match="held_out needs data"):
        stage_on(table, eval_every=None)
    with pytest.raises(UsageError) as caught:
        recipe_on(table, stage_on(table), stage_on(table, held_out=2))
    assert "hold out as many" in caught.value.why
    with pytest.raises(UsageError) as caught:
        recipe_on(table, stage_on(table, held_out=0), keep={"best": 1}, export="best")
    assert "held_out data" in caught.value.why


def test_a_freeze_study_on_data_asks_the_held_out_rows(table, tmp_path):
    recipe = recipe_on(
        table, stage_on(table, steps=1, eval_every=1, instruct=True, freeze=("vision", "projector"))
    )
    arms = plan_arms(["early"], 8)
    found = run_freeze_study(recipe, arms, [0], tmp_path / "study")
    assert set(found["arm"]) == {"none", "start", "early"}
    answers_of = pd.read_parquet(tmp_path / "study" / "answers.parquet")
    held = {item.id for item in held_out_items(str(table), 3)}
    assert set(answers_of["item"]) == held
    assert answers_of["strategies"].isna().all()
    assert found[found["metric"] == "acc@1"]["value"].notna().all()
    with pytest.raises(UsageError, match="holds no rows of its data out") as caught:
        run_freeze_study(
            recipe_on(table, stage_on(table, held_out=0)), arms, [0], tmp_path / "none"
        )
    assert "held_out=200" in caught.value.fix
