"""Visual-token swap: what does the answer become if some layers see another image?

A swap at a set S of layers gives the layers of S, and only those, the keys and values that the
*source* run has at the image positions; the image's own residual stream stays the target's (design
§4.5a; Frankenstein paper, appendix D.2.1). In a causal decoder the images never see the question,
so all of them can be computed once: the prompt up to the end of its last image is prefilled for
target and source in one batch, and every set S is a row that reads one or the other in each layer
and runs the question and the answer, from the first layer of S on (`franken.probe.rows`). Text
between images is run as well. The source image enters the cache once, in the prefill; decoding
appends nothing but the answer.

Which sets there are is in `franken.probe.methods.swap`.
"""

from collections.abc import Sequence
from typing import Any

import torch
from jaxtyping import Bool
from torch import Tensor
from transformers import DynamicCache

from franken.errors import FrankenError, UsageError
from franken.generate.native import Prompt, Response, encode_prompts
from franken.models.batch import ModelBatch, join
from franken.models.loading import Loaded
from franken.probe.rows import RowCache, decode_rows, joining, reading, started
from franken.probe.scores import Swapped, divergence, logit_difference, parting

ROWS = 128
Sets = Sequence[frozenset[int]]


def swapped_answers(
    loaded: Loaded,
    target: Prompt,
    source: Prompt,
    sets: Sets,
    *,
    max_new_tokens: int,
) -> list[Response]:
    """The greedy answer to `target` under every set of swapped layers; the empty set is the plain
    answer.

    Raises FrankenError when the two prompts differ in more than the pixels (another image size,
    say), or hold no image.
    """
    pair = encode_pair(loaded, target, source)
    return [row.answer for row in swapped_batch(loaded, [pair], sets, max_new_tokens)[0]]


def encode_pair(loaded: Loaded, target: Prompt, source: Prompt) -> ModelBatch:
    """Both prompts as a batch of two. Raises FrankenError unless only their pixels differ."""
    if len(target.images) != len(source.images):
        raise FrankenError(
            "target and source hold different numbers of images",
            why=f"{len(target.images)} and {len(source.images)}",
        )
    batch = encode_prompts(loaded, [target, source])
    images, mask = batch.images, batch.attention_mask
    grids = images.image_sizes if images.image_grid_thw is None else images.image_grid_thw
    same = torch.equal(*batch.input_ids) and mask is not None and bool(mask.all())
    if same and grids is not None:
        same = torch.equal(*grids.chunk(2))
    if not same:
        sizes = " and ".join(
            ", ".join(f"{i.size[0]}×{i.size[1]}" for i in p.images) for p in (target, source)
        )
        raise FrankenError(
            "target and source have different token grids",
            why=f"the images are {sizes} pixels",
            fix="use equal sizes",
        )
    if not batch.is_image.any():
        raise FrankenError("there is nothing to swap", why="the prompt holds no image")
    return batch


def check_swappable(loaded: Loaded) -> None:
    """Raise UsageError for a model with layers that have no keys and values of their own."""
    if reason := loaded.family.keyless(loaded.model.config):
        raise not_swappable(loaded.name, reason)


def not_swappable(name: str, reason: str) -> UsageError:
    """The error where a swap is not defined."""
    return UsageError(
        f"nothing can be swapped in {name}",
        why=f"a swap gives layers the keys and values of another image; {reason}",
        fix="use --method zero, lens or patch",
    )


def stackable(a: ModelBatch, b: ModelBatch) -> bool:
    """Whether two encoded pairs differ in words and pixels only, and so fit into one batch."""
    exact = ("position_ids", "image_grid_thw", "image_sizes")
    if any(a[name].shape != b[name].shape for name in a) or any(
        not torch.equal(a[n], b[n]) for n in exact if n in a
    ):
        return False
    return torch.equal(a.is_image, b.is_image)


