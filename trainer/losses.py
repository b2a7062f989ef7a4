"""The policy loss, token by token, and how tokens are added up; KL estimates; correction for
another sampler.

The loss of an optimiser step is Σ over its rows of weight·Σ over the row's tokens of `token_loss`.
The weights come from
`row_weights`, once, from the lengths of all rows of the step on all ranks, before the first
backward: however the step is
cut into micro-batches or spread over ranks, the gradients add up to the same.

    kind     ratio                 surrogate                                  tokens are added up by
    grpo     per token             min(r·A, clip(r)·A)                        row      1/(rows ·
             |o|)
    dr_grpo  per token             the same                                   constant 1/(rows · max
             tokens)
    dapo     per token             the same, with clip_high > clip_low        token    1/(all
             tokens)
    gspo     per row, r^(1/|o|)    the same                                   row
    cispo    per token, detached   clip(r)·A·log π                            token

GRPO arXiv 2402.03300, Dr. GRPO 2503.20783, DAPO 2503.14476, GSPO 2507.18071, CISPO (MiniMax-M1)
2506.13585, dual clip
1912.09729, KL estimates: Schulman, "Approximating KL divergence", truncated importance sampling:
Yao et al. 2025, "Your
efficient RL framework secretly brings you off-policy RL training".
"""

from typing import Literal, get_args

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from franken.errors import UsageError

LossKind = Literal["grpo", "dr_grpo", "dapo", "gspo", "cispo"]
Aggregation = Literal["row", "token", "constant"]
KlKind = Literal["k1", "k2", "k3"]
Correction = Literal["none", "token_truncate", "token_mask", "sequence_truncate", "sequence_mask"]

AGGREGATION: dict[LossKind, Aggregation] = {
    "grpo": "row",
    "dr_grpo": "constant",
    "dapo": "token",
    "gspo": "row",
    "cispo": "token",
}

RowTokens = Float[Tensor, "rows tokens"]
Mask = Bool[Tensor, "rows tokens"]


def token_loss(
    logprobs: RowTokens,
    advantages: Float[Tensor, "rows"] | RowTokens,
    mask: Mask,
    *,
    kind: LossKind = "dapo",
    old_logprobs: RowTokens | None = None,
    clip_low: float = 0.2,
    clip_high: float = 0.2,
    dual_clip: float | None = None,
    correction: Float[Tensor, "rows #tokens"] | None = None,
) -> RowTokens:
    """What every token contributes, before weights; masked ones contribute 0.

    Without `old_logprobs` the batch is on-policy: the ratio is 1 and only its gradient counts.
    `clip_low`, `clip_high` bound the ratio to [1 − low, 1 + high] (CISPO has an upper bound only).
    `dual_clip` c > 1 bounds what a negative advantage can cost at a large ratio: the surrogate is
    at least c·A. `correction` multiplies (`sampler_correction`).
    """
    if kind not in get_args(LossKind):
        raise UsageError(f"unknown loss {kind!r}", why=f"there are {', '.join(get_args(LossKind))}")
    old = logprobs.detach() if old_logprobs is None else old_logprobs
    weight = advantages[:, None] if advantages.ndim == 1 else advantages
    log_ratio = logprobs - old
    if kind == "cispo":
        loss = -log_ratio.exp().clamp(max=1 + clip_high).detach() * weight * logprobs
    else:
        if kind == "gspo":
            log_ratio = _row_mean(log_ratio, mask)
        ratio = log_ratio.exp()
        surrogate = torch.minimum(ratio * weight, ratio.clamp(1 - clip_low, 1 + clip_high) * weight)
        if dual_clip is not None:
            surrogate = torch.where(
                weight < 0, torch.maximum(surrogate, dual_clip * weight), surrogate
            )
        loss = -surrogate
    if correction is not None:
        loss = loss * correction
    return torch.where(mask, loss, torch.zeros_like(loss))


