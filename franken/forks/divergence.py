"""How far two next-token distributions are apart, in nats, over the whole vocabulary.

Everything is computed from log-probabilities in double precision. Of two equal distributions every
divergence is exactly 0: JS is written with the ratio of the two, whose mean with 1 is then 1.
Banned tokens (image, video and turn markers) are excluded from both, as when sampling.
"""

import math

import torch
from jaxtyping import Float, Int
from torch import Tensor

FORBIDDEN = -1e9
STEEPEST = 700.0  # exp of more overflows; what has such a ratio has no probability on one side

LogProbs = Float[Tensor, "rows vocabulary"]
Values = Float[Tensor, "rows"]


def log_probs(logits: Float[Tensor, "rows vocabulary"], banned: Int[Tensor, "banned"]) -> LogProbs:
    """Log-probabilities at temperature 1 of the tokens that may be said."""
    return torch.log_softmax(logits.double().index_fill(-1, banned, FORBIDDEN), -1)


def kl(p: LogProbs, q: LogProbs) -> Values:
    """KL(p ‖ q) = Σ p (log p − log q)."""
    return (p.exp() * (p - q)).sum(-1).clamp(min=0.0)


def js(p: LogProbs, q: LogProbs) -> Values:
    """The Jensen–Shannon divergence, half of KL(p ‖ m) + KL(q ‖ m) with m = (p + q) / 2; from 0 to
    log 2.
    """
    both = _to_mixture(p, q) + _to_mixture(q, p)
    return (0.5 * both).clamp(0.0, math.log(2))


def _to_mixture(p: LogProbs, q: LogProbs) -> Values:
    """KL(p ‖ (p + q) / 2)."""
    ratio = (q - p).clamp(max=STEEPEST).exp()
    return -(p.exp() * ((1 + ratio) / 2).log()).sum(-1)


def entropy(p: LogProbs) -> Values:
    """−Σ p log p."""
    return -(p.exp() * p).sum(-1)


def rank(p: LogProbs, token: Int[Tensor, "rows"]) -> Int[Tensor, "rows"]:
    """The place of a token among all, from 1: one more than there are likelier ones."""
    return (p > p.gather(-1, token[:, None])).sum(-1) + 1
