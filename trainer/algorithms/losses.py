"""Policy losses, token by token, and how tokens are summed.

The loss of an optimizer step is Σ over its rows of weight·Σ over the row's tokens of a policy loss.
The weights come from `row_weights`, once, from the lengths of all rows of the step on all ranks,
before the first backward pass: however the step is cut into micro-batches or spread over ranks, the
gradients sum to the same.

    kind     ratio                 surrogate                           tokens are summed by
    grpo     per token             min(r·A, clip(r)·A)                 row       1/(rows·|o|)
    dr_grpo  per token             the same                            constant  1/(rows·max tokens)
    dapo     per token             the same, with clip_high > clip_low token     1/(all tokens)
    gspo     per row, r^(1/|o|)    the same                            row
    cispo    per token, detached   clip(r)·A·log π                     token

A loss of one's own (`--plugin`, kind `loss`, or `package.module:function`) takes `Tokens` and
returns a `TokenLoss` or a tensor; its tokens are summed by token unless it says otherwise.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple, get_args

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from franken.errors import FrankenError, UsageError, unknown
from trainer.collectives import all_reduce_sum
from trainer.registry import Method, Registry

Aggregation = Literal["row", "token", "constant"]
RowTokens = Float[Tensor, "rows tokens"]
Mask = Bool[Tensor, "rows tokens"]


@dataclass(frozen=True)
class Tokens:
    """What a loss is computed from. `old` are the log-probabilities that the ratio is taken to;
    advantages are one a row, `[rows, 1]`, or one a token.
    """

    logprobs: RowTokens
    old: RowTokens
    advantages: Float[Tensor, "rows #tokens"]
    mask: Mask

    @property
    def log_ratio(self) -> RowTokens:
        """log(π/π_old) of every token."""
        return self.logprobs - self.old

    @property
    def row_log_ratio(self) -> RowTokens:
        """Its mean over the row's tokens, at each of them."""
        lengths = self.mask.sum(1, keepdim=True).clamp(min=1)
        means = (self.log_ratio * self.mask).sum(1, keepdim=True) / lengths
        return means.expand_as(self.logprobs)


class TokenLoss(NamedTuple):
    """The loss of every token, and which ones the clip holds."""

    loss: RowTokens
    clipped: Mask


@dataclass(frozen=True)
class Loss(Method):
    """`aggregation` says how the tokens of a step are summed."""

    aggregation: Aggregation = "token"


LOSSES = Registry("loss", Loss, passed=1, shared=("clip_low", "clip_high", "dual_clip"))


@LOSSES.register("dapo", aggregation="token", paper="arXiv 2503.14476")
@LOSSES.register("dr_grpo", aggregation="constant", paper="arXiv 2503.20783")
@LOSSES.register("grpo", aggregation="row", paper="arXiv 2402.03300")
def token_loss(
    tokens: Tokens, clip_low: float = 0.2, clip_high: float = 0.2, dual_clip: float | None = None
) -> TokenLoss:
    """PPO's clipped surrogate of each token's ratio: summed by row in grpo, over the longest
    response that is allowed in dr_grpo, over all tokens of the step in dapo.
    """
    return clipped_surrogate(tokens, tokens.log_ratio, clip_low, clip_high, dual_clip)


@LOSSES.register("gspo", aggregation="row", paper="arXiv 2507.18071")
def gspo_loss(
    tokens: Tokens, clip_low: float = 0.2, clip_high: float = 0.2, dual_clip: float | None = None
) -> TokenLoss:
    """The clipped surrogate of a whole response's ratio, r^(1/|o|)."""
    return clipped_surrogate(tokens, tokens.row_log_ratio, clip_low, clip_high, dual_clip)


@LOSSES.register("cispo", aggregation="token", paper="MiniMax-M1, arXiv 2506.13585")
def cispo_loss(tokens: Tokens, clip_high: float = 0.2) -> TokenLoss:
    """REINFORCE whose importance ratio is detached and bounded from above."""
    ratio = tokens.log_ratio.exp()
    loss = -ratio.clamp(max=1 + clip_high).detach() * tokens.advantages * tokens.logprobs
    return TokenLoss(loss, (ratio > 1 + clip_high) & (tokens.advantages != 0))


