"""RL on rows of a table: every row once an epoch, graded by its type, images and all."""

import json
from collections import Counter

import pytest
import torch
from PIL import Image

from franken.errors import FrankenError, UsageError
from trainer import loop
from trainer.grpo import grpo_step
from trainer.public import public_items, rows_of
from trainer.recipe import parse_recipe
from trainer.stages import GrpoStage


@pytest.fixture
def table(tmp_path):
    rows = []
    for i in range(5):
        Image.new("RGB", (84, 84), (50 * i, 0, 0)).save(tmp_path / f"{i}.png")
        rows.append({"question": f"How many are red? {i}", "answer": str(i), "image": f"{i}.png"})
    file = tmp_path / "rows.jsonl"
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return file


def stage_on(data, **changes):
    return GrpoStage(
        kind="grpo",
        steps=2,
        lr=1e-4,
        data=str(data),
        prompts=2,
        group=3,
        max_new_tokens=6,
        entropy_bonus=0.01,
        **changes,
    )


def test_every_row_comes_once_an_epoch():
    seen = [row for step in range(10) for row in rows_of(7, 3, seed=1, step=step)]
    for epoch in range(4):
        assert sorted(seen[7 * epoch : 7 * epoch + 7]) == list(range(7))
    assert seen[:7] != seen[7:14]
    assert rows_of(7, 3, seed=1, step=4) == seen[12:15]
    assert Counter(rows_of(3, 9, seed=0, step=0)) == {0: 3, 1: 3, 2: 3}


def test_rows_keep_their_image_and_answer(table):
    items = public_items(str(table), 5, seed=0, step=0)
    assert len({item.id for item in items}) == 5
    for item in items:
        number = int(item.answer)
        assert item.image.getpixel((3, 3))[0] == 50 * number
        assert str(number) in item.question


def test_a_step_on_public_rows_trains(sft_creature, table):
    found = grpo_step(sft_creature, stage_on(table), lambda: 0.0, None, seed=0, step=0)
    gradients = [p.grad for p in sft_creature.model.parameters() if p.grad is not None]
    assert sum(g.abs().sum() for g in gradients) > 0
    assert "strategies" not in found
    assert 0 <= found["correct"] <= 1
    sft_creature.model.zero_grad()


def test_a_run_on_public_rows_is_the_same_twice(table, tmp_path):
    raw = {
        "name": "x",
        "model": "creature:sft",
        "stages": [stage_on(table, freeze=("vision",)).model_dump(mode="json")],
    }
    runs = [loop.run_train(parse_recipe(raw), tmp_path / name) for name in ("a", "b")]
    logs = [(run.parent / "metrics.jsonl").read_text().splitlines() for run in runs]
    assert [json.loads(x)["loss"] for x in logs[0]] == [json.loads(x)["loss"] for x in logs[1]]
    assert not torch.cuda.is_initialized()


def test_rows_that_cannot_be_asked_are_named(table, tmp_path):
    bad = tmp_path / "bad.jsonl"
    bad.write_text(
        table.read_text() + json.dumps({"question": "?", "answer": "1", "image": "none.png"}) + "\n"
    )
    with pytest.raises(FrankenError, match="row 5"):
        public_items(str(bad), 6, seed=0, step=0)


def test_a_stage_has_tasks_or_data(table):
    with pytest.raises(ValueError, match="either tasks or data"):
        stage_on(table, tasks={"count": 1.0})
    with pytest.raises(UsageError, match="no data"):
        stage_on("nowhere")
