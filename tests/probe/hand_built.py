"""Ids and pixels by hand for tiny models of every family that probing speaks of: one image, then a
question, then a reply.
"""

import torch

from franken.models.batch import ModelBatch
from franken.models.tiny import TINY_VISION, tiny, tiny_inputs
from franken.models.tokens import TokenMap
from franken.probe.patch import token_groups

# Those whose decoders differ in what probing touches.
FAMILIES = tuple(
    name
    for name in TINY_VISION
    if name
    not in ("qwen2_vl", "glm46v", "llava", "llava_next", "mistral3", "idefics3", "qwen3_vl_moe")
)


def hand_built(family: str, seed: int = 0) -> ModelBatch:
    """A batch of one row, of text alone for text models; the ids are the same for every seed, the
    pixels differ.
    """
    pixels = {k: v for k, v in tiny_inputs(family, seed=seed).items() if k == "pixel_values"}
    return ModelBatch.of(tiny(family), tiny_inputs(family) | pixels, [int(bool(pixels))])


seeing = tiny  # whose answer depends on the image


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
        else model.get_decoder().layers[layer].self_attn.head_dim
    )
    columns = slice(None) if head is None else slice(head * width, (head + 1) * width)
    stored = []

    def module_of(owner):
        layers = owner.get_decoder().layers
        block = layers[layer]
        attention = getattr(block, "self_attn", None) or block.linear_attn
        if site == "heads":
            return attention.o_proj
        named = {"attn": attention, "mlp": block.mlp}
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
