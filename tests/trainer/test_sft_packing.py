"""Packed supervised rows against each example alone, and against the padded batch: losses,
gradients, whole runs.
"""

import json
from copy import deepcopy
from dataclasses import replace

import pytest
import torch
from safetensors.torch import load_file
from torch.nn import functional as F

from franken.errors import UsageError
from franken.models.batch import ModelBatch
from franken.models.loading import wrap
from franken.models.tiny import IMAGE, tiny
from trainer import loop, sft
from trainer.data import Batch, Conversation, encode
from trainer.freeze import apply_freeze
from trainer.masks import dense_mask, segments
from trainer.recipe import parse_recipe
from trainer.sft_packing import backward, pack_examples, packed_losses

MIXTURE = {"count": 1.0, "sum": 1.0, "dialogue": 1.0, "caption": 1.0}
GRIDS = [(1, 4, 4), None, (1, 4, 8), (1, 8, 4), None]


def gradients(model):
    found = {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}
    model.zero_grad()
    return found


def assert_equal(found, wanted, tolerance):
    assert found.keys() == wanted.keys()
    for name, gradient in wanted.items():
        assert (found[name] - gradient).abs().max() <= tolerance * gradient.abs().max().clamp(
            min=1e-6
        ), name


@pytest.fixture
def examples():
    """Puzzles and dialogues of several turns and weights, with an image, and one without."""
    drawn = [sft.conversation(MIXTURE, seed=4, index=i) for i in range(6)]
    assert len({c.weight for c in drawn}) > 1
    return [*drawn[:3], Conversation(None, [("What is two and two?", "four")], 1.5), *drawn[3:]]


@pytest.mark.parametrize("budget", [0, 200, 1], ids=["one row", "some rows", "a row each"])
def test_packed_equals_every_example_alone_and_the_padded_batch(fresh_creature, examples, budget):
    """In double precision, the logits apart, which are single in both."""
    loaded = replace(fresh_creature, model=deepcopy(fresh_creature.model).double())
    model = loaded.model
    batch = encode(loaded, examples)
    losses, weights, seen = [], [], 0
    for example in examples:  # alone: no padding, no mask, the model's own positions
        own = encode(loaded, [example])
        kept = {
            k: v
            for k, v in dict(own.inputs).items()
            if k in ("input_ids", "pixel_values", "image_grid_thw")
        }
        kinds = (kept["input_ids"] == model.config.image_token_id).int()
        logits = model(**kept, mm_token_type_ids=kinds).logits[0, :-1].float()
        wanted = own.labels[0, 1:]
        each = F.cross_entropy(logits[wanted >= 0], wanted[wanted >= 0], reduction="none")
        losses.append(each * example.weight)
        weights.append(example.weight * len(each))
        seen += len(each)
    expected = torch.cat(losses).sum() / sum(weights)
    expected.backward()
    alone = gradients(model)
    loss, padded_metrics = sft.loss(loaded, batch)
    loss.backward()
    padded = gradients(model)
    rows = pack_examples(loaded, batch, budget)
    lengths = batch.inputs.attention_mask.sum(1)
    assert sum(len(row.segments) for row in rows) == int(
        lengths.sum()
    )  # nothing is padded, nothing is lost
    assert (len(rows) == 1) == (budget == 0)
    assert (
        all(len(row.segments) <= budget or row.segments.owner.max() == 1 for row in rows)
        or not budget
    )
    metrics = backward(loaded, rows)
    assert metrics["loss"] == pytest.approx(expected.item(), rel=1e-6)
    assert metrics == pytest.approx(padded_metrics, rel=1e-6)
    assert metrics["tokens"] == seen
    packed = gradients(model)
    assert_equal(packed, alone, 1e-5)
    assert_equal(packed, padded, 1e-5)


