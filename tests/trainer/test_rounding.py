"""bfloat16 weights and small learning rates: what is said to stand still stands still in a real
optimiser.
"""

import logging

import pytest
import torch

from franken.cli import run_command
from trainer.plan import memory_plan
from trainer.recipe import load_recipe
from trainer.recipe_files import recipe_names
from trainer.rounding import STEPS, lost_updates


@pytest.mark.parametrize("lr", [1e-6, 3e-5, 1e-4])
def test_no_weight_above_512_rates_moves_and_smaller_ones_do(lr):
    size = torch.logspace(-8, 1, 4000)
    weight = torch.nn.Parameter(torch.cat([size, -size]).to(torch.bfloat16))
    before = weight.detach().clone()
    optimizer = torch.optim.AdamW([weight], lr=lr, weight_decay=0.0)
    for _ in range(30):  # always the same way, which no real gradient does
        weight.grad = torch.ones_like(weight)
        optimizer.step()
    moved = (weight != before) & (before.abs() > 0)
    assert not moved[before.abs() > 1.02 * STEPS * lr].any()
    assert moved[before.abs() < 0.98 * STEPS / 2 * lr].all()


def test_it_is_said_where_most_weights_would_stand_still(caplog, capsys):
    def lines(*overrides):
        return lost_updates(load_recipe("creature-grpo", overrides))

    low = ("dtype=bf16", "stages.0.lr=1.0e-6")
    assert "stage 0" in lines(*low)[0]
    assert "0.00051" in lines(*low)[0]
    assert not lines("stages.0.lr=1.0e-6")
    assert not lines("dtype=bf16", "stages.0.lr=1.0e-4")
    assert not lines(*low, "lora={rank: 4}")
    with caplog.at_level(logging.WARNING):
        assert (
            run_command(
                ["train", "creature-grpo", "--dry-run", "--json", *[f"--set={x}" for x in low]],
                False,
            )
            == 0
        )
    assert "no weight above" in caplog.text


@pytest.mark.parametrize("name", recipe_names())
def test_no_recipe_of_ours_stands_still(name):
    assert lost_updates(load_recipe(name)) == []


@pytest.mark.parametrize(("lr", "offered"), [("1.0e-6", False), ("3.0e-4", True)])
def test_the_plan_offers_bf16_only_where_it_trains(lr, offered):
    plan = memory_plan(load_recipe("creature-rl", (f"stages.0.lr={lr}",)), memory=0.01)
    assert not plan.fits
    assert any("bf16" in change for change in plan.changes) == offered
    assert any(change.startswith("all of these") for change in plan.changes)
