"""`mixture` (arXiv 2601.00215): the reward spread over stages,
0.06 · sentences(image description) + 0.06 · sentences(think) + 0.08 · sentences(rethink) + 0.80 ·
1[right]."""

from collections.abc import Sequence

from franken.generate.native import Response
from franken.tasks import Item
from trainer.rewards.context import Context
from trainer.rewards.tagged import answer_right, section_sum
from trainer.templates import DESCRIPTION

WEIGHTS = {DESCRIPTION: 0.06, "think": 0.06, "rethink": 0.08}
ANSWER = 0.80


def mixture(replies: Sequence[Response], rows: Sequence[Item], context: Context) -> list[float]:
    """In [−0.2, 1]."""
    return [
        section_sum(reply.text, WEIGHTS) + ANSWER * answer_right(reply.text, grade)
        for reply, grade in zip(replies, context.grades, strict=True)
    ]
