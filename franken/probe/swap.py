"""Visual-token swap: what does the answer become if some layers see another image?

A swap at a set S of layers gives the layers of S, and only those, the keys and values that the *source* run has at the
image positions; the image's own residual stream stays the target's (design §4.5a; Frankenstein paper, appendix D.2.1). In a
causal decoder the images never see the question, so all of them can be computed once: the prompt up to the end of its last
image is prefilled for target and source in one batch, and every set S is a row that reads one or the other in each layer
and runs the question and the answer, from the first layer of S on (`franken.probe.rows`). Text between images is run as well.
The source image enters the cache once, in the prefill; decoding appends nothing but the answer.

`suffix` is S = {ℓ, …, L−1} (the paper's figure), `single` is S = {ℓ}, `prefix` is S = {0, …, ℓ−1}, and `window:w` is w layers
centred at ℓ, cut off at the ends. suffix at 0 and prefix at L are the source run itself.
"""

from collections.abc import Sequence
from typing import Any

import torch
from jaxtyping import Bool, Int
from torch import Tensor
from transformers import DynamicCache

from franken.errors import FrankenError, UsageError
from franken.generate.native import Prompt, Response, Sampling, decode, encode_prompts
from franken.generate.native import responses as to_responses
from franken.models.loading import Loaded
from franken.probe.rows import RowCache, joining, reading, started

MODES = ("suffix", "single", "prefix", "window:w")
ROWS = 64
Sets = Sequence[frozenset[int]]


def swap_sets(mode: str, layers: Sequence[int], depth: int) -> list[frozenset[int]]:
    """The set of swapped layers for every ℓ in `layers`. Raises UsageError for a mode that is not one of `MODES`."""
    kind, _, width = mode.partition(":")
    if kind == "window" and width.isdigit() and int(width) > 0:
        below, above = (int(width) - 1) // 2, int(width) // 2 + 1
        return [frozenset(range(max(0, layer - below), min(depth, layer + above))) for layer in layers]
    if mode == "suffix":
        return [frozenset(range(layer, depth)) for layer in layers]
    if mode == "single":
        return [frozenset([layer]) for layer in layers]
    if mode == "prefix":
        return [frozenset(range(layer)) for layer in layers]
    raise UsageError(
        f"unknown swap mode {mode!r}", why=f"the modes are {', '.join(MODES)}", fix="write for example swap-window:3"
    )


def swapped_answers(
    loaded: Loaded, target: Prompt, source: Prompt, sets: Sets, *, max_new_tokens: int, batch_size: int = ROWS
) -> list[Response]:
    """The greedy answer to `target` under every set of swapped layers; the empty set is the plain answer.

    `batch_size` bounds the rows in memory. Raises FrankenError when the two prompts differ in more than the pixels (another
    image size, say), or hold no image.
    """
    return swapped_batch(loaded, encode_pair(loaded, target, source), sets, max_new_tokens, batch_size)


def encode_pair(loaded: Loaded, target: Prompt, source: Prompt) -> dict[str, Tensor]:
    """Both prompts as one batch of two. Raises FrankenError unless they differ in the pixels alone."""
    if len(target.images) != len(source.images):
        raise FrankenError(
            "target and source hold different numbers of images", why=f"{len(target.images)} and {len(source.images)}"
        )
    batch = encode_prompts(loaded, [target, source])
    grids = batch.get("image_grid_thw", batch.get("image_sizes"))
    same = torch.equal(*batch["input_ids"]) and bool(batch["attention_mask"].all())
    if same and grids is not None:
        same = torch.equal(*grids.chunk(2))
    if not same:
        sizes = " and ".join(", ".join(f"{i.size[0]}×{i.size[1]}" for i in p.images) for p in (target, source))
        raise FrankenError(
            "target and source have different token grids", why=f"the images are {sizes} pixels", fix="use equal sizes"
        )
    return batch


