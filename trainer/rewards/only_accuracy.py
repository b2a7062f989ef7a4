"""`only_accuracy` (arXiv 2601.00215): the answer alone is paid, 1.0 · 1[right]. No format is asked
for but the answer's own tag; reasoning may stand before it, untagged."""

from collections.abc import Sequence

from franken.generate.native import Response
from franken.tasks import Item
from trainer.rewards.context import Context
from trainer.rewards.tagged import answer_right


def only_accuracy(
    replies: Sequence[Response], rows: Sequence[Item], context: Context
) -> list[float]:
    """1[right, in an answer section]."""
    return [
        answer_right(reply.text, grade)
        for reply, grade in zip(replies, context.grades, strict=True)
    ]
