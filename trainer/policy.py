"""The log-probabilities of responses under a policy, in padded rows.

Prompts are left-padded and shared by reference: a row is (prompt index, response ids).
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from franken.models.batch import ModelBatch
from franken.models.loading import Loaded


@dataclass(frozen=True)
class Rows:
    """Some responses as one padded batch: `inputs` for the model, `targets` and `mask` are `[rows,
    tokens]`.
    """

    inputs: ModelBatch
    targets: Tensor
    mask: Bool[Tensor, "rows tokens"]


def take_rows(
    loaded: Loaded, batch: ModelBatch, prompts: Sequence[int], responses: Sequence[list[int]]
) -> Rows:
    """The batch of some (prompt, response) rows, responses padded on the right."""
    device = batch.input_ids.device
    width = max(len(r) for r in responses)
    targets = torch.tensor([r + [0] * (width - len(r)) for r in responses], device=device)
    mask = torch.tensor(
        [[True] * len(r) + [False] * (width - len(r)) for r in responses], device=device
    )
    return Rows(batch.slice(prompts).append(targets, mask), targets, mask)


def response_logprobs(
    loaded: Loaded, rows: Rows, temperature: float, *, entropy_grad: bool = False
) -> tuple[Float[Tensor, "rows tokens"], Float[Tensor, "rows tokens"]]:
    """Log-probability of every response token, and the entropy there, under the sampling
    distribution.

    Banned tokens are excluded and the temperature applied, as when sampling. Padding holds zeros.
    The entropy is detached unless `entropy_grad` asks for its gradient.
    """
    model = loaded.model
    width = rows.targets.shape[1]
    hidden = model.model(**rows.inputs, use_cache=False).last_hidden_state[:, -width - 1 : -1]
    logits = loaded.family.logits(model, hidden[rows.mask])
    banned = loaded.family.banned_token_ids(model.config, loaded.tokenizer)
    chosen, entropy = token_logprobs(
        logits, rows.targets[rows.mask], temperature, banned, entropy_grad=entropy_grad
    )
    empty = chosen.new_zeros(rows.mask.shape)
    return empty.masked_scatter(rows.mask, chosen), empty.masked_scatter(rows.mask, entropy)


def token_logprobs(
    logits: Float[Tensor, "T V"],
    targets: Int[Tensor, " T"],
    temperature: float,
    banned: Sequence[int],
    *,
    entropy_grad: bool = False,
) -> tuple[Float[Tensor, " T"], Float[Tensor, " T"]]:
    """Log-probability of every target and the entropy there, without the `banned` tokens."""
    excluded = torch.tensor(list(banned), dtype=torch.long, device=logits.device)
    logp = torch.log_softmax((logits.float() / temperature).index_fill(1, excluded, -1e9), -1)
    with torch.set_grad_enabled(entropy_grad and torch.is_grad_enabled()):
        entropy = -(logp.exp() * logp).sum(-1)
    return logp.gather(1, targets[:, None])[:, 0], entropy


def row_slices(count: int, at_once: int) -> list[list[int]]:
    """Row numbers, `at_once` (0: all) at a time."""
    size = at_once or max(count, 1)
    return [list(range(first, min(first + size, count))) for first in range(0, count, size)]
