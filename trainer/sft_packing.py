"""Supervised examples as packed rows: several conversations one after another, kept apart by the
mask, without padding.

    example 1 │ example 2 │ …      a token sees its own example; positions start anew in each

The loss and its gradient are those of the padded batch (trainer/sft.py) to rounding: the same
weighted mean over the supervised tokens of the whole batch, which is known before the first row
runs. The mask is trainer/masks.py's, with no shared prompt. Rows of at most `budget` tokens run
one after another, so that no more is in memory. The output head runs on chunks of tokens.
"""

from dataclasses import dataclass, field
from functools import partial

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn import functional as F

from franken.models.batch import TYPES, ModelBatch
from franken.models.loading import Loaded
from trainer.algorithms.groups import Metrics
from trainer.collectives import all_reduce_max, all_reduce_sum
from trainer.data import Batch
from trainer.masks import Segments, check_packable, segments
from trainer.optimizer import backpropagate
from trainer.packing import CHUNK, by_budget, in_chunks, packed_hidden
from trainer.sharding import is_sharded
from trainer.towers import in_step


@dataclass(frozen=True)
class Row:
    """Some examples as one row of S tokens, T of them supervised; `previous` is the position that
    predicts each of those.
    """

    inputs: ModelBatch = field(repr=False)
    segments: Segments
    previous: Int[Tensor, " T"]
    targets: Int[Tensor, " T"]
    weights: Float[Tensor, " T"]


def pack_examples(loaded: Loaded, batch: Batch, budget: int = 0) -> list[Row]:
    """A padded batch as few rows of at most `budget` tokens (0: all in one); an example longer than
    that has its own row.

    Raises UsageError for a model whose layers no mask keeps apart.
    """
    check_packable(loaded.model.config)
    lengths = _seen(batch).sum(1).tolist()
    chosen = by_budget(0, lengths, budget) if budget else [list(range(len(lengths)))]
    return [_row(batch, examples) for examples in chosen]


def _seen(batch: Batch) -> Tensor:
    mask = batch.inputs.attention_mask
    assert mask is not None
    return mask


def _row(batch: Batch, examples: list[int]) -> Row:
    rows, owner, place, labels, weights = [], [], [], [], []
    for number, example in enumerate(examples, 1):
        row = batch.inputs.slice([example]).trim()
        real = _seen(batch)[example].bool()
        rows.append(row)
        owner.append(torch.full_like(row.input_ids[0], number))
        place.append(torch.arange(row.tokens, device=row.input_ids.device))
        own = batch.labels[example][real].clone()
        own[0] = -100  # nothing predicts the first token
        labels.append(own)
        weights.append(batch.weights[example].expand(len(own)))
    wanted = torch.cat(labels)
    at = (wanted >= 0).nonzero()[:, 0]
    given = [name for name in ("input_ids", "position_ids", *TYPES) if name in rows[0]]
    inputs = ModelBatch(
        **{name: torch.cat([row[name] for row in rows], -1) for name in given},
        images=batch.inputs.images.slice(examples),
        image_token_id=batch.inputs.image_token_id,
    )
    parts = segments(torch.cat(owner), torch.cat(place), inputs.is_image[0])
    return Row(inputs, parts, at - 1, wanted[at], torch.cat(weights)[at])


def packed_losses(
    loaded: Loaded, row: Row, *, chunk: int = CHUNK
) -> tuple[Float[Tensor, " T"], Int[Tensor, " T"]]:
    """Cross-entropy of every supervised token of a row, and the token that the model holds most
    likely there.
    """
    hidden = packed_hidden(loaded, row.inputs, row.segments)[row.previous]
    head = partial(loaded.family.logits, loaded.model)

    def some(states: Tensor, wanted: Tensor) -> tuple[Tensor, Tensor]:
        logits = head(states).float()
        return F.cross_entropy(logits, wanted, reduction="none"), logits.argmax(-1)

    return in_chunks(some, hidden, row.targets, chunk)


def backward(loaded: Loaded, rows: list[Row]) -> Metrics:
    """Add the gradient of the weighted mean over all rows of all ranks, one row at a time; the
    metrics of `trainer.sft.loss`.

    Where the model is sharded, a rank with fewer rows than another runs its first one again, for
    nothing. Raises FrankenError where the loss is not finite.
    """
    weight = all_reduce_sum([sum(float(row.weights.sum()) for row in rows)])[0]
    count = len(rows)
    idle = all_reduce_max(count) - count if is_sharded(loaded.model) else 0
    loss, hits = 0.0, 0
    for number, row in enumerate(rows + rows[:1] * idle):
        (losses, likely), zero = in_step(
            loaded, row.inputs, lambda row=row: packed_losses(loaded, row)
        )
        part = (losses * row.weights).sum() / weight * (number < count) + zero
        backpropagate(part)
        loss += part.item()
        hits += int((likely == row.targets).sum()) * (number < count)
    loss, right, tokens = all_reduce_sum([loss, hits, sum(len(row.targets) for row in rows)])
    return {"loss": loss, "token_accuracy": right / tokens, "tokens": tokens}
