"""`confidence`: the outcome weighted by the model's own confidence, and clipped (after ConfClip,
arXiv 2509.17730).

    s · clip(c, low, high),  s = +1 for a right answer, −1 for a wrong one,  c = exp(mean
                             log-probability of the reply)

The paper's exact formula is not public; this is one reading of its abstract. The log-probabilities
are the sampler's, so nothing is differentiated through them. Options `low` (0.2) and `high` (0.9).
"""

import math
from collections.abc import Sequence

from franken.generate.native import Response
from franken.tasks import Item
from trainer.rewards.context import Context


def confidence(replies: Sequence[Response], rows: Sequence[Item], context: Context) -> list[float]:
    """In [−high, high]."""
    low, high = float(context.options.get("low", 0.2)), float(context.options.get("high", 0.9))
    paid = []
    for reply, grade in zip(replies, context.grades, strict=True):
        certain = math.exp(sum(reply.logprobs) / len(reply.logprobs)) if reply.logprobs else 0.0
        paid.append((1 if grade.score == 1.0 else -1) * min(max(certain, low), high))
    return paid
