"""`correct`: 1 for a right answer, whatever its format, else 0. A partly right answer (a box, say)
is not right.
"""

from collections.abc import Sequence

from franken.generate.native import Response
from franken.tasks import Item
from trainer.rewards.context import Context


def correct(replies: Sequence[Response], rows: Sequence[Item], context: Context) -> list[float]:
    """1[right]."""
    return [float(grade.score == 1.0) for grade in context.grades]
