"""`router`: how an answer is paid depends on its type, as in VLAA-Thinker (arXiv 2504.11468).

box                     mean IoU, as graded
number, clock           partial credit of `continuous`
everything else         1[right]
"""

from collections.abc import Sequence

from franken.generate.native import Response
from franken.tasks import Item
from franken.tasks.grading import infer_type
from trainer.rewards.context import Context
from trainer.rewards.continuous import partial_credit

NEAR = ("number", "integer", "clock")


def router(replies: Sequence[Response], rows: Sequence[Item], context: Context) -> list[float]:
    """In [0, 1]."""
    paid = []
    for reply, item, grade in zip(replies, rows, context.grades, strict=True):
        kind = item.answer_type or infer_type(item.answer, item.options)
        paid.append(
            partial_credit(reply.text, item, grade)
            if kind in NEAR
            else grade.score
            if kind == "box"
            else float(grade.score == 1.0)
        )
    return paid
