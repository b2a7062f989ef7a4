"""`accuracy`: 1 for a right answer in the right format, else 0: the hard "format and result" reward
of Vision-R1 (arXiv 2503.06749). It is the AND of `correct` and `format`."""

from collections.abc import Sequence

from franken.generate.native import Response
from franken.tasks import Item
from trainer.rewards.context import Context
from trainer.templates import well_formed


def accuracy(replies: Sequence[Response], rows: Sequence[Item], context: Context) -> list[float]:
    """1[right and well-formed]."""
    return [
        float(grade.score == 1.0 and well_formed(reply.text, context.template))
        for reply, grade in zip(replies, context.grades, strict=True)
    ]
