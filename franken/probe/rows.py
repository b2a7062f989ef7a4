"""Many variants of one prompt as the rows of one batch, none of which computes or stores what it
shares with the others.

Two things make a layer-wise probe cheap. A row that differs from the plain run only from layer ℓ on
joins the batch at ℓ, as a copy of the plain row's hidden state (`joining`). And rows that read the
same keys and values read one stored copy of them, in one matrix product (`RowCache` and `attend`;
Hydragen, arXiv 2402.05099, for shared prefixes), so that memory and decoding cost grow with the
rows' own tokens only.

`attend` is exact attention: the scores against the stored keys and against a row's own are put
under one softmax. It knows causal and sliding-window masks by token index; soft-capped scores and
attention sinks are left out (no family here has them).
"""

from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn
from transformers import AttentionInterface

from franken.generate.native import Response, Sampling, decode, responses
from franken.generate.streams import Cache
from franken.models.loading import Loaded

Store = tuple[Float[Tensor, "entries kv tokens width"], Float[Tensor, "entries kv tokens width"]]
Segment = tuple[Tensor | slice, Tensor, Tensor]
NAME = "franken_rows"


class RowCache(Cache):
    """What every row reads: an entry of each layer's store, shared or not, and its own tokens (the
    tail), which grow.

    `owners[layer][row]` is the row's entry in `stores[layer]`; `index` are the stored tokens'
    places in the prompt and `tail` those of the tokens to come.
    """

    def __init__(
        self,
        stores: Sequence[Store],
        owners: Sequence[Int[Tensor, "rows"]],
        index: Int[Tensor, "tokens"],
        tail: Int[Tensor, "later"],
    ) -> None:
        super().__init__()
        self.stores, self.index, self.tail = list(stores), index, tail
        self.owners = [  # where the layer is, if the model is spread over several devices
            owner.to(keys.device) for owner, (keys, _) in zip(owners, stores, strict=True)
        ]
        self.live = torch.arange(len(owners[0]), device=index.device)
        self._segments: dict[tuple[int, int], list[Segment]] = {}

    def batch_select_indices(self, indices: Tensor) -> None:
        """Keep these rows."""
        super().batch_select_indices(indices)
        self.owners = [owner[indices.to(owner.device)] for owner in self.owners]
        self.live = self.live[indices]
        self._segments.clear()

    def fill(self, bases: Sequence[int], started: Sequence[int]) -> None:
        """Give every row a tail in every layer: where only the first `started[layer]` ran,
        another's is its base row's.
        """
        rows = torch.arange(len(bases), device=self.live.device)
        base = torch.tensor(bases, device=self.live.device)
        layers: Any = self.layers
        for layer, count in zip(layers, started, strict=True):
            chosen = torch.where(rows < count, rows, base)
            layer.batch_select_indices(chosen.to(layer.keys.device))

    def segments(self, layer: int, rows: int) -> list[Segment]:
        """(rows, keys, values) for the first `rows` rows: neighbouring entries with equally many
        readers, and those readers.
        """
        if (layer, rows) not in self._segments:
            self._segments[layer, rows] = self._find(layer, rows)
        return self._segments[layer, rows]

    def _find(self, layer: int, rows: int) -> list[Segment]:
        owner = self.owners[layer][:rows]
        keys, values = self.stores[layer]
        readers = owner.argsort(stable=True)
        entries, counts = (column.tolist() for column in owner.unique(return_counts=True))
        segments: list[Segment] = []
        first = place = 0
        while first < len(entries):
            last = first + 1
            while (
                last < len(entries)
                and entries[last] == entries[last - 1] + 1
                and counts[last] == counts[first]
            ):
                last += 1
            size = (last - first) * counts[first]
            chosen = slice(entries[first], entries[last - 1] + 1)
            segments.append(
                (_as_slice(readers[place : place + size]), keys[chosen], values[chosen])
            )
            first, place = last, place + size
        return segments


def _as_slice(rows: Int[Tensor, "rows"]) -> Int[Tensor, "rows"] | slice:
    """Consecutive rows as a slice, which is no copy."""
    start, stop = int(rows[0]), int(rows[-1]) + 1
    return slice(start, stop) if rows.tolist() == list(range(start, stop)) else rows


_ACTIVE: ContextVar[RowCache] = ContextVar("franken_rows")


def attend(
    module: Any,
    query: Float[Tensor, "rows heads queries width"],
    key: Float[Tensor, "rows kv tail width"],
    value: Float[Tensor, "rows kv tail width"],
    attention_mask: Tensor | None,
    scaling: float,
    sliding_window: int | None = None,
    **_: Any,
) -> tuple[Float[Tensor, "rows queries heads width"], None]:
    """Attention of every row over its entry of the active store and its own tail. `attention_mask`
    is not used.
    """
    cache = _ACTIVE.get()
    rows, heads, queries, width = query.shape
    kv = key.shape[1]
    groups = heads // kv
    scaled = (query * scaling).reshape(rows, kv, groups * queries, width).transpose(0, 1)
    own = scaled @ key.transpose(0, 1).mT
    tail = cache.tail[: key.shape[2]].to(query.device)
    places = tail[key.shape[2] - queries :]
    stored_seen = None
    if queries > 1 or sliding_window:
        index = cache.index.to(query.device)
        stored_seen = _seen(places, index, sliding_window).repeat(groups, 1)
        seen = _seen(places, tail, sliding_window).repeat(groups, 1)
        own = own.masked_fill(~seen, -torch.inf)
    output = torch.empty_like(scaled, memory_format=torch.contiguous_format)
    for readers, keys, values in cache.segments(module.layer_idx, rows):
        output[:, readers] = _read(
            scaled[:, readers],
            own[:, readers],
            value[readers].transpose(0, 1),
            keys,
            values,
            stored_seen,
        )
    output = output.transpose(0, 1).reshape(rows, heads, queries, width)
    return output.transpose(1, 2), None


