"""The clipped policy loss and its KL penalty, token by token; denominators are given from outside.

The loss of an optimiser step is Σ over its tokens of `policy_loss`, divided by one number that is known before backward
(the step's number of response tokens). Micro-batches then add up to exactly the same gradient however they are cut.
"""

import torch
from jaxtyping import Bool, Float
from torch import Tensor


def policy_loss(
    logprobs: Float[Tensor, "rows tokens"],
    advantages: Float[Tensor, "rows"],
    mask: Bool[Tensor, "rows tokens"],
    *,
    old_logprobs: Float[Tensor, "rows tokens"] | None = None,
    clip_low: float = 0.2,
    clip_high: float = 0.2,
) -> Float[Tensor, ""]:
    """Sum over tokens of −min(r·A, clip(r, 1 − clip_low, 1 + clip_high)·A), r = exp(logp − old).

    Without `old_logprobs` the batch is on-policy: r is 1 and only its gradient counts.
    """
    old = logprobs.detach() if old_logprobs is None else old_logprobs
    ratio = (logprobs - old).exp()
    weight = advantages[:, None]
    surrogate = torch.minimum(ratio * weight, ratio.clamp(1 - clip_low, 1 + clip_high) * weight)
    return -(surrogate * mask).sum()


def kl_penalty(
    logprobs: Float[Tensor, "rows tokens"],
    reference: Float[Tensor, "rows tokens"],
    mask: Bool[Tensor, "rows tokens"],
) -> Float[Tensor, ""]:
    """Sum over tokens of the k3 estimate eˣ − x − 1, x = reference − logp (Schulman, "Approximating KL divergence")."""
    x = reference - logprobs
    return ((x.exp() - x - 1) * mask).sum()
