"""Attention knockout: what is lost when some tokens may not look at others? (Geva et al. 2023,
arXiv 2304.14767; for images Zhang et al., arXiv 2411.18620)

An edge i → j is that token i attends to token j. `image>question` cuts the way from the image's
tokens to those of the question: in the chosen layers, and only there, no token of the question
attends to one of the image. What is left of the attention is renormalised by the softmax. A token
always attends to itself. Edges are cut in the attention mask, whatever it was before: causal, of a
sliding window, or one that lets the tokens of an image see each other; for SDPA and eager
attention. A layer without attention (linear attention, a state) has no edges, and is refused.

Tokens are in groups. `last` is the prompt's last token and every token of the reply: where the
model speaks from. `cells` are the visual tokens whose pixels differ between the two images of a
minimal pair, so that what the question turns on is in them; `elsewhere` as many others, drawn: the
control of `cells`.

All sets of layers run as rows of one batch. What no cut edge ends in is prefilled once, with the
images, and its keys and values are given to every row.

Left out: edges of single heads, and tokens of the vision tower.
"""

import random
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from jaxtyping import Bool, Int
from PIL import Image
from torch import Tensor, nn

from franken.errors import FrankenError, UsageError
from franken.generate.native import (
    Response,
    Sampling,
    decode,
    responses,
)
from franken.generate.streams import Cache
from franken.models.batch import ModelBatch
from franken.models.loading import Loaded
from franken.models.tokens import token_map
from franken.probe.groups import ROWS
from franken.probe.lens import answer_start

Layers = frozenset[int]
SLACK = 8  # grey levels by which a pixel differs, beyond the noise of a JPEG


@dataclass(frozen=True)
class Edges:
    """Which tokens of a prompt may not attend to which: those of `to` to those of `source`.

    `later_to` and `later_source`: whether the reply's tokens are among them.
    """

    source: Bool[Tensor, "tokens"]
    to: Bool[Tensor, "tokens"]
    later_source: bool = False
    later_to: bool = False

    def spread(self, total: int) -> tuple[Bool[Tensor, "total"], Bool[Tensor, "total"]]:
        """Source and target tokens of a row that has grown to `total` tokens."""
        more = total - len(self.source)
        return (
            torch.cat([self.source, torch.full((more,), self.later_source)]),
            torch.cat([self.to, torch.full((more,), self.later_to)]),
        )

    @property
    def first(self) -> int:
        """The first token that an edge from an earlier one ends in; the prompt's length where none
        does.
        """
        earlier = self.source.long().cumsum(0) - self.source.long() > 0
        at = (self.to & earlier).nonzero()[:, 0]
        return int(at[0]) if len(at) else len(self.to)


@dataclass(frozen=True)
class Cut:
    """Edges, and the layers in which they are cut. No layer: the plain run."""

    edges: Edges
    layers: Layers = frozenset()


class CutCache(Cache):
    """A cache that knows which edges of its rows are cut; `cut_edges` reads it in every layer."""

    def __init__(self, cuts: Sequence[Cut], total: int, depth: int, device: torch.device) -> None:
        super().__init__()
        spread = [cut.edges.spread(total) for cut in cuts]
        self.source = torch.stack([source for source, _ in spread]).to(device)
        self.to = torch.stack([to for _, to in spread]).to(device)
        active = [[layer in cut.layers for layer in range(depth)] for cut in cuts]
        self.active = torch.tensor(active, device=device)

    def batch_select_indices(self, indices: Tensor) -> None:
        """Keep these rows."""
        super().batch_select_indices(indices)
        self.source, self.to = self.source[indices], self.to[indices]
        self.active = self.active[indices]

    def begin(self, prefix: Cache) -> None:
        """Give every row the keys and values of a prefix of one row."""
        layers: Any = prefix.layers
        for number, layer in enumerate(layers):
            shape = len(self.active), -1, -1, -1
            self.update(layer.keys.expand(shape), layer.values.expand(shape), number)

    def cut(self, layer: int, queries: int) -> Bool[Tensor, "rows queries keys"] | None:
        """The edges that are cut for the next `queries` tokens; None where none is."""
        rows = self.active[:, layer]
        if not rows.any():
            return None
        start = self.get_seq_length(layer)
        stop = start + queries
        edges = self.to[:, start:stop, None] & self.source[:, None, :stop]
        itself = torch.arange(stop, device=edges.device) == torch.arange(
            start, stop, device=edges.device
        ).unsqueeze(1)
        return edges & ~itself & rows[:, None, None]


@contextmanager
def cutting(loaded: Loaded) -> Iterator[None]:
    """While it lasts, a pass with a `CutCache` lacks that cache's edges. Raises UsageError for a
    layer without attention that one of its rows is cut in.
    """
    handles = [
        attention.register_forward_pre_hook(_masked, with_kwargs=True)
        for attention in map(attention_of, loaded.family.decoder_layers(loaded.model))
        if attention is not None
    ]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def attention_of(layer: nn.Module) -> nn.Module | None:
    """A layer's attention between tokens; None for one that keeps a state in its place."""
    found = getattr(layer, "self_attn", None)
    return found if isinstance(found, nn.Module) else None


