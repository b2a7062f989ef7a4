"""Ids and pixels by hand for tiny models of every family that probing speaks of: one image, then a
question, then a reply.
"""

import torch

from franken.models.batch import Images, ModelBatch
from franken.models.positions import plain_positions
from franken.models.tiny import tiny, tiny_inputs
from franken.models.tiny_configs import IMAGE
from franken.models.tokens import TokenMap
from franken.probe.patch import token_groups

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


def seeing(family: str, seed: int = 0) -> torch.nn.Module:
    """A tiny model whose answer depends on the image: Gemma's projector is born as zero."""
    model = tiny(family, seed)
    if family == "gemma3":
        with torch.no_grad():
            weight = model.model.multi_modal_projector.mm_input_projection_weight
            weight.copy_(torch.randn(weight.shape, generator=torch.Generator().manual_seed(seed)))
    return model


def groups_of(batch, image_id=90):
    ids = batch.input_ids[0].tolist()
    if image_id not in ids:
        spans = TokenMap(
            slice(0, 0), slice(0, 0), (), slice(0, len(ids) - 2), slice(len(ids) - 2, len(ids))
        )
        return token_groups(spans, len(ids))
    image = slice(ids.index(image_id), len(ids) - ids[::-1].index(image_id))
    spans = TokenMap(
        slice(0, 0),
        slice(0, image.start),
        (image,),
        slice(image.stop, len(ids) - 2),
        slice(len(ids) - 2, len(ids)),
    )
    return token_groups(spans, len(ids))


@torch.no_grad()
def logits(model, batch):
    return model(**batch, use_cache=False).logits[0, -1]


@torch.no_grad()
def by_hand(model, base, donor, site, layer, at, head, giver=None):
    """Store the donor's activation with a hook, put it into the base with another: no resuming, no
    rows. The donor is a batch of the same model, or of `giver`.
    """
    last = layer == len(model.get_decoder().layers) - 1
    before = site == "heads" or (site == "residual" and not last)
    width = (
        model.config.get_text_config().hidden_size
        if head is None
        else model.get_decoder().layers[0].self_attn.head_dim
    )
    columns = slice(None) if head is None else slice(head * width, (head + 1) * width)
    stored = []

    def module_of(owner):
        layers = owner.get_decoder().layers
        block = layers[layer]
        named = {"attn": block.self_attn, "mlp": block.mlp, "heads": block.self_attn.o_proj}
        return named.get(site, block if last else layers[layer + 1])

    def hook(module, put):
        def change(value):
            if not put:
                stored.append(value.clone())
                return value
            value = value.clone()
            value[0, at, columns] = stored[0][0, at, columns]
            return value

        def pre(_, args):
            return (change(args[0]), *args[1:])

        def post(_, args, out):
            return (change(out[0]), *out[1:]) if isinstance(out, tuple) else change(out)

        return (
            module.register_forward_pre_hook(pre) if before else module.register_forward_hook(post)
        )

    for owner, put, batch in ((giver or model, False, donor), (model, True, base)):
        handle = hook(module_of(owner), put)
        out = logits(owner, batch)
        handle.remove()
    return out
