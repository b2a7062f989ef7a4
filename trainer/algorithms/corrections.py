"""What is added to a policy loss or multiplied with it: KL estimates, the correction for a sampler
that differs from the trainer, the penalty for long responses.

KL estimates: Schulman, "Approximating KL divergence". Truncated importance sampling: Yao et al.
2025, "Your efficient RL framework secretly brings you off-policy RL training".
"""

from typing import Literal, get_args

import torch
from jaxtyping import Float, Int
from torch import Tensor

from franken.errors import check_known, unknown
from trainer.algorithms.losses import Mask, RowTokens

KlKind = Literal["k1", "k2", "k3"]
Correction = Literal["none", "token_truncate", "token_mask", "sequence_truncate", "sequence_mask"]


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
    raise unknown("KL estimate", kind, get_args(KlKind))


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
    check_known("correction", [kind], get_args(Correction))
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
