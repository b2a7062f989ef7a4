"""The door to grading: from a reply and an item to a verdict that says why.

What an answer may look like is decided by its type (`Item.answer_type`; inferred where the row has
none). How it is read and compared is in `franken.tasks.graders`.
"""

import json
from collections.abc import Sequence
from typing import Any

from franken.tasks.graders.compare import ANSWER_TYPES, compare, infer_type
from franken.tasks.graders.extract import extract, is_well_formed, normalise, reasoning, unfinished
from franken.tasks.graders.numbers import NUMBER
from franken.tasks.puzzle import Grade, Item

__all__ = [
    "ANSWER_TYPES",
    "NUMBER",
    "extract",
    "grade_exact",
    "grade_item",
    "grade_typed",
    "graded_by",
    "infer_type",
    "is_well_formed",
    "normalise",
    "reasoning",
]


def grade_exact(reply: str, gold: str) -> Grade:
    """Exact match of the extracted answer after `normalise`; numbers are compared as numbers."""
    answer = extract(reply)
    formed = is_well_formed(reply)
    if answer is None:
        return Grade(0.0, "no answer", None, formed)
    said, right = normalise(answer), normalise(gold)
    if said == right or _same_number(said, right):
        return Grade(1.0, f"{said!r} is right", answer, formed)
    return Grade(0.0, f"said {said!r}, right is {right!r}", answer, formed)


def grade_typed(
    reply: str,
    gold: str,
    answer_type: str = "",
    options: Sequence[str] = (),
    tolerance: float = 0.0,
    iou_threshold: float = 0.5,
) -> Grade:
    """Judge a reply by the type of its answer, inferred from the gold answer and the options when
    it is empty.

    Reasoning that was opened and never closed has no answer. Raises ValueError when the gold answer
    is not of its type.
    """
    formed = is_well_formed(reply)
    answer = extract(reply)
    if answer is None or unfinished(reply):
        return Grade(
            0.0,
            "no answer" if answer is None else "no answer: the reasoning never ended",
            None,
            formed,
        )
    kind = answer_type or infer_type(gold, options)
    verdict = compare(
        answer, gold, kind, options=options, tolerance=tolerance, iou_threshold=iou_threshold
    )
    return Grade(
        verdict.score, verdict.reason, answer if verdict.read is None else verdict.read, formed
    )


def grade_item(reply: str, item: Item) -> Grade:
    """Judge a reply to an item by what its row says of the answer."""
    return grade_typed(reply, item.answer, item.answer_type, item.options, item.tolerance)


def graded_by(item: Item) -> dict[str, Any]:
    """What a stored answer needs beside its gold answer to be judged again without the item: one
    column each.
    """
    kind = item.answer_type or (infer_type(item.answer, item.options) if item.answer else "")
    options = json.dumps(item.options, ensure_ascii=False) if item.options else None
    return {
        "question": item.question,
        "answer_type": kind,
        "options": options,
        "tolerance": item.tolerance,
    }


def _same_number(a: str, b: str) -> bool:
    return bool(NUMBER.fullmatch(a) and NUMBER.fullmatch(b)) and float(a) == float(b)
