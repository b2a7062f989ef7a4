"""Tiny and real-size models."""

import pytest
import torch

from franken.errors import UsageError
from franken.models.tiny import TINY_FAMILIES, constant, real_size, tiny, tiny_inputs
from franken.names import place


@pytest.mark.parametrize(
    "model_type", ["qwen2_5_vl", "qwen3_vl", "llava_onevision", "qwen2", "qwen3"]
)
def test_real_sizes_have_real_names_and_no_memory(model_type):
    model = real_size(model_type)
    places = [place(name, model_type) for name, _ in model.named_parameters()]
    assert max(p.layer for p in places if p.part == "text" and p.layer is not None) in (27, 35)
    assert 6.5e9 < sum(p.numel() for p in model.parameters()) < 9.5e9
    assert {p.device.type for p in model.parameters()} == {"meta"}


@pytest.mark.parametrize("model_type", TINY_FAMILIES)
@torch.no_grad()
def test_tiny_models_are_the_same_for_the_same_seed_and_run(model_type):
    a, b, c = tiny(model_type, 1), tiny(model_type, 1), tiny(model_type, 2)
    inputs = tiny_inputs(model_type, 2)
    assert torch.equal(a(**inputs).logits, b(**inputs).logits)
    assert not torch.equal(a(**inputs).logits, c(**inputs).logits)
    assert all((p == 2.0).all() for p in constant(a, 2.0).parameters())


def test_unknown_families():
    for make in (tiny, real_size):
        with pytest.raises(UsageError):
            make("gpt5_vl")
