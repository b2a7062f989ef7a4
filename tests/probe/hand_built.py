"""Ids and pixels by hand for tiny models of every family that probing speaks of: one image, then a
question, then a reply.
"""

import torch

from franken.models.batch import Images, ModelBatch
from franken.models.positions import plain_positions
from franken.models.tiny import tiny, tiny_inputs
from franken.models.tiny_configs import IMAGE

PIXELS = {  # shape of the pixels, and how many visual tokens they become
    "internvl": ((1, 3, 28, 28), 1),
    "gemma3": ((1, 3, 28, 28), 4),
    "smolvlm": ((1, 1, 3, 28, 28), 1),
    "llava": ((1, 3, 28, 28), 4),
    "qwen2_vl": ((16, 3 * 2 * 14 * 14), 4),
}
FAMILIES = (
    "qwen2_vl",
    "qwen2_5_vl",
    "qwen3_vl",
    "llava_onevision",
    "internvl",
    "gemma3",
    "smolvlm",
)


def hand_built(family: str, seed: int = 0) -> ModelBatch:
    """A batch of one row, of text alone for text models; the ids are the same for every seed, the
    pixels differ.
    """
    model = tiny(family)
    if family not in PIXELS:
        pixels = {k: v for k, v in tiny_inputs(family, seed=seed).items() if k == "pixel_values"}
        return ModelBatch.of(model, tiny_inputs(family) | pixels, [int(bool(pixels))])
    shape, tokens = PIXELS[family]
    ids = torch.tensor([[5, *[IMAGE] * tokens, 17, 23, 41]])
    generator = torch.Generator().manual_seed(seed)
    batch = {"input_ids": ids, "attention_mask": torch.ones_like(ids)}
    batch["pixel_values"] = torch.randn(shape, generator=generator)
    if family == "qwen2_vl":
        batch["image_grid_thw"] = torch.tensor([[1, 4, 4]])
    if family == "llava":  # not among the families that franken loads
        images = Images((1,), (1,), batch["pixel_values"])
        mask = batch["attention_mask"]
        return ModelBatch(ids, plain_positions(mask), images, mask, image_token_id=IMAGE)
    return ModelBatch.of(model, batch, [1])


def seeing(family: str) -> torch.nn.Module:
    """A tiny model whose answer depends on the image: Gemma's projector is born as zero."""
    model = tiny(family)
    if family == "gemma3":
        with torch.no_grad():
            weight = model.model.multi_modal_projector.mm_input_projection_weight
            weight.copy_(torch.randn(weight.shape, generator=torch.Generator().manual_seed(0)))
    return model
