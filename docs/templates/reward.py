"""A reward: right answers, and the shorter the better.

    franken --plugin reward.py train creature-rl --out runs/brief --set stages.0.steps=20 --set
    stages.0.rewards='{brief: 1.0}'

A reward sees the replies to one question, their rows (question, answer, image, description, …) and
a context: the verdicts in `context.grades` and the template. Its other parameters are what a recipe
may set: `reward_options: {brief: {scale: 16}}`. It is pure: the same input gives the same numbers.
One that raises stops the run with the reply that it failed on.
"""

from collections.abc import Sequence

from franken.generate.native import Response
from franken.plugins import register
from franken.tasks import Item
from trainer.rewards import Context


def brief(
    replies: Sequence[Response], rows: Sequence[Item], context: Context, *, scale: float = 32.0
) -> list[float]:
    """1[right] · 1 / (1 + tokens / scale), in [0, 1]."""
    right = [grade.score == 1.0 for grade in context.grades]
    return [hit / (1 + len(reply.ids) / scale) for hit, reply in zip(right, replies, strict=True)]


register("reward", "brief", brief)