def row_weights(
    lengths: Int[Tensor, "rows"],
    aggregation: Aggregation,
    *,
    max_tokens: int = 0,
    rows: int = 0,
    tokens: int = 0,
) -> Float[Tensor, "rows"]:
    """What a row's tokens are multiplied by before they are added up.

    `lengths` are the tokens that count, 0 for a row that is masked whole. `rows` and `tokens` are
    totals of the optimiser
    step over all ranks (`global_totals`); by default those of `lengths`. A masked row still counts
    as a row.
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
    raise UsageError(
        f"unknown aggregation {aggregation!r}", why=f"there are {', '.join(get_args(Aggregation))}"
    )


def global_totals(lengths: Int[Tensor, "rows"]) -> tuple[int, int]:
    """Rows and tokens of an optimiser step over all ranks; with these, gradients are summed over
    ranks, not averaged.
    """
    totals = torch.stack([torch.tensor(len(lengths), device=lengths.device), lengths.sum()])
    if torch.distributed.is_available() and torch.distributed.is_initialized():
        torch.distributed.all_reduce(totals)
    rows, tokens = totals.tolist()
    return int(rows), int(tokens)


def token_kl(logprobs: RowTokens, reference: RowTokens, kind: KlKind = "k3") -> RowTokens:
    """Estimates of KL(policy ‖ reference) at tokens sampled from the policy, with x = reference −
    logprob.

    k1 = −x (unbiased, of either sign; its gradient in a loss has mean zero, so use it in the
    reward), k2 = x²/2 (biased, low variance), k3 = eˣ − x − 1 (unbiased, never negative).
    """
    x = reference - logprobs
    if kind == "k1":
        return -x
    if kind == "k2":
        return 0.5 * x**2
    if kind == "k3":
        return x.exp() - x - 1
    raise UsageError(
        f"unknown KL estimate {kind!r}", why=f"there are {', '.join(get_args(KlKind))}"
    )


@torch.no_grad()
def sampler_correction(
    logprobs: RowTokens, sampled: RowTokens, mask: Mask, kind: Correction, *, cap: float = 2.0
) -> Float[Tensor, "rows #tokens"] | None:
    """π_trainer/π_sampler at the weights that sampled: per token or per row, cut at `cap` or, above
    it, left out.

    `logprobs` are the trainer's under those weights, `sampled` the sampler's. Per row is the
    product over its tokens.
    """
    if kind == "none":
        return None
    if kind not in get_args(Correction):
        raise UsageError(
            f"unknown correction {kind!r}", why=f"there are {', '.join(get_args(Correction))}"
        )
    difference = torch.where(mask, logprobs - sampled, torch.zeros_like(logprobs))
    if kind.startswith("sequence"):
        difference = difference.sum(1, keepdim=True)
    ratio = difference.exp()
    return ratio.clamp(max=cap) if kind.endswith("truncate") else ratio * (ratio <= cap)


def overlong_penalty(
    lengths: Int[Tensor, "*rows"], max_tokens: int, buffer: int
) -> Float[Tensor, "*rows"]:
    """DAPO's soft punishment: 0 up to max_tokens − buffer, then down in a straight line to −1 at
    max_tokens.
    """
    return -((lengths - (max_tokens - buffer)) / buffer).clamp(0.0, 1.0)


def clipped_tokens(
    logprobs: RowTokens,
    old: RowTokens,
    advantages: Float[Tensor, "rows"] | RowTokens,
    mask: Mask,
    clip_low: float,
    clip_high: float,
    *,
    kind: LossKind = "dapo",
) -> float:
    """The number of tokens that the clip holds: whose ratio (GSPO: whose row's) is outside, on the
    side that the advantage pushes to. CISPO has an upper bound alone, for advantages of either
    sign.
    """
    log_ratio = logprobs - old
    if kind == "gspo":
        log_ratio = _row_mean(log_ratio, mask)
    ratio = log_ratio.exp()
    advantages = advantages[:, None] if advantages.ndim == 1 else advantages
    if kind == "cispo":
        return float(((ratio > 1 + clip_high) & (advantages != 0) & mask).sum())
    clipped = ((ratio < 1 - clip_low) & (advantages < 0)) | (
        (ratio > 1 + clip_high) & (advantages > 0)
    )
    return float((clipped & mask).sum())


def _row_mean(values: RowTokens, mask: Mask) -> RowTokens:
    """The mean over a row's tokens, at each of them."""
    means = (values * mask).sum(1, keepdim=True) / mask.sum(1, keepdim=True).clamp(min=1)
    return means.expand_as(values)