def check_attended(loaded: Loaded, layers: Sequence[int]) -> None:
    """Raises UsageError where one of `layers` has no attention edges."""
    blocks = list(loaded.family.decoder_layers(loaded.model))
    without = [layer for layer in layers if attention_of(blocks[layer]) is None]
    if without:
        raise UsageError(
            f"there are no attention edges in layer {', '.join(map(str, without))}",
            why=f"{loaded.name} has linear attention there: a state, which every token writes to",
            fix="name layers with --layers, and cut them one by one: block-single:…",
        )


def _masked(
    module: Any, args: tuple[Tensor, ...], kwargs: dict[str, Any]
) -> tuple[tuple[Tensor, ...], dict[str, Any]] | None:
    cache = kwargs.get("past_key_values")
    if not isinstance(cache, CutCache):
        return None
    hidden = args[0] if args else kwargs["hidden_states"]
    cut = cache.cut(module.layer_idx, hidden.shape[1])
    if cut is None:
        return None
    mask = without_edges(kwargs.get("attention_mask"), cut.to(hidden.device))
    return args, {**kwargs, "attention_mask": mask}


def without_edges(mask: Tensor | None, cut: Bool[Tensor, "rows queries keys"]) -> Tensor:
    """An attention mask `[rows or 1, heads or 1, queries, keys]`, of truths or to be added, without
    the edges `cut`; None is the causal one.

    Raises FrankenError for a mask that has another shape (flash attention's).
    """
    _, queries, keys = cut.shape
    if mask is None:
        places = torch.arange(keys, device=cut.device)
        return (places <= places[keys - queries :, None]) & ~cut[:, None]
    if mask.ndim != 4:
        raise FrankenError(
            "attention edges cannot be cut here",
            why=f"the attention mask has {mask.ndim} dimensions, that of flash attention",
            fix="load the model with SDPA or eager attention",
        )
    if mask.dtype == torch.bool:
        return mask[..., :keys] & ~cut[:, None]
    return mask[..., :keys].masked_fill(cut[:, None], torch.finfo(mask.dtype).min)


def edges_of(
    groups: Mapping[str, Int[Tensor, "some"]], tokens: int, source: Sequence[str], to: Sequence[str]
) -> Edges:
    """The edges from groups to groups of a prompt's tokens: `all` are all tokens, `others` those
    that the other side does not name.
    """
    named: list[Tensor] = []
    for side, other in ((source, to), (to, source)):
        chosen = torch.zeros(tokens, dtype=torch.bool)
        for name in side:
            if name == "all":
                chosen[:] = True
            elif name == "others":
                for group in other:
                    chosen[groups[group]] = True
                chosen = ~chosen
            else:
                chosen[groups[name]] = True
        named.append(chosen)
    speaks = {"last", "all"}
    later = [
        bool(speaks & set(side)) or ("others" in side and not speaks & set(other))
        for side, other in ((source, to), (to, source))
    ]
    return Edges(named[0], named[1], later[0], later[1])


def prompt_groups(loaded: Loaded, batch: ModelBatch) -> dict[str, Int[Tensor, "some"]]:
    """The tokens of a prompt of one row: system, image, question, and `last`, which is in no other
    group.
    """
    spans = token_map(batch.input_ids, loaded.model.config)[0]
    last = batch.tokens - 1
    image = [i for span in spans.images for i in range(span.start, span.stop)]
    seen = {*image, last}
    named = {
        "system": range(spans.system.start, spans.system.stop),
        "image": image,
        "question": range(spans.system.stop, batch.tokens),
        "last": [last],
    }
    return {
        name: torch.tensor(
            [i for i in places if name in ("image", "last") or i not in seen], dtype=torch.long
        )
        for name, places in named.items()
    }


