"""A policy loss: the surrogate with a tempered ratio instead of a clipped one.

    franken --plugin loss.py train creature-rl --out runs/tempered --set stages.0.steps=20 --set
    stages.0.loss='{name: tempered, tau: 0.5}'

It gets the `Tokens` of a micro-batch (log-probabilities under the policy and under the one that the
ratio is taken to, advantages, mask) and returns the loss of every token. Its other parameters are
what a recipe may set.
"""

from typing import Annotated

from pydantic import Field
from torch import Tensor

from franken.plugins import register
from trainer.algorithms.losses import Tokens


def tempered(
    tokens: Tokens,
    *,
    tau: Annotated[float, Field(gt=0, le=1, description="exponent of the ratio")] = 0.5,
) -> Tensor:
    """−A·r^tau / tau: on-policy its gradient is REINFORCE's, −A·∇log π."""
    return -tokens.advantages * (tau * tokens.log_ratio).exp() / tau


register("loss", "tempered", tempered)
