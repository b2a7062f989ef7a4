"""One decoding loop, for one model or for several that write the same rows together.

A `Stream` is one model's side of some rows: the keys and values of what it has read, and what it
would say next. The loop asks `choose` for the next token of every row, which may look at all
streams, and feeds that token to each of them. With one stream this is how the native engine
samples (`franken.generate.native.decode`); with two, a rule may take the token of either model at
every place (`franken.forks.cross`), and a rule that always takes the one's gives that model's own
samples, token for token.

Rows that have ended are dropped from all caches once they are a share of the batch.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor
from transformers import DynamicCache

from franken.generate.engine import Sampling
from franken.models.batch import ModelBatch
from franken.models.loading import Loaded

SHRINK_SHARE = 0.2  # finished rows are dropped from the cache once they are this share of it
Tokens = tuple[Int[Tensor, "rows"], Float[Tensor, "rows"]]  # ids, and their log-probabilities
Choose = Callable[[int, Int[Tensor, "live"]], Tokens]
"""The next token of the rows that go on, `choose(step, rows)`; it reads the streams' logits."""


class Cache(DynamicCache):
    """transformers' cache, whose layers may be on several devices, and may have a state in place of
    keys and values (linear attention), which knows only how to be reordered.
    """

    def batch_select_indices(self, indices: Int[Tensor, "rows"]) -> None:
        """Keep these rows, in this order; a row may be taken more than once."""
        layers: Any = self.layers
        for layer in layers:
            select = getattr(layer, "batch_select_indices", layer.reorder_cache)
            device = getattr(layer, "device", None)  # None where nothing has been stored yet
            select(indices if device is None else indices.to(device))


@dataclass
class Stream:
    """What one model has read of every row, and its logits there. `last` are the position ids of
    the last token, `[..., rows, 1]`.
    """

    loaded: Loaded
    cache: Any  # transformers' own, or one that keeps rows apart in another way
    logits: Float[Tensor, "rows vocabulary"]
    mask: Int[Tensor, "rows tokens"]
    last: Int[Tensor, "*axes rows 1"]

    def keep(self, rows: Int[Tensor, "kept"]) -> None:
        """Go on with these rows only."""
        self.cache.batch_select_indices(rows)
        self.mask, self.last = self.mask[rows], self.last[..., rows, :]

    def feed(self, token: Int[Tensor, "rows"]) -> None:
        """Read one more token of every row."""
        self.mask = torch.cat([self.mask, self.mask.new_ones(len(self.mask), 1)], 1)
        self.last = self.last + 1
        output = self.loaded.model(
            input_ids=token[:, None],
            attention_mask=self.mask,
            position_ids=self.last,
            past_key_values=self.cache,
            use_cache=True,
        )
        self.logits = output.logits[:, -1]


@torch.no_grad()
def prefill(loaded: Loaded, batch: ModelBatch, n: int = 1) -> Stream:
    """Read an encoded batch once, and stand every row `n` times, one after another."""
    cache = Cache(config=loaded.model.config.get_text_config())
    output = loaded.model(**batch, past_key_values=cache, use_cache=True, logits_to_keep=1)
    logits, mask, last = output.logits[:, -1], batch.attention_mask, batch.last_position
    assert mask is not None
    if n > 1:
        rows = torch.arange(len(logits), device=logits.device)
        cache.batch_select_indices(rows.repeat_interleave(n))
        logits, mask = logits.repeat_interleave(n, 0), mask.repeat_interleave(n, 0)
        last = last.repeat_interleave(n, -2)
    return Stream(loaded, cache, logits, mask, last)


@torch.no_grad()
def advance(
    streams: Sequence[Stream], choose: Choose, ends: Sequence[int], sampling: Sampling
) -> tuple[Int[Tensor, "rows steps"], Float[Tensor, "rows steps"]]:
    """Write every row until one of `ends`, a stop string or the longest length.

    Returns ids, -1 after the end, and the log-probabilities that `choose` gave with them.
    """
    first = streams[0]
    device, tokenizer = first.logits.device, first.loaded.tokenizer
    silent = {-1, *tokenizer.all_special_ids} if sampling.stop else set()
    rows, steps = first.logits.shape[0], sampling.max_new_tokens
    ending = torch.tensor(list(ends), device=device)
    ids = torch.full((rows, steps), -1, device=device)
    logprobs = torch.zeros((rows, steps), device=device)
    live = torch.arange(rows, device=device)
    done = torch.zeros(rows, dtype=torch.bool, device=device)
    for t in range(steps):
        token, logprob = choose(t, live)
        ids[live, t] = torch.where(done, -1, token)
        logprobs[live, t] = torch.where(done, 0.0, logprob)
        done = done | torch.isin(token, ending)
        if sampling.stop:
            said = [
                says_stop(tokenizer, silent, row, sampling.stop)
                for row in ids[live, : t + 1].tolist()
            ]
            done = done | torch.tensor(said, device=done.device)
        ended = int(done.sum())  # the one value of a step that the host waits for
        if ended == len(done) or t + 1 == steps:
            break
        if ended > SHRINK_SHARE * len(done):
            kept = (~done).nonzero()[:, 0]
            for stream in streams:
                stream.keep(kept)
            live, token, done = live[kept], token[kept], done[kept]
        for stream in streams:
            stream.feed(token)
    return ids, logprobs


def says_stop(tokenizer: Any, silent: set[int], row: list[int], stop: Sequence[str]) -> bool:
    """Whether a row that goes on ends in a stop string, given the ids that have no text.

    Only the end is decoded: a token that has text has at least one byte of it. Four tokens more, as
    the first of a text may lose its space and a character may be cut in two.
    """
    longest = max(len(s.encode()) for s in stop)
    tail = tokenizer.decode([t for t in row if t not in silent][-longest - 4 :])
    return any(s in tail for s in stop)
