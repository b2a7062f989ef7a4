"""What is frozen from below costs its forward pass alone: operations of real steps, counted."""

from copy import deepcopy
from dataclasses import replace

import pytest
from torch.utils.flop_counter import FlopCounterMode

from trainer import sft
from trainer.freeze import apply_freeze
from trainer.grpo import grpo_step
from trainer.sharding import checkpoint_activations
from trainer.stages import GrpoStage

BELOW = ["vision", "projector", "embed"]


@pytest.fixture
def creature(sft_creature):
    yield sft_creature
    sft_creature.model.zero_grad()
    sft_creature.model.requires_grad_(True)


def operations(loaded, freeze, packed):
    """Of an RL step, sampling included, which is the same for every freeze."""
    apply_freeze(loaded.model, freeze)
    stage = GrpoStage(
        kind="grpo",
        steps=1,
        lr=1e-4,
        tasks={"count": 1.0},
        prompts=2,
        group=3,
        max_new_tokens=8,
        packed=packed,
        entropy_bonus=0.01,
    )
    loaded.model.zero_grad()
    with FlopCounterMode(display=False) as counter:
        grpo_step(loaded, stage, lambda: 0.0, None, seed=0, step=0)
    return counter.get_total_flops()


@pytest.mark.parametrize("packed", [False, True])
def test_every_layer_frozen_from_below_saves_its_whole_backward_pass(creature, packed):
    """All depths alike; and where the gradient has to pass through what is frozen, only half of it
    is saved.
    """
    counts = {
        k: operations(creature, [*BELOW, *([f"text:0-{k}"] if k else [])], packed)
        for k in (0, 1, 4, 7)
    }
    saved = counts[0] - counts[1]
    assert saved > 0
    assert counts == {k: counts[0] - k * saved for k in counts}
    upper = operations(creature, ["text:4-8"], packed)
    assert upper > counts[4]  # the gradient passes through what is frozen above
    through = operations(
        creature, ["vision", "projector", "text:0-4"], packed
    )  # the embeddings train
    assert through - counts[4] == pytest.approx(
        4 * saved / 2, rel=0.25
    )  # the gradient of the inputs of four layers


@pytest.mark.parametrize("packed", [False, True])
def test_what_is_frozen_from_below_is_not_run_again(creature, packed):
    """With activation checkpointing a layer that trains runs once more, up to the last thing that
    its backward pass needs.
    """
    again = replace(creature, model=deepcopy(creature.model))
    checkpoint_activations(again)
    saved = {}
    for name, loaded in (("kept", creature), ("again", again)):
        counts = [operations(loaded, [*BELOW, f"text:0-{k}"], packed) for k in (1, 2, 7)]
        assert counts[0] - counts[2] == 6 * (counts[0] - counts[1])
        saved[name] = counts[0] - counts[1]
    assert 1.3 < saved["again"] / saved["kept"] < 1.5


def test_a_supervised_step_ends_its_backward_pass_there_too(creature):
    batch = sft.next_batch(creature, {"count": 1.0}, 4, seed=0, step=0)
    counts = []
    for k in range(1, 5):
        apply_freeze(creature.model, [*BELOW, f"text:0-{k}"])
        with FlopCounterMode(display=False) as counter:
            sft.loss(creature, batch)[0].backward()
        counts.append(counter.get_total_flops())
    saved = {one - other for one, other in zip(counts, counts[1:], strict=False)}
    layer = creature.model.get_decoder().layers[0]
    matrices = sum(p.numel() for p in layer.parameters() if p.ndim == 2)
    rows, width = batch.inputs.input_ids.shape
    assert len(saved) == 1
    # two products a matrix and token, of two operations each, and what attention adds to them
    assert 1 <= saved.pop() / (2 * 2 * matrices * rows * width) < 1.3
