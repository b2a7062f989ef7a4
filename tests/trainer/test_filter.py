"""Prompt filtering: groups all right or all wrong are dropped and drawn anew, by accuracy, up to a
bound, and resumably.
"""

import json
import signal

import pytest
from safetensors.torch import load_file

from franken.tasks import Grade
from trainer import loop, rollout
from trainer.grpo import grpo_step
from trainer.recipe import parse_recipe
from trainer.rollout import draw
from trainer.stages import GrpoStage

BASE = {
    "kind": "grpo",
    "steps": 4,
    "prompts": 4,
    "group": 4,
    "max_new_tokens": 24,
    "lr": 3e-4,
    "save_every": 1,
}
BASE |= {
    "tasks": {"sum": 1.0, "count": 1.0},
    "filter": "accuracy",
    "freeze": ["vision", "projector"],
}


def numbers(items):
    return [int(item.id.rsplit("-", 1)[1]) for item in items]


@pytest.fixture
def scripted(monkeypatch):
    """Every third puzzle is always solved, every third never, the others now and then."""
    calls = []

    def grade(text, item):
        calls.append(item.id)
        kind = numbers([item])[0] % 3
        return Grade(1.0 if kind == 0 or (kind == 2 and len(calls) % 2) else 0.0, "", "", True)

    monkeypatch.setattr(rollout.tasks, "grade", grade)


@pytest.mark.parametrize(
    ("refill", "kept", "tried", "right", "wrong"),
    [
        (0, [2], 4, 2, 1),
        (1, [2, 5], 7, 3, 2),
        (2, [2, 5, 8], 9, 3, 3),
        (9, [2, 5, 8, 11], 12, 4, 4),
    ],
)
def test_groups_that_teach_nothing_are_drawn_anew(
    sft_creature, scripted, refill, kept, tried, right, wrong
):
    found = draw(sft_creature, GrpoStage(**{**BASE, "refill": refill}), seed=3, step=0)
    assert numbers(found.items) == kept
    assert {k: found.counts[k] for k in ("groups", "tried", "all_right", "all_wrong")} == {
        "groups": len(kept),
        "tried": tried,
        "all_right": right,
        "all_wrong": wrong,
    }
    assert found.counts["correct"] == pytest.approx((right + 0.5 * len(kept)) / tried)
    assert found.batch.encoded.rows == len(kept) == len(found.batch.groups) == len(found.grades)


def test_what_is_kept_was_sampled_as_without_a_filter(sft_creature):
    stage = GrpoStage(**{**BASE, "prompts": 6})
    plain = draw(sft_creature, stage.model_copy(update={"filter": "none"}), seed=1, step=2)
    found = draw(sft_creature, stage, seed=1, step=2)
    assert plain.counts == {}
    mixed = [i for i, row in enumerate(plain.grades) if len({g.score == 1.0 for g in row}) == 2]
    assert 0 < len(mixed) < 6
    assert numbers(found.items)[: len(mixed)] == mixed
    for at, i in enumerate(mixed):
        assert [r.ids for r in found.batch.groups[at]] == [r.ids for r in plain.batch.groups[i]]


@pytest.mark.parametrize("score", [0.0, 1.0])
def test_rewards_that_differ_do_not_save_a_group(sft_creature, monkeypatch, score):
    """Every answer is as right as the others; the reward (length) would have told them apart."""
    monkeypatch.setattr(rollout.tasks, "grade", lambda text, item: Grade(score, "", "", True))
    stage = GrpoStage(**{**BASE, "refill": 2, "temperature": 1.5, "overlong_buffer": 23})
    metrics = grpo_step(sft_creature, stage, lambda: pytest.fail("an update"), None, seed=0, step=0)
    assert metrics == {
        "loss": 0.0,
        "grad_norm": 0.0,
        "correct": score,
        "groups": 0.0,
        "tried": 12.0,
        "all_right": 12.0 * score,
        "all_wrong": 12.0 * (1 - score),
    }


def test_a_filtered_run_resumes_bit_for_bit(tmp_path):
    recipe = parse_recipe({"name": "t", "model": "creature:sft", "device": "cpu", "stages": [BASE]})
    whole = loop.run_train(recipe, tmp_path / "whole")

    def interrupt(now):
        if now.update.update == 2:
            signal.raise_signal(signal.SIGINT)

    with pytest.raises(KeyboardInterrupt):
        loop.run_train(recipe, tmp_path / "cut", report=interrupt)
    cut = loop.run_train(recipe, tmp_path / "cut")
    a, b = (load_file(f / "model.safetensors") for f in (whole, cut))
    assert all((a[n] == b[n]).all() for n in a)
    lines = [
        [json.loads(x) for x in (tmp_path / n / "metrics.jsonl").open()] for n in ("whole", "cut")
    ]
    assert [x | {"cpu_seconds": 0} for x in lines[0]] == [x | {"cpu_seconds": 0} for x in lines[1]]
    assert any(x["all_right"] + x["all_wrong"] for x in lines[0])
    assert all(x["zero_variance_groups"] == 0 for x in lines[0] if x["groups"])