def _read(
    scaled: Float[Tensor, "kv rows queries width"],
    own: Float[Tensor, "kv rows queries tail"],
    own_values: Float[Tensor, "kv rows tail width"],
    keys: Float[Tensor, "entries kv tokens width"],
    values: Float[Tensor, "entries kv tokens width"],
    seen: Bool[Tensor, "queries tokens"] | None,
) -> Float[Tensor, "kv rows queries width"]:
    stored = _times(scaled, keys.mT)
    if seen is not None:
        stored = stored.masked_fill(~seen, -torch.inf)
    weights = torch.cat([stored, own], -1).softmax(-1, dtype=torch.float32).to(scaled.dtype)
    tokens = stored.shape[-1]
    return _times(weights[..., :tokens], values) + weights[..., tokens:] @ own_values


def _times(
    rows: Float[Tensor, "kv rows queries a"], entries: Float[Tensor, "entries kv a b"]
) -> Float[Tensor, "kv rows queries b"]:
    """Every row times its entry; the rows are sorted by entry, equally many each, so that it is one
    product an entry.
    """
    kv, count, queries, a = rows.shape
    shared = count // len(entries)
    grouped = rows.reshape(kv, len(entries), shared * queries, a).transpose(0, 1)
    return (grouped @ entries).transpose(0, 1).reshape(kv, count, queries, -1)


def _seen(queries: Tensor, keys: Tensor, window: int | None) -> Bool[Tensor, "queries keys"]:
    distance = queries[:, None] - keys
    return (distance >= 0) & (distance < window) if window else distance >= 0


AttentionInterface.register(NAME, attend)


@contextmanager
def reading(loaded: Loaded, cache: RowCache) -> Iterator[None]:
    """While it lasts, the decoder's attention reads through `cache`. Always restored."""
    config = loaded.model.get_decoder().config
    before = config._attn_implementation
    token = _ACTIVE.set(cache)
    config._attn_implementation = NAME
    try:
        yield
    finally:
        config._attn_implementation = before
        _ACTIVE.reset(token)


def decode_rows(
    loaded: Loaded,
    cache: Cache,
    logits: Float[Tensor, "rows vocabulary"],
    mask: Int[Tensor, "rows tokens"],
    last: Int[Tensor, "*axes rows 1"],
    max_new_tokens: int,
) -> list[Response]:
    """Every row's greedy answer after `logits`, while `reading` a RowCache; `last` are the places
    of the last tokens.
    """
    sampling = Sampling(1, 0.0, max_new_tokens)
    ids, logprobs = decode(loaded, cache, logits, mask, last, None, sampling)
    return responses(loaded, ids, logprobs, sampling)


@contextmanager
def joining(
    layers: Iterable[nn.Module], bases: Sequence[int], joins: Sequence[int]
) -> Iterator[None]:
    """While it lasts, a pass grows: row i joins before layer `joins[i]` as a copy of row `bases[i]`
    as it is there.

    `joins` ascend; those that are 0 for their own base are the rows that the pass begins with.
    """
    begin = sum(base == row for row, base in enumerate(bases))

    def grow(new: Sequence[int], running: Sequence[int]) -> Any:
        def hook(
            _: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]
        ) -> tuple[tuple[Any, ...], dict[str, Any]]:
            hidden = args[0] if args else kwargs["hidden_states"]
            if new:
                hidden = torch.cat([hidden, hidden[torch.tensor(new, device=hidden.device)]])
            rest = tuple(_of_rows(value, begin, running) for value in args[1:])
            return (
                ((hidden, *rest), kwargs) if args else (args, {**kwargs, "hidden_states": hidden})
            )

        return hook

    handles = []
    for layer, block in enumerate(layers):
        joined = list(zip(bases[begin:], joins[begin:], strict=True))
        new = [base for base, join in joined if join == layer]
        running = [*range(begin), *(base for base, join in joined if join <= layer)]
        if len(running) > begin:
            handles.append(block.register_forward_pre_hook(grow(new, running), with_kwargs=True))
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def _of_rows(value: Any, begin: int, running: Sequence[int]) -> Any:
    """What a layer is given beside its stream, for every row that runs: Gemma 4's layers have
    inputs of their own, `[rows, tokens, features]`.
    """
    if isinstance(value, Tensor) and value.ndim == 3 and len(value) == begin:
        return value[torch.tensor(running, device=value.device)]
    return value


def started(joins: Sequence[int], depth: int) -> list[int]:
    """How many rows run at every layer."""
    return [sum(join <= layer for join in joins) for layer in range(depth)]
