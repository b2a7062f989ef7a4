"""The rows of an evaluation: one answer, graded and read, or the reason why there is none."""

from __future__ import annotations

from typing import TYPE_CHECKING, TypedDict

from franken import tasks
from franken.evaluate.arms import DESCRIBE, misled, view_of
from franken.evaluate.metrics import RIGHT
from franken.evaluate.reading import compare_facts, error_kind, shape
from franken.tasks.grading import GradedBy, grade_exact, graded_by

if TYPE_CHECKING:
    from franken.tasks import Grade, Item


class Verdict(TypedDict):
    """What a grader says of a reply."""

    answer: str | None
    score: float
    reason: str
    well_formed: bool


class Description(TypedDict):
    """What is said of a description: whether the facts that the question needs are right, and the
    share of all facts that are.
    """

    score: float
    reason: str
    well_formed: bool
    facts_right: float


class AnswerRow(GradedBy):
    """A row of samples.parquet. Everything from `output` on is null where there is no answer.

    `kind` says why a wrong answer is wrong; `misled` whether it is the one that follows from a
    wrong description. Counts are of the reasoning; `tokens` of all.
    """

    model: str
    method: str
    task: str
    sample: str
    draw: int
    gold: str
    output: str | None
    answer: str | None
    score: float | None
    reason: str | None
    well_formed: bool | None
    strategy: str | None
    kind: str | None
    misled: bool | None
    facts_right: float | None
    tokens: int | None
    steps: int | None
    reflections: int | None
    references: int | None
    truncated: bool | None
    error: str | None
    ineligible: str | None


def missing_row(
    label: str,
    arm: str,
    item: Item,
    draw: int,
    *,
    error: str | None = None,
    ineligible: str | None = None,
) -> AnswerRow:
    """The row of an answer that could not be asked for."""
    return {
        "model": label,
        "method": arm,
        "task": item.task,
        "sample": item.id,
        "draw": draw,
        "gold": item.answer,
        **graded_by(item),
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
        "error": error,
        "ineligible": ineligible,
    }


def answer_row(
    label: str, arm: str, item: Item, draw: int, text: str, *, tokens: int | None, truncated: bool
) -> AnswerRow:
    """The row of an answer, graded. In `describe` the score is whether the facts that the question
    needs are right.
    """
    row = missing_row(label, arm, item, draw)
    row["output"], row["tokens"], row["truncated"] = text, tokens, truncated
    if arm == DESCRIBE:
        described = description_columns(text, item)
        return {**row, **described, "strategy": DESCRIBE, "gold": item.description}
    grade = tasks.grade(text, item)
    strategy = tasks.get(item.task).strategy(text) if tasks.is_puzzle(item.task) else "none"
    kind = None if grade.score > RIGHT else error_kind(text, item, grade, truncated=truncated)
    row["strategy"], row["kind"], row["misled"] = strategy, kind, _is_misled(text, item, arm)
    return {**row, **verdict(grade), **shape(text, item)}


def verdict(grade: Grade) -> Verdict:
    """The columns of a grade."""
    return {
        "answer": grade.answer,
        "score": float(grade.score),
        "reason": grade.reason,
        "well_formed": bool(grade.well_formed),
    }


def description_columns(text: str, item: Item) -> Description:
    """The verdict on a description, by the facts that the question needs."""
    share, wrong, whole = compare_facts(text, item)
    fine = "the facts that the question needs are right"
    return {
        "score": float(not wrong),
        "reason": f"wrong: {', '.join(wrong)}" if wrong else fine,
        "well_formed": whole,
        "facts_right": share,
    }


def _is_misled(text: str, item: Item, arm: str) -> bool | None:
    if view_of(arm).description != "wrong":
        return None
    wrong = misled(item)
    return wrong is not None and grade_exact(text, wrong[1]).score > RIGHT
