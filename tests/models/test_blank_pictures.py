"""The blank picture that keeps a sharded tower in step, in every family: its gradient reaches just
the weights that a real picture's reaches, since sharded sums are of one list of weights.
"""

import pytest
import torch
from PIL import Image
from tiny_processors import tiny_loaded

from franken.generate.native import Prompt, encode_prompts
from trainer.towers import blank_features

FAMILIES = [
    "qwen2_vl",
    "qwen2_5_vl",
    "qwen3_vl",
    "gemma3",
    "internvl",
    "llava_onevision",
    "smolvlm",
]


def reached(model):
    """Weights outside of the decoder that have a gradient, which is then dropped."""
    decoder = {id(p) for p in model.get_decoder().parameters()}
    decoder |= {id(p) for p in model.get_output_embeddings().parameters()}
    names = {n for n, p in model.named_parameters() if p.grad is not None and id(p) not in decoder}
    model.zero_grad(set_to_none=True)
    return names


@pytest.mark.parametrize("family", FAMILIES)
def test_its_gradient_reaches_what_a_picture_s_does(family):
    loaded = tiny_loaded(family)
    model = loaded.model.requires_grad_(True)
    total = blank_features(loaded)
    assert total.shape == ()
    assert torch.isfinite(total)
    (0.0 * total).backward()
    assert all(not p.grad.any() for p in model.parameters() if p.grad is not None)
    blank = reached(model)
    batch = encode_prompts(loaded, [Prompt("w3", (Image.new("RGB", (56, 28), "red"),))])
    model.model(**batch, use_cache=False).last_hidden_state.sum().backward()
    assert blank == reached(model)
    assert blank
