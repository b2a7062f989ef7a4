"""Which responses go through the model together, and what the model says of them."""

from collections.abc import Callable
from typing import NamedTuple

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from franken.models.batch import ModelBatch
from franken.models.loading import Loaded
from trainer.collectives import all_reduce_max
from trainer.packing import as_rows, by_budget, pack, packed_logprobs, token_mask
from trainer.policy import response_logprobs, take_rows
from trainer.rollout import Batch
from trainer.sharding import inside, is_sharded
from trainer.stages import GrpoStage
from trainer.towers import in_step, keeps_features

Index = tuple[int, int]  # (prompt, response) of a step
MicroBatch = list[Index]


class Scores(NamedTuple):
    """Log-probabilities and entropies of some responses' tokens, and which entries are tokens."""

    logprobs: Float[Tensor, "rows tokens"]
    entropy: Float[Tensor, "rows tokens"]
    mask: Bool[Tensor, "rows tokens"]


def all_responses(batch: Batch) -> list[Index]:
    """Every response of a batch, by prompt."""
    return [(i, j) for i, group in enumerate(batch.groups) for j in range(len(group))]


def micro_batches(responses: list[Index], batch: Batch, stage: GrpoStage) -> list[MicroBatch]:
    """Packed rows, or padded ones sorted by length, so that little is padding."""
    size = {(i, j): len(batch.groups[i][j].ids) for i, j in responses}
    if stage.packed:
        return [
            row
            for i in range(len(batch.groups))
            for row in _packed_rows([x for x in responses if x[0] == i], batch, stage)
        ]
    by_length = sorted(responses, key=lambda ij: size[ij])
    if not stage.token_budget:
        return [
            by_length[i : i + stage.micro_rows] for i in range(0, len(by_length), stage.micro_rows)
        ]
    prompt = batch.encoded.tokens
    parts: list[MicroBatch] = []
    for index in by_length:  # the longest so far is the width of the micro-batch
        if not parts or (len(parts[-1]) + 1) * (prompt + size[index]) > stage.token_budget:
            parts.append([])
        parts[-1].append(index)
    return parts


def idle_micro_batches(loaded: Loaded, batch: Batch, busy: int) -> list[MicroBatch]:
    """What a rank with fewer micro-batches than another runs again, for nothing, so that sharded
    layers run in step.
    """
    if not is_sharded(loaded.model):
        return []
    return [[(0, 0)]] * (all_reduce_max(busy) - busy)


def forward(
    loaded: Loaded, stage: GrpoStage, batch: Batch, part: MicroBatch, *, entropy_grad: bool = False
) -> Scores:
    """One forward pass over a micro-batch, under the sampling distribution."""
    responses = [batch.groups[i][j].ids for i, j in part]
    if stage.packed:
        row = pack(loaded, batch.encoded, part[0][0], responses)
        logprobs, entropy = _in_step(
            loaded,
            row.inputs,
            lambda: packed_logprobs(loaded, row, stage.temperature, entropy_grad=entropy_grad),
        )
        logprobs, entropy = (as_rows(row, each, len(part)) for each in (logprobs, entropy))
        return Scores(logprobs, entropy, token_mask(row, len(part)))
    rows = take_rows(loaded, batch.encoded, [i for i, _ in part], responses)
    logprobs, entropy = _in_step(
        loaded,
        rows.inputs,
        lambda: response_logprobs(loaded, rows, stage.temperature, entropy_grad=entropy_grad),
    )
    return Scores(logprobs, entropy, rows.mask)


def _in_step(
    loaded: Loaded, inputs: ModelBatch, call: Callable[[], tuple[Tensor, Tensor]]
) -> tuple[Tensor, Tensor]:
    """Log-probabilities and entropies, from passes in which all ranks run the same layers."""
    if keeps_features(loaded):  # the tower ran before
        return inside(loaded.model, call)
    (logprobs, entropy), zero = in_step(loaded, inputs, call)
    return logprobs + zero, entropy


def sampler_logprobs(batch: Batch, part: MicroBatch, mask: Tensor) -> Float[Tensor, "rows tokens"]:
    """The sampler's log-probabilities, padded as `mask`."""
    width = mask.shape[1]
    rows = [batch.groups[i][j].logprobs for i, j in part]
    return torch.tensor([row + [0.0] * (width - len(row)) for row in rows], device=mask.device)


def rows_of(values: Tensor, part: MicroBatch, mask: Tensor) -> Tensor:
    """`[prompts, group]` or `[prompts, group, tokens]` → the same for some rows, cut to the mask's
    width.
    """
    picked = torch.stack([values[i, j] for i, j in part]).to(mask.device)
    return picked if picked.ndim == 1 else picked[:, : mask.shape[1]]


def _packed_rows(members: list[Index], batch: Batch, stage: GrpoStage) -> list[MicroBatch]:
    """One group as one row, or as few as the token budget allows, each with the prompt."""
    if not members or not stage.token_budget:
        return [members] if members else []
    prompt = batch.encoded.slice([members[0][0]]).trim().tokens
    rows = by_budget(prompt, [len(batch.groups[i][j].ids) for i, j in members], stage.token_budget)
    return [[members[at] for at in row] for row in rows]