@torch.no_grad()
def swapped_batch(
    loaded: Loaded,
    pairs: Sequence[ModelBatch],
    sets: Sets,
    max_new_tokens: int,
    batch_size: int = ROWS,
    *,
    measure: bool = False,
) -> list[list[Swapped]]:
    """`[pairs][sets]` rows of encoded pairs, all `stackable`. Rows beyond `batch_size` follow in
    further batches.

    With `measure` the distributions where target and source part are compared as well: one more
    pass over what both say.
    """
    check_swappable(loaded)
    depth = len(loaded.family.decoder_layers(loaded.model))
    everything = frozenset(range(depth))
    different = sorted(
        {*sets} - {frozenset(), everything}, key=lambda chosen: (min(chosen), sorted(chosen))
    )
    size = max(1, batch_size // len(pairs) - 2)
    stores, stored = _prefill(loaded, pairs)
    answers: list[dict[frozenset[int], Swapped]] = [{} for _ in pairs]
    for start in range(0, max(1, len(different)), size):
        chunk = [everything, *different[start : start + size]]
        rows = _answers(loaded, pairs, stores, stored, chunk, max_new_tokens, measure)
        for known, new in zip(answers, rows, strict=True):
            known |= new
    return [[known[chosen] for chosen in sets] for known in answers]


def _prefill(
    loaded: Loaded, pairs: Sequence[ModelBatch]
) -> tuple[list[tuple[Tensor, Tensor]], Bool[Tensor, "tokens"]]:
    """Which tokens are stored: those before the first image and in images; and their keys and
    values in every layer.

    The entries are all targets, then all sources.
    """
    stored = pairs[0].is_image[0].clone()
    places = stored.nonzero()[:, 0]
    stored[: int(places[0])] = True
    stop = int(places[-1]) + 1
    batch = join([pair.slice([side]) for side in (0, 1) for pair in pairs]).prefix(stop)
    cache: Any = DynamicCache()
    loaded.model(**batch, past_key_values=cache, use_cache=True, logits_to_keep=1)
    chosen = slice(0, stop) if stored[:stop].all() else stored.nonzero()[:, 0]
    stores = []
    for layer in cache.layers:
        if not isinstance(chosen, slice):
            chosen = chosen.to(layer.keys.device)
        stores.append((layer.keys[:, :, chosen], layer.values[:, :, chosen]))
    return stores, stored


def _answers(
    loaded: Loaded,
    pairs: Sequence[ModelBatch],
    stores: Sequence[tuple[Tensor, Tensor]],
    stored: Bool[Tensor, "tokens"],
    sets: Sets,
    max_new_tokens: int,
    measure: bool,
) -> list[dict[frozenset[int], Swapped]]:
    """Per pair the plain row and one for every set. The sets ascend by their first layer, the first
    is that of all layers.
    """
    device, count, tokens = loaded.device, len(pairs), len(stored)
    rows = [(pair, chosen) for chosen in [frozenset(), *sets] for pair in range(count)]
    bases = [pair for pair, _ in rows]
    joins = [min(chosen, default=0) for _, chosen in rows]
    owners = [
        torch.tensor([pair + count * (layer in chosen) for pair, chosen in rows], device=device)
        for layer in range(len(stores))
    ]
    tail = (~stored).nonzero()[:, 0]
    later = torch.arange(tokens, tokens + max_new_tokens, device=device)
    cache = RowCache(stores, owners, stored.nonzero()[:, 0], torch.cat([tail, later]))
    positions = pairs[0].position_ids[..., :1, :]  # one row for all: the batch grows on the way
    mask = torch.ones((len(rows), tokens), dtype=torch.long, device=device)
    with reading(loaded, cache):
        with joining(loaded.family.decoder_layers(loaded.model), bases, joins):
            output = loaded.model(
                input_ids=torch.cat([pair.input_ids[:1, tail] for pair in pairs]),
                attention_mask=mask[:count, tail],
                position_ids=positions[..., tail],
                past_key_values=cache,
                use_cache=True,
                logits_to_keep=1,
            )
        cache.fill(bases, started(joins, len(stores)))
        tails: Any = cache.layers
        questions = [(layer.keys, layer.values) for layer in tails]
        last = positions[..., -1:].expand(*positions.shape[:-2], len(rows), 1)
        first = output.logits[:, -1].clone()
        answers = decode_rows(loaded, cache, first, mask, last, max_new_tokens)
        scores: list[tuple[float | None, float | None]] = [(None, None)] * len(rows)
        if measure:
            again = RowCache(stores, owners, cache.index, cache.tail)
            for layer, (keys, values) in enumerate(questions):
                again.update(keys, values, layer)
            with reading(loaded, again):
                scores = _scores(loaded, again, answers, count, output.logits[:, -1], mask, last)
    by_set: list[dict[frozenset[int], Swapped]] = [{} for _ in pairs]
    for (pair, chosen), answer, score in zip(rows, answers, scores, strict=True):
        by_set[pair][chosen] = Swapped(answer, *score)
    return by_set


def _scores(
    loaded: Loaded,
    cache: RowCache,
    answers: Sequence[Response],
    count: int,
    first: Tensor,
    mask: Tensor,
    last: Tensor,
) -> list[tuple[float | None, float | None]]:
    """KL and logit difference of every row where the plain answer (rows 0 … count−1) and the
    source's (the next) part.

    `cache` holds the question and `first` are the logits after it; what both answers share is given
    to every row.
    """
    plain, source = answers[:count], answers[count : 2 * count]
    places = [parting(a.ids, b.ids) for a, b in zip(plain, source, strict=True)]
    rows = [row % count for row in range(len(answers))]
    longest = max(place or 0 for place in places)
    logits = first
    if longest:
        shared_ids = torch.zeros((count, longest), dtype=torch.long, device=loaded.device)
        for pair, answer in enumerate(plain):
            shared = answer.ids[: places[pair] or 0]
            shared_ids[pair, : len(shared)] = torch.tensor(shared, device=loaded.device)
        steps = torch.arange(1, longest + 1, device=loaded.device)
        wanted = sorted({place for place in places if place})
        output = loaded.model(
            input_ids=shared_ids[rows],
            attention_mask=torch.cat([mask, mask.new_ones(len(rows), longest)], 1),
            position_ids=last + steps,
            past_key_values=cache,
            use_cache=True,
            logits_to_keep=torch.tensor(wanted, device=loaded.device) - 1,
        )
        read = [places[pair] for pair in rows]
        logits = torch.stack(
            [output.logits[i, wanted.index(p)] if p else first[i] for i, p in enumerate(read)]
        )
    return [
        (
            float(divergence(logits[pair], logits[row : row + 1], loaded.banned_ids)),
            logit_difference(logits[row], plain[pair].ids, source[pair].ids),
        )
        for row, pair in enumerate(rows)
    ]
