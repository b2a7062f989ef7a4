"""Visual-token swap: what does the answer become if some layers see another image?

A swap at a set S of layers gives the layers of S, and only those, the keys and values that the *source* run has at the
image positions; the image's own residual stream stays the target's (design §4.5a; Frankenstein paper, appendix D.2.1). In a
causal decoder the image never sees the question, so all of it can be computed once: the prefix up to the end of the image is
prefilled for target and source, the caches are mixed row by row, one row for every set S, and only the question and the
answer are run for each. The source image enters the cache once, in the prefill; decoding appends nothing but the answer.

`suffix` is S = {ℓ, …, L−1} (the paper's figure), `single` is S = {ℓ}, `prefix` is S = {0, …, ℓ−1}, and `window:w` is w layers
centred at ℓ, cut off at the ends. suffix at 0 and prefix at L are the source run itself.
"""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from franken.errors import FrankenError, UsageError
from franken.generate.native import Prompt, Response, Sampling, decode, encode_prompts
from franken.generate.native import responses as to_responses
from franken.models.loading import Loaded
from franken.models.tokens import only_image, token_map

MODES = ("suffix", "single", "prefix", "window:w")
ROWS = 64


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


@torch.no_grad()
def swapped_answers(
    loaded: Loaded, target: Prompt, source: Prompt, sets: Sequence[frozenset[int]], *, max_new_tokens: int
) -> list[Response]:
    """The greedy answer to `target` under every set of swapped layers; the empty set is the plain answer.

    Raises FrankenError when the two prompts differ in more than the pixels (another image size, say).
    """
    batches = [encode_prompts(loaded, [prompt]) for prompt in (target, source)]
    ids = batches[0]["input_ids"]
    if ids.shape != batches[1]["input_ids"].shape or not torch.equal(ids, batches[1]["input_ids"]):
        sizes = " and ".join(f"{p.images[0].size[0]}×{p.images[0].size[1]}" for p in (target, source) if p.images)
        raise FrankenError(
            "target and source have different token grids", why=f"the images are {sizes} pixels", fix="use equal sizes"
        )
    image = only_image(token_map(ids, loaded.model.config)[0])
    caches = [_prefix_cache(loaded, batch, image.stop) for batch in batches]
    answers: list[Response] = []
    for start in range(0, len(sets), ROWS):
        answers += _answers(loaded, batches[0], caches, image, sets[start : start + ROWS], max_new_tokens)
    return answers


def _prefix_cache(loaded: Loaded, batch: dict[str, Tensor], stop: int) -> list[tuple[Tensor, Tensor]]:
    """Keys and values `[1, heads, stop, head_dim]` of every layer, over the tokens up to the end of the image."""
    from transformers import DynamicCache

    cache = DynamicCache(config=loaded.model.config.get_text_config())
    images = {k: v for k, v in batch.items() if k in ("pixel_values", "image_grid_thw", "image_sizes")}
    loaded.model(
        input_ids=batch["input_ids"][:, :stop],
        attention_mask=batch["attention_mask"][:, :stop],
        position_ids=batch["position_ids"][..., :stop],
        past_key_values=cache,
        use_cache=True,
        logits_to_keep=1,
        **images,
    )
    layers: Any = cache.layers
    return [(layer.keys, layer.values) for layer in layers]


def _answers(
    loaded: Loaded,
    batch: dict[str, Tensor],
    caches: Sequence[list[tuple[Tensor, Tensor]]],
    image: slice,
    sets: Sequence[frozenset[int]],
    max_new_tokens: int,
) -> list[Response]:
    rows = len(sets)
    cache = _mixed_cache(loaded, caches, image, sets)
    question = batch["input_ids"][:, image.stop :].expand(rows, -1)
    mask = batch["attention_mask"].expand(rows, -1)
    positions = batch["position_ids"][..., image.stop :]
    positions = positions.expand(*positions.shape[:-2], rows, -1)
    output = loaded.model(
        input_ids=question, attention_mask=mask, position_ids=positions, past_key_values=cache, use_cache=True,
        logits_to_keep=1,
    )  # fmt: skip
    sampling = Sampling(1, 0.0, max_new_tokens)
    ids, logprobs = decode(loaded, cache, output.logits[:, -1], mask, positions[..., -1:], None, sampling)
    return to_responses(loaded, ids, logprobs, sampling)


def _mixed_cache(
    loaded: Loaded, caches: Sequence[list[tuple[Tensor, Tensor]]], image: slice, sets: Sequence[frozenset[int]]
) -> Any:
    from transformers import DynamicCache

    target, source = caches
    mixed = DynamicCache(config=loaded.model.config.get_text_config())
    for layer, ((keys, values), (other_keys, other_values)) in enumerate(zip(target, source, strict=True)):
        swapped = torch.tensor([layer in chosen for chosen in sets], device=keys.device)
        mixed.update(
            _mix(keys, other_keys, image, swapped), _mix(values, other_values, image, swapped), layer_idx=layer
        )
    return mixed


def _mix(ours: Tensor, theirs: Tensor, image: slice, swapped: Tensor) -> Tensor:
    rows = ours.repeat(len(swapped), 1, 1, 1)
    rows[swapped, :, image] = theirs[0][:, image]
    return rows