def by_hand(family, frozen):
    """Right-padded examples with images of several sizes and without: a batch as `encode` makes
    it.
    """
    loaded = wrap(tiny(family), None, None)
    apply_freeze(loaded.model, frozen)
    generator = torch.Generator().manual_seed(0)
    rows = [
        [5, *([IMAGE] * (g[1] * g[2] // 4) if g else ()), *range(7, 12 + 2 * i)]
        for i, g in enumerate(GRIDS)
    ]
    width = max(map(len, rows))
    ids = torch.tensor([row + [0] * (width - len(row)) for row in rows])
    mask = torch.tensor([[1] * len(row) + [0] * (width - len(row)) for row in rows])
    labels = torch.tensor(
        [[-100] * (len(r) - 4) + r[-4:] + [-100] * (width - len(r)) for r in rows]
    )
    grids = torch.tensor([grid for grid in GRIDS if grid])
    pixels = torch.randn(int(grids.prod(1).sum()), 3 * 2 * 14 * 14, generator=generator)
    inputs = {
        "input_ids": ids,
        "attention_mask": mask,
        "image_grid_thw": grids,
        "pixel_values": pixels,
    }
    encoded = ModelBatch.of(loaded.model, inputs, [int(bool(g)) for g in GRIDS])
    return loaded, Batch(encoded, labels, torch.tensor([1.0, 2.0, 1.0, 0.5, 1.0]))


@pytest.mark.parametrize("family", ["qwen2_vl", "qwen2_5_vl", "qwen3_vl"])
@pytest.mark.parametrize("frozen", [(), ("vision", "projector", "embed", "text:0-2")])
def test_images_of_every_size_stay_with_their_example(family, frozen):
    loaded, batch = by_hand(family, frozen)
    loss, metrics = sft.loss(loaded, batch)
    loss.backward()
    wanted = gradients(loaded.model)
    for budget in (0, 40, 25):
        assert backward(loaded, pack_examples(loaded, batch, budget)) == pytest.approx(
            metrics, rel=1e-5
        )
        assert_equal(gradients(loaded.model), wanted, 1e-4)


def test_the_mask_keeps_examples_apart():
    owner, place = torch.tensor([1, 1, 1, 2, 2, 3]), torch.tensor([0, 1, 2, 0, 1, 0])
    seen = dense_mask(segments(owner, place, owner < 0))[0, 0]
    wanted = torch.block_diag(*(torch.ones(n, n).tril() for n in (3, 2, 1))).bool()
    assert torch.equal(seen, wanted)


def test_chunks_of_the_head_do_not_show(fresh_creature, examples):
    row = pack_examples(fresh_creature, encode(fresh_creature, examples))[0]
    whole, likely = packed_losses(fresh_creature, row)
    cut, same = packed_losses(fresh_creature, row, chunk=7)
    assert torch.allclose(whole, cut, atol=1e-6)
    assert torch.equal(likely, same)


def recipe(**stage):
    base = {
        "kind": "sft",
        "steps": 3,
        "lr": 1e-3,
        "batch": 5,
        "tasks": MIXTURE,
        "freeze": ["vision", "projector"],
    }
    return parse_recipe({"name": "x", "model": "creature:base", "stages": [base | stage]})


def test_a_packed_run_is_the_padded_run_to_rounding(tmp_path):
    settings = {
        "padded": {},
        "packed": {"packed": True},
        "budget": {"packed": True, "token_budget": 300},
    }
    runs = {
        name: loop.run_train(recipe(**keys), tmp_path / name) for name, keys in settings.items()
    }
    weights = {name: load_file(run / "model.safetensors") for name, run in runs.items()}
    logs = {
        name: [json.loads(line) for line in (run.parent / "metrics.jsonl").read_text().splitlines()]
        for name, run in runs.items()
    }
    for name in ("packed", "budget"):
        for line, other in zip(logs[name], logs["padded"], strict=True):
            assert line["loss"] == pytest.approx(other["loss"], abs=1e-4)
            assert line["grad_norm"] == pytest.approx(other["grad_norm"], rel=1e-3)
            assert line["tokens"] == other["tokens"]
        # Adam's first steps are of the size lr whatever the gradient's: where that is nearly zero,
        # rounding decides the sign
        moved = torch.cat(
            [(weights[name][n] - w).abs().flatten() for n, w in weights["padded"].items()]
        )
        assert (moved > 1e-4).float().mean() < 0.01


def test_a_budget_needs_packing():
    with pytest.raises(UsageError) as caught:
        recipe(token_budget=100)
    assert "needs packed: true" in caught.value.why
