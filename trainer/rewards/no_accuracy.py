"""`no_accuracy` (arXiv 2601.00215): nothing verifiable is paid,
0.30 · sentences(image description) + 0.30 · sentences(think) + 0.30 · sentences(rethink) + 0.10 ·
1[an answer section is there]."""

from collections.abc import Sequence

from franken.generate.native import Response
from franken.tasks import Item
from trainer.rewards.context import Context
from trainer.rewards.tagged import section_sum
from trainer.templates import DESCRIPTION, section

WEIGHTS = {DESCRIPTION: 0.30, "think": 0.30, "rethink": 0.30}
ANSWER = 0.10


def no_accuracy(replies: Sequence[Response], rows: Sequence[Item], context: Context) -> list[float]:
    """In [−0.9, 1]."""
    return [
        section_sum(r.text, WEIGHTS) + ANSWER * (section(r.text, "answer") is not None)
        for r in replies
    ]
