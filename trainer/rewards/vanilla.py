"""`vanilla` (arXiv 2601.00215, the R1-Zero baseline): 0.10 · sentences(think) + 0.90 · 1[right]."""

from collections.abc import Sequence

from franken.generate.native import Response
from franken.tasks import Item
from trainer.rewards.context import Context
from trainer.rewards.tagged import answer_right, section_sum

WEIGHTS = {"think": 0.10}
ANSWER = 0.90


def vanilla(replies: Sequence[Response], rows: Sequence[Item], context: Context) -> list[float]:
    """In [−0.1, 1]."""
    return [
        section_sum(reply.text, WEIGHTS) + ANSWER * answer_right(reply.text, grade)
        for reply, grade in zip(replies, context.grades, strict=True)
    ]
