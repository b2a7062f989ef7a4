"""What the six designs of arXiv 2601.00215 add up: Σ weight · score over sections; the answer's
score is 0 or 1.
"""

from collections.abc import Mapping

from franken.tasks import Grade
from trainer.rewards.sentences import section_score
from trainer.templates import section


def answer_right(reply: str, grade: Grade) -> float:
    """1 for a right answer that stands in one answer section; the rest of the format does not
    matter to it.
    """
    return float(section(reply, "answer") is not None and grade.score == 1.0)


def section_sum(reply: str, weights: Mapping[str, float]) -> float:
    """Σ weight · `section_score` over the sections in `weights`."""
    return sum(weight * section_score(reply, tag) for tag, weight in weights.items())
