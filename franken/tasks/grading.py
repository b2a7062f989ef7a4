"""The door to grading: from a reply and an item to a verdict that says why.

What an answer may look like is decided by its type (`Item.answer_type`; inferred where the row has
none). How it is read and compared is in `franken.tasks.graders`.
"""

import json
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TypedDict

from franken.tasks.graders.compare import compare, infer_type
from franken.tasks.graders.latex import is_mathematics, to_latex
from franken.tasks.graders.numbers import NUMBER, as_numeral
from franken.tasks.graders.reply import (
    CONCLUDES,
    LONGEST,
    Ambiguous,
    Place,
    extract,
    is_well_formed,
    places,
    reasoning,
    unfinished,
)
from franken.tasks.graders.spelling import normalise, plain
from franken.tasks.graders.verdict import ANSWER_TYPES, Verdict, refuse
from franken.tasks.puzzle import Grade, Item

__all__ = [
    "ANSWER_TYPES",
    "LONGEST",
    "NUMBER",
    "Judgement",
    "extract",
    "grade_exact",
    "grade_item",
    "grade_typed",
    "graded_by",
    "infer_type",
    "is_well_formed",
    "judge_reply",
    "normalise",
    "reasoning",
]

BARE = 4  # words that a first line may have that is nothing but an answer
LETTER = re.compile(r"[\s*(\[]*[A-Za-z][)\].:*]")
Compare = Callable[[str], Verdict]


@dataclass(frozen=True)
class Judgement:
    """How a reply was judged: the type, where in the reply its answer stands and what it says
    there, what was read of it and of the right answer, the rule that compared them, the score in
    [0, 1] and why.
    """

    answer_type: str
    score: float
    reason: str
    where: str | None
    extracted: str | None
    read: str | None
    right: str | None
    rule: str
    well_formed: bool

    @property
    def grade(self) -> Grade:
        """The part of it that rows store."""
        answer = self.extracted if self.read is None else self.read
        return Grade(self.score, self.reason, answer, self.well_formed)


class GradedBy(TypedDict):
    """The columns that a stored answer needs to be judged again; see `graded_by`."""

    question: str
    answer_type: str
    options: str | None
    tolerance: float
    accepted: str | None


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
    longest: int = LONGEST,
) -> Grade:
    """Judge a reply by the type of its answer, inferred from the gold answer and the options when
    it is empty.

    Reasoning that was opened and never closed has no answer. Of a reply, what stands behind its
    reasoning is read, and of that the last `longest` characters. Raises ValueError when the gold
    answer is not of its type.
    """
    return judge_reply(
        reply,
        gold,
        answer_type,
        options,
        tolerance=tolerance,
        iou_threshold=iou_threshold,
        longest=longest,
    ).grade


def judge_reply(
    reply: str,
    gold: str,
    answer_type: str = "",
    options: Sequence[str] = (),
    *,
    tolerance: float = 0.0,
    iou_threshold: float = 0.5,
    longest: int = LONGEST,
) -> Judgement:
    """`grade_typed` with all that led to its verdict."""
    kind = answer_type or infer_type(gold, options)
    formed = is_well_formed(reply)

    def verdict_of(text: str) -> Verdict:
        return compare(
            text, gold, kind, options=options, tolerance=tolerance, iou_threshold=iou_threshold
        )

    if unfinished(reply):
        return _unanswered(kind, "no answer: the reasoning never ended", formed)
    candidates = places(reply, longest, whole=kind == "box")
    if isinstance(candidates, Ambiguous) or not candidates:
        reason = candidates.reason if isinstance(candidates, Ambiguous) else "no answer"
        return _unanswered(kind, reason, formed)
    place, verdict = _decide(candidates, kind, verdict_of)
    where = f"tag, {place.where}" if place.tagged else place.where
    return Judgement(
        kind,
        verdict.score,
        verdict.reason,
        where,
        place.text,
        verdict.read,
        verdict.right,
        verdict.rule,
        formed,
    )


def _unanswered(kind: str, reason: str, formed: bool) -> Judgement:
    return Judgement(kind, 0.0, reason, None, None, None, None, "", formed)


def _decide(candidates: list[Place], kind: str, compare_text: Compare) -> tuple[Place, Verdict]:
    """The place whose answer counts, and its verdict: a box or JSON, else the last mark that can be
    read, else the lines.
    """
    first = candidates[0]
    if first.where in ("box", "json"):
        verdict = compare_text(first.text)
        later = next((place for place in candidates[1:] if place.where == "mark"), None)
        if later is not None and kind != "word":
            final = compare_text(later.text)
            if final.read is not None and final.read != verdict.read:
                if verdict.read is None or later.final:
                    return later, final
                reason = f"the box says {verdict.read!r}, and behind it stands {final.read!r}"
                return first, refuse(reason)
        return first, verdict
    marks = [place for place in candidates if place.where == "mark"]
    for place in marks:
        verdict = compare_text(place.text)
        if verdict.read is not None or kind == "word":
            return place, verdict
    lines = [place for place in candidates if place.where != "mark"]
    return _decide_lines(lines or marks, kind, compare_text, marked=bool(marks))


def _decide_lines(
    lines: list[Place], kind: str, compare_text: Compare, *, marked: bool
) -> tuple[Place, Verdict]:
    """The last line, unless the first is nothing but an answer and an explanation follows it."""
    last, first = lines[0], lines[-1]
    sentences = len(lines) > 1 and lines[1].where == "last sentence"  # of one line
    if sentences and CONCLUDES.search(lines[1].text):
        ended = compare_text(lines[1].text)
        if ended.read is not None and kind != "word":
            return lines[1], ended
    said = compare_text(last.text)
    if first is last or marked:
        return last, said
    begun = compare_text(first.text)
    if begun.read is None or not _is_bare(first.text, kind):
        return last, said
    if said.read is None or (kind in ("word", "expression") and not _is_bare(last.text, kind)):
        return first, begun
    if said.read == begun.read or sentences:
        return last, said
    if _is_bare(last.text, kind) or CONCLUDES.search(last.text):
        reason = f"the first line says {begun.read!r} and the last one {said.read!r}"
        return last, refuse(reason)
    return first, begun


def _is_bare(line: str, kind: str) -> bool:
    """Whether a line is nothing but an answer of the type."""
    text = plain(line)
    if kind in ("integer", "number"):
        return as_numeral(text) is not None
    if kind == "expression":
        return is_mathematics(to_latex(text))
    if kind == "yes_no":
        return True
    if kind == "option" and LETTER.match(line):
        return True
    return len(text.split()) <= BARE and not text.endswith(":")


def grade_item(reply: str, item: Item) -> Grade:
    """Judge a reply to an item by what its row says of the answer; the best of all that it
    accepts.
    """
    grade = grade_typed(reply, item.answer, item.answer_type, item.options, item.tolerance)
    for other in item.accepted:
        if grade.score == 1:
            break
        tried = grade_typed(reply, other, infer_type(other), tolerance=item.tolerance)
        grade = max(grade, tried, key=lambda judged: judged.score)
    return grade


def graded_by(item: Item) -> GradedBy:
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
        "accepted": json.dumps(item.accepted, ensure_ascii=False) if item.accepted else None,
    }


def _same_number(a: str, b: str) -> bool:
    return bool(NUMBER.fullmatch(a) and NUMBER.fullmatch(b)) and float(a) == float(b)
