"""LoRA: only the adapters train, the merged export is W + s·B·A and loads completely, and a run
resumes bit for bit.
"""

import signal

import pytest
import torch
from safetensors.torch import load_file

from franken.errors import UsageError
from franken.models.loading import load
from trainer import loop, state
from trainer.freeze import apply_freeze
from trainer.lora import add_lora, merge_lora
from trainer.recipe import parse_recipe


def recipe(**changes):
    stage = {
        "kind": "grpo",
        "steps": 3,
        "prompts": 2,
        "group": 6,
        "max_new_tokens": 24,
        "lr": 3e-3,
        "save_every": 1,
    }
    stage |= {"tasks": {"count": 1.0}, "temperature": 1.2, "beta": 0.01, **changes}
    lora = {"rank": 4, "alpha": 8, "targets": ["text:0-3.attn"]}
    return parse_recipe(
        {"name": "t", "model": "creature:sft", "device": "cpu", "lora": lora, "stages": [stage]}
    )


def test_the_export_is_the_base_plus_the_products_and_resumes(tmp_path):
    final = loop.run_train(recipe(), tmp_path / "whole")
    base, after = load("creature:sft", device="cpu").model, load(str(final), device="cpu").model
    stored = load_file(state.finished(tmp_path / "whole")[-1] / "model.safetensors")
    before, merged = dict(base.named_parameters()), dict(after.named_parameters())
    assert set(before) == set(merged)
    moved = set()
    for name, weight in before.items():
        module = name.removesuffix(".weight")
        a, b = (stored.get(f"{module}.lora_{x}.default.weight") for x in "AB")
        if a is None or b is None:
            assert torch.equal(weight, merged[name]), name
        else:
            assert torch.allclose(merged[name], weight + 8 / 4 * b @ a, atol=1e-6)
            moved |= {name} if not torch.equal(weight, merged[name]) else set()
    assert len(moved) == 12  # q, k, v, o of three layers

    def interrupt(now):
        if now.update.update == 2:
            signal.raise_signal(signal.SIGINT)

    with pytest.raises(KeyboardInterrupt):
        loop.run_train(recipe(), tmp_path / "cut", report=interrupt)
    cut = loop.run_train(recipe(), tmp_path / "cut")
    assert (cut / "model.safetensors").read_bytes() == (final / "model.safetensors").read_bytes()


def test_only_adapters_train_and_a_freeze_reaches_them():
    model = load("creature:sft", device="cpu").model
    chosen = add_lora(model, rank=2, alpha=2, targets=["text:0-2"], seed=0)
    assert len(chosen) == 14
    apply_freeze(model, ["text:0-1"])
    trains = {name for name, p in model.named_parameters() if p.requires_grad}
    assert len(trains) == 14  # A and B of the seven of layer 1
    assert all(".layers.1." in name and ".lora_" in name for name in trains)


def test_an_adapter_changes_nothing_before_it_trains():
    model, same = (load("creature:sft", device="cpu").model for _ in range(2))
    add_lora(model, rank=2, alpha=2, targets=["text.attn", "vision.mlp"], seed=0)
    merge_lora(model)
    a, b = model.state_dict(), same.state_dict()
    assert a.keys() == b.keys()
    assert all(torch.equal(a[name], b[name]) for name in a)


@pytest.mark.parametrize("target", ["norm", "head", "text.atn"])
def test_targets_without_a_linear_layer_are_refused(target):
    with pytest.raises(UsageError):
        add_lora(
            load("creature:sft", device="cpu").model, rank=2, alpha=2, targets=[target], seed=0
        )