def cell_groups(
    loaded: Loaded, batch: ModelBatch, images: tuple[Image.Image, Image.Image], seed: str
) -> dict[str, Int[Tensor, "some"]]:
    """`cells`, the visual tokens in which two images differ, and `elsewhere`, as many others.

    Raises FrankenError where tokens have no place in the picture, or the images do not tell.
    """
    grids = batch.images.image_grid_thw
    if grids is None or len(grids) != 1:
        raise FrankenError(
            "the cells of the image are not known",
            why="they need one image whose visual tokens lie on a grid, as Qwen-VL has it",
            fix="cut all of it: block:image>…",
        )
    if images[0].size != images[1].size or images[0].size == (0, 0):
        raise FrankenError(
            "the cells of the image are not known", why="the two images differ in size"
        )
    tokens = prompt_groups(loaded, batch)["image"]
    _, high, wide = grids[0].tolist()
    merge = round((high * wide / len(tokens)) ** 0.5)
    rows, columns = high // merge, wide // merge
    one, other = (np.asarray(image.convert("RGB"), int) for image in images)
    differs = np.abs(one - other).max(-1) > SLACK
    down, across = np.nonzero(differs)
    height, width = differs.shape
    hit = np.zeros((rows, columns), bool)
    hit[down * rows // height, across * columns // width] = True
    inside = torch.from_numpy(hit.reshape(-1))
    if not inside.any() or inside.all():
        raise FrankenError(
            "no cell of the image stands out",
            why="the two images are the same" if not inside.any() else "they differ everywhere",
        )
    rest = tokens[~inside].tolist()
    count = min(len(rest), int(inside.sum()))
    drawn = sorted(random.Random(seed).sample(rest, count))
    return {"cells": tokens[inside], "elsewhere": torch.tensor(drawn, dtype=torch.long)}


@dataclass(frozen=True)
class Answer:
    """What one row said, and the log-probability, in nats, of the right answer where the plain
    reply's begins, and of what the plain reply wrote before it.
    """

    answer: Response
    gold_logp: float
    reasoning_logp: float


@torch.no_grad()
def knocked_answers(
    loaded: Loaded,
    batch: ModelBatch,
    cuts: Sequence[Cut],
    gold: str,
    plain: Response,
    *,
    max_new_tokens: int,
    rows: int = ROWS,
) -> list[Answer]:
    """An answer for each cut, of an encoded prompt of one row. `plain` is the model's own reply."""
    written = list(plain.ids[: answer_start(loaded, plain.ids)])
    target = loaded.tokenizer(gold, add_special_tokens=False)["input_ids"]
    longer = batch.append([*written, *target])
    found: list[Answer] = []
    for start in range(0, len(cuts), rows):
        chunk = cuts[start : start + rows]
        scores = _scores(loaded, longer, chunk, len(written), len(target))
        said = greedy_under(loaded, batch, chunk, max_new_tokens)
        found += [Answer(a, *score) for a, score in zip(said, scores, strict=True)]
    return found


@torch.no_grad()
def greedy_under(
    loaded: Loaded, batch: ModelBatch, cuts: Sequence[Cut], max_new_tokens: int
) -> list[Response]:
    """The greedy reply to a prompt of one row under each cut."""
    total = batch.tokens + max_new_tokens
    logits, cache = cut_pass(loaded, batch, cuts, total, keep=1)
    last = batch.last_position
    last = last.expand(*last.shape[:-2], len(cuts), 1)
    mask = torch.ones((len(cuts), batch.tokens), dtype=torch.long, device=batch.input_ids.device)
    sampling = Sampling(1, 0.0, max_new_tokens)
    with cutting(loaded):
        ids, logprobs = decode(loaded, cache, logits[:, -1], mask, last, None, sampling)
    return responses(loaded, ids, logprobs, sampling)


@torch.no_grad()
def cut_pass(
    loaded: Loaded, batch: ModelBatch, cuts: Sequence[Cut], total: int, keep: int
) -> tuple[Tensor, CutCache]:
    """The logits `[rows, keep, vocabulary]` after the last `keep` tokens of a batch of one row,
    under each cut, and the cache with which to go on, up to `total` tokens.
    """
    depth = len(loaded.family.decoder_layers(loaded.model))
    check_attended(loaded, sorted(frozenset().union(*(cut.layers for cut in cuts))))
    device = batch.input_ids.device
    cache = CutCache(cuts, total, depth, device)
    image = batch.is_image[0].nonzero()[:, 0]
    stop = int(image[-1]) + 1 if len(image) else 0
    with cutting(loaded):
        if stop == 0 or min(cut.edges.first for cut in cuts) < stop:
            many = batch.slice([0] * len(cuts))
            output = loaded.model(
                **many, past_key_values=cache, use_cache=True, logits_to_keep=keep
            )
            return output.logits, cache
        prefix = Cache()
        loaded.model(**batch.prefix(stop), past_key_values=prefix, use_cache=True, logits_to_keep=1)
        cache.begin(prefix)
        positions = batch.position_ids[..., stop:]
        output = loaded.model(
            input_ids=batch.input_ids[:, stop:].expand(len(cuts), -1),
            attention_mask=torch.ones((len(cuts), batch.tokens), dtype=torch.long, device=device),
            position_ids=positions.expand(*positions.shape[:-2], len(cuts), -1),
            past_key_values=cache,
            use_cache=True,
            logits_to_keep=keep,
        )
    return output.logits, cache


def _scores(
    loaded: Loaded, batch: ModelBatch, cuts: Sequence[Cut], written: int, gold: int
) -> list[tuple[float, float]]:
    """Log-probabilities of the last `gold` tokens, and of the `written` ones before, under the
    distribution that replies are drawn from.
    """
    keep = written + gold + 1
    logits, _ = cut_pass(loaded, batch, cuts, batch.tokens, keep)
    said = batch.input_ids[0, 1 - keep :].to(logits.device)
    banned = loaded.banned_ids.to(logits.device)
    scores: list[tuple[float, float]] = []
    for row in logits:
        open_to = row[:-1].double().index_fill(-1, banned, -torch.inf)
        each = torch.log_softmax(open_to, -1).gather(-1, said[:, None])[:, 0]
        scores.append((float(each[written:].sum()), float(each[:written].sum())))
    return scores
