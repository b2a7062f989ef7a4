"""Recipes after published systems: each runs on the creature to a checkpoint at a few steps, the
large ones plan; where a stage starts, and what its KL refers to.
"""

import json
import signal
from contextlib import suppress

import pytest
import torch
from safetensors.torch import load_file

from franken.cli import run_command
from franken.errors import UsageError
from trainer.loop import run_train
from trainer.plan import memory_plan
from trainer.recipe import load_recipe, parse_recipe
from trainer.recipe_files import describe, recipe_groups

SYSTEMS = recipe_groups()["systems"]
SMALL = {"steps": 1, "batch": 2, "prompts": 2, "group": 4, "warmup": 0, "max_new_tokens": 8}


@pytest.mark.parametrize("name", [n for n in SYSTEMS if n.endswith("creature")])
def test_a_system_runs_on_the_creature(name, tmp_path):
    recipe = load_recipe(name, ("device=cpu",)).model_dump(mode="json")
    for stage in recipe["stages"]:
        stage |= {key: value for key, value in SMALL.items() if key in stage}
    final = run_train(parse_recipe(recipe), tmp_path / "run")
    assert (final / "model.safetensors").exists()


@pytest.mark.parametrize("name", [n for n in SYSTEMS if not n.endswith("creature")])
def test_a_large_system_is_planned_and_says_what_it_is(name):
    plan = memory_plan(load_recipe(name), memory=1e6, processes=8)
    assert plan.fits, plan.problems
    assert "arXiv" in describe(name)


def test_vision_r1_keeps_length_times_group():
    for name, length in (("vision-r1-7b", 4096), ("vision-r1-creature", 32)):
        stages = [s for s in load_recipe(name).stages if s.kind == "grpo"]
        assert [(s.max_new_tokens, s.group) for s in stages] == [(length, 16), (2 * length, 8)]


def test_the_list_has_groups(capsys):
    assert run_command(["train", "--list"], False) == 0
    said = capsys.readouterr().out
    assert said.index("the creature:") < said.index("papers and data:") < said.index("systems:")
    assert said.index("systems:") < said.index("vision-r1-creature")


SFT = {"kind": "sft", "steps": 2, "batch": 2, "lr": 1e-2, "tasks": {"sum": 1}, "freeze": ["vision"]}
RL = {"kind": "grpo", "steps": 3, "prompts": 2, "group": 4, "lr": 1e-2, "tasks": {"sum": 1},
      "max_new_tokens": 12, "beta": 0.1, "entropy_bonus": 0.1, "freeze": ["vision"], "seed": 5}  # fmt: skip


def recipe_of(*stages, **keys):
    common = {"name": "x", "model": "creature:sft", "device": "cpu"}
    return parse_recipe({**common, "stages": stages, **keys})


def updates(out):
    return [json.loads(line) for line in (out / "metrics.jsonl").read_text().splitlines()]


def weights(out):
    return load_file(out / "final" / "model.safetensors")


def test_a_kl_refers_to_the_start_of_its_stage(tmp_path):
    """Zero at the stage's first update, unlike the one to the recipe's model; resumed, the same."""

    def stop(line):
        if line.update.update == 4:
            signal.raise_signal(signal.SIGINT)

    to_start = recipe_of(SFT, RL | {"reference": "start", "save_every": 1})
    run_train(to_start, tmp_path / "one")
    run_train(recipe_of(SFT, RL), tmp_path / "recipe")
    assert abs(updates(tmp_path / "one")[2]["kl"]) < 1e-6
    assert updates(tmp_path / "one")[4]["kl"] > 1e-4
    assert updates(tmp_path / "recipe")[2]["kl"] > 1e-4
    with suppress(KeyboardInterrupt):
        run_train(to_start, tmp_path / "cut", report=stop)
    run_train(to_start, tmp_path / "cut")
    one, cut = weights(tmp_path / "one"), weights(tmp_path / "cut")
    assert all(torch.equal(one[name], cut[name]) for name in one)


def test_a_stage_that_starts_anew_is_that_stage_alone(tmp_path):
    second = SFT | {"seed": 9, "tasks": {"count": 1}}
    run_train(recipe_of(SFT, second | {"start": "recipe"}), tmp_path / "two")
    run_train(recipe_of(second), tmp_path / "one")
    one, two = weights(tmp_path / "one"), weights(tmp_path / "two")
    assert all(torch.equal(one[name], two[name]) for name in one)


def test_starts_that_cannot_be_kept_are_refused():
    with pytest.raises(UsageError):
        recipe_of(SFT, SFT | {"start": "recipe"}, sharding="fsdp")
