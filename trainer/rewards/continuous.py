"""`continuous` (arXiv 2601.00215): `mixture` with partial credit for an answer that is near.

    clock     ½·hour + ½·minute; hour: 1 − d/5 for a circular distance d ≤ 2, else 0; minute: 1 −
              d/20 for d ≤ 10, else 0
    number    1 / (1 + d) for a distance d ≤ 5, else 0
    other     1[right]

A systematically near answer is paid well: read exact accuracy beside it.
"""

import re
from collections.abc import Sequence

from franken.generate.native import Response
from franken.tasks import Grade, Item
from trainer.rewards.context import Context
from trainer.rewards.mixture import ANSWER, WEIGHTS
from trainer.rewards.tagged import section_sum
from trainer.templates import section

CLOCK = re.compile(r"(\d{1,2}):(\d{2})")
NUMBER = re.compile(r"[-+]?\d+(?:\.\d+)?")


def continuous(replies: Sequence[Response], rows: Sequence[Item], context: Context) -> list[float]:
    """In [−0.2, 1]."""
    return [
        section_sum(reply.text, WEIGHTS) + ANSWER * partial_credit(reply.text, item, grade)
        for reply, item, grade in zip(replies, rows, context.grades, strict=True)
    ]


def partial_credit(reply: str, item: Item, grade: Grade) -> float:
    """How near the answer is, in [0, 1]; 0 without an answer section."""
    said = section(reply, "answer")
    if said is None:
        return 0.0
    if grade.score == 1.0:
        return 1.0
    if right := CLOCK.fullmatch(item.answer):
        found = CLOCK.fullmatch(said)
        return _clock(found, right) if found else 0.0
    if NUMBER.fullmatch(item.answer) and NUMBER.fullmatch(said):
        distance = abs(float(said) - float(item.answer))
        return 1 / (1 + distance) if distance <= 5 else 0.0
    return 0.0


def _clock(said: re.Match[str], right: re.Match[str]) -> float:
    hour = _circular(int(said[1]) - int(right[1]), 12)
    minute = _circular(int(said[2]) - int(right[2]), 60)
    return 0.5 * (1 - hour / 5 if hour <= 2 else 0.0) + 0.5 * (
        1 - minute / 20 if minute <= 10 else 0.0
    )


def _circular(difference: int, period: int) -> int:
    return min(difference % period, -difference % period)
