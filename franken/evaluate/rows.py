"""The rows of an evaluation: one answer, graded and read, or the reason why there is none."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from franken.evaluate.arms import DESCRIBE, misled, view_of
from franken.evaluate.metrics import RIGHT
from franken.evaluate.reading import compare_facts, error_kind, shape
from franken.tasks.grading import grade_exact, graded_by

if TYPE_CHECKING:
    from franken.tasks import Item

EMPTY: dict[str, Any] = {
    "output": None,
    "answer": None,
    "score": None,
    "reason": None,
    "well_formed": None,
    "strategy": None,
    "kind": None,
    "misled": None,
    "facts_right": None,
    "tokens": None,
    "steps": None,
    "reflections": None,
    "references": None,
    "truncated": None,
    "error": None,
    "ineligible": None,
}


def missing_row(
    label: str, arm: str, item: Item, draw: int, *, error: str | None, ineligible: str | None
) -> dict[str, Any]:
    """The row of an answer that could not be asked for."""
    return {**_head(label, arm, item, draw), **EMPTY, "error": error, "ineligible": ineligible}


def answer_row(
    label: str, arm: str, item: Item, draw: int, text: str, *, tokens: int | None, truncated: bool
) -> dict[str, Any]:
    """The row of an answer, graded. In `describe` the score is whether the facts that the question
    needs are right.

    `kind` says why a wrong answer is wrong; `misled` whether it is the one that follows from a
    wrong description; `facts_right` is the share of all facts that a description has right. Counts
    are of the reasoning; `tokens` of all.
    """
    row = {
        **_head(label, arm, item, draw),
        **EMPTY,
        "output": text,
        "tokens": tokens,
        "truncated": truncated,
    }
    if arm == DESCRIBE:
        described = description_columns(text, item)
        return row | described | {"strategy": DESCRIBE, "gold": item.description}
    return (
        row
        | _graded(text, item, truncated)
        | shape(text, item)
        | {"misled": _is_misled(text, item, arm)}
    )


def description_columns(text: str, item: Item) -> dict[str, float | str | bool]:
    """The verdict on a description, by the facts that the question needs."""
    share, wrong, whole = compare_facts(text, item)
    fine = "the facts that the question needs are right"
    return {
        "score": float(not wrong),
        "reason": f"wrong: {', '.join(wrong)}" if wrong else fine,
        "well_formed": whole,
        "facts_right": share,
    }


def _head(label: str, arm: str, item: Item, draw: int) -> dict[str, Any]:
    return {
        "model": label,
        "method": arm,
        "task": item.task,
        "sample": item.id,
        "draw": draw,
        "gold": item.answer,
        **graded_by(item),
    }


def _graded(text: str, item: Item, truncated: bool) -> dict[str, Any]:
    from franken import tasks as puzzles

    grade = puzzles.grade(text, item)
    strategy = puzzles.get(item.task).strategy(text) if puzzles.is_puzzle(item.task) else "none"
    kind = None if grade.score > RIGHT else error_kind(text, item, grade, truncated=truncated)
    return {
        "answer": grade.answer,
        "score": float(grade.score),
        "reason": grade.reason,
        "well_formed": bool(grade.well_formed),
        "strategy": strategy,
        "kind": kind,
    }


def _is_misled(text: str, item: Item, arm: str) -> bool | None:
    if view_of(arm).description != "wrong":
        return None
    found = misled(item)
    return found is not None and grade_exact(text, found[1]).score > RIGHT
