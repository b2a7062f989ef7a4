"""What a grader says: a score and why, the answer as it was read, and by which rule."""

from typing import NamedTuple

ANSWER_TYPES = (
    "integer",
    "number",
    "clock",
    "ratio",
    "word",
    "option",
    "yes_no",
    "expression",
    "box",
)


class Verdict(NamedTuple):
    """Score in [0, 1], why, the answer as it was read (None: the text gives no answer of this
    type), the right one as it was read, and the rule that compared them.
    """

    score: float
    reason: str
    read: str | None
    right: str | None = None
    rule: str = ""


def refuse(reason: str) -> Verdict:
    """No answer of the type, and why."""
    return Verdict(0.0, reason, None)


def decide(is_right: bool, answer: str, right: str, rule: str) -> Verdict:
    """Right or wrong, of an answer that was read."""
    reason = f"{answer!r} is right" if is_right else f"said {answer!r}, right is {right!r}"
    return Verdict(float(is_right), reason, answer, right, rule)