@torch.no_grad()
def swapped_batch(
    loaded: Loaded, pair: dict[str, Tensor], sets: Sets, max_new_tokens: int, batch_size: int = ROWS
) -> list[Response]:
    """`swapped_answers` of an encoded pair: row 0 of the batch is the target, row 1 the source."""
    depth = len(loaded.family.decoder_layers(loaded.model))
    is_image = pair["input_ids"][0] == loaded.family.image_token_id(loaded.model.config)
    if not is_image.any():
        raise FrankenError("there is nothing to swap", why="the prompt holds no image")
    stores, stored = _prefill(loaded, pair, is_image)
    wanted = sorted({frozenset(), *sets}, key=lambda chosen: (min(chosen, default=depth), sorted(chosen)))
    different, answers = wanted[:-1], {}
    size = max(1, batch_size - 1)
    for start in range(0, max(1, len(different)), size):
        chunk = different[start : start + size]
        rows = _answers(loaded, pair, stores, stored, chunk, max_new_tokens)
        answers |= dict(zip([frozenset(), *chunk], rows, strict=True))
    return [answers[chosen] for chosen in sets]


def _prefill(
    loaded: Loaded, pair: dict[str, Tensor], is_image: Bool[Tensor, "tokens"]
) -> tuple[list[tuple[Tensor, Tensor]], Bool[Tensor, "tokens"]]:
    """Per layer the keys and values of both prompts at the tokens up to the first image and in images; and which these are."""
    places = is_image.nonzero()[:, 0]
    stop = int(places[-1]) + 1
    stored = is_image.clone()
    stored[: int(places[0])] = True
    cache = DynamicCache()
    cut = {"input_ids", "attention_mask", "position_ids", "token_type_ids", "mm_token_type_ids"}
    batch = {name: value[..., :stop] if name in cut else value for name, value in pair.items()}
    loaded.model(**batch, past_key_values=cache, use_cache=True, logits_to_keep=1)
    layers: Any = cache.layers
    whole = bool(stored[:stop].all())
    kept = stored[:stop].nonzero()[:, 0]
    return [
        (layer.keys, layer.values) if whole else (layer.keys[:, :, kept], layer.values[:, :, kept]) for layer in layers
    ], stored


def _answers(
    loaded: Loaded,
    pair: dict[str, Tensor],
    stores: Sequence[tuple[Tensor, Tensor]],
    stored: Bool[Tensor, "tokens"],
    sets: Sets,
    max_new_tokens: int,
) -> list[Response]:
    """The plain answer, and the answer under every set; the sets ascend by their first layer, and none is empty."""
    device, tokens = loaded.device, len(stored)
    owners = [_owner(layer, sets).to(device) for layer in range(len(stores))]
    tail = (~stored).nonzero()[:, 0]
    later = torch.arange(tokens, tokens + max_new_tokens, device=device)
    cache = RowCache(stores, owners, stored.nonzero()[:, 0], torch.cat([tail, later]))
    joins = [min(chosen) for chosen in sets]
    rows = len(sets) + 1
    positions = pair["position_ids"][..., :1, :]
    with reading(loaded, cache):
        with joining(loaded.family.decoder_layers(loaded.model), joins):
            output = loaded.model(
                input_ids=pair["input_ids"][:1, tail], attention_mask=pair["attention_mask"][:1, tail],
                position_ids=positions[..., tail], past_key_values=cache, use_cache=True, logits_to_keep=1,
            )  # fmt: skip
        cache.fill(started(joins, len(stores)))
        last = positions[..., -1:].expand(*positions.shape[:-2], rows, 1)
        mask = pair["attention_mask"][:1].expand(rows, -1)
        ids, logprobs = decode(loaded, cache, output.logits[:, -1], mask, last, None, Sampling(1, 0.0, max_new_tokens))
    return to_responses(loaded, ids, logprobs, Sampling(1, 0.0, max_new_tokens))


def _owner(layer: int, sets: Sets) -> Int[Tensor, "rows"]:
    return torch.tensor([0, *(int(layer in chosen) for chosen in sets)])