def clipped_surrogate(
    tokens: Tokens, log_ratio: RowTokens, clip_low: float, clip_high: float, dual_clip: float | None
) -> TokenLoss:
    """−min(r·A, clip(r)·A), the ratio kept in [1 − clip_low, 1 + clip_high].

    `dual_clip` c > 1 bounds what a negative advantage can cost at a large ratio: the surrogate is
    at least c·A (arXiv 1912.09729). A token is clipped where its ratio is outside on the side that
    the advantage pushes to.
    """
    ratio, advantages = log_ratio.exp(), tokens.advantages
    bounded = ratio.clamp(1 - clip_low, 1 + clip_high)
    surrogate = torch.minimum(ratio * advantages, bounded * advantages)
    if dual_clip is not None:
        floor = torch.maximum(surrogate, dual_clip * advantages)
        surrogate = torch.where(advantages < 0, floor, surrogate)
    clipped = ((ratio < 1 - clip_low) & (advantages < 0)) | (
        (ratio > 1 + clip_high) & (advantages > 0)
    )
    return TokenLoss(-surrogate, clipped)


def policy_loss(
    loss: Loss,
    logprobs: RowTokens,
    advantages: Float[Tensor, "rows"] | RowTokens,
    mask: Mask,
    parameters: Mapping[str, Any],
    *,
    old_logprobs: RowTokens | None = None,
    correction: Float[Tensor, "rows #tokens"] | None = None,
) -> TokenLoss:
    """What every token contributes, before weights; masked ones contribute 0 and are not clipped.

    Without `old_logprobs` the batch is on-policy: the ratio is 1 and only its gradient counts.
    `correction` multiplies (`trainer.algorithms.corrections.sampler_correction`). Raises
    FrankenError for a loss of another shape.
    """
    old = logprobs.detach() if old_logprobs is None else old_logprobs
    advantages = advantages[:, None] if advantages.ndim == 1 else advantages
    result = loss(Tokens(logprobs, old, advantages, mask), **parameters)
    by_token, clipped = result if isinstance(result, tuple) else (result, torch.zeros_like(mask))
    if getattr(by_token, "shape", None) != logprobs.shape:
        raise FrankenError(
            f"the loss {loss.name} returned {tuple(getattr(by_token, 'shape', ()))}",
            why=f"a policy loss is one number a token, {tuple(logprobs.shape)}",
        )
    if correction is not None:
        by_token = by_token * correction
    return TokenLoss(torch.where(mask, by_token, torch.zeros_like(by_token)), clipped & mask)


def row_weights(
    lengths: Int[Tensor, "rows"],
    aggregation: Aggregation,
    *,
    max_tokens: int = 0,
    rows: int = 0,
    tokens: int = 0,
) -> Float[Tensor, "rows"]:
    """What a row's tokens are multiplied by before they are summed.

    `lengths` are the tokens that count, 0 for a row that is masked whole. `rows` and `tokens` are
    totals of the optimizer step over all ranks (`global_totals`); by default those of `lengths`. A
    masked row still counts as a row.
    """
    if aggregation == "row":
        return 1.0 / (lengths.clamp(min=1) * (rows or len(lengths)))
    if aggregation == "token":
        return torch.full(
            lengths.shape, 1.0 / max(tokens or int(lengths.sum()), 1), device=lengths.device
        )
    if aggregation == "constant":
        if max_tokens < 1:
            raise UsageError(
                "dr_grpo needs the longest response that is allowed",
                why=f"max_tokens is {max_tokens}",
            )
        return torch.full(
            lengths.shape, 1.0 / ((rows or len(lengths)) * max_tokens), device=lengths.device
        )
    raise unknown("aggregation", aggregation, get_args(Aggregation))


def global_totals(lengths: Int[Tensor, "rows"]) -> tuple[int, int]:
    """Rows and tokens of an optimizer step over all ranks; with these, gradients are summed over
    ranks, not averaged.
    """
    rows, tokens = all_reduce_sum([len(lengths), int(lengths.sum())])
    return int(rows), int(tokens)
