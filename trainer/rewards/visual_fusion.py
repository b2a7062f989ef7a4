"""`visual_fusion` (arXiv 2601.00215): grounding forced into the reasoning,
0.10 · sentences(think without visual) + 0.10 · sentences(visual) + 0.80 · 1[right].

The paper's formula for `visual` is not public: it is scored like the other sections, where it
stands inside `think`, and its sentences do not count for `think` again.
"""

import re
from collections.abc import Sequence

from franken.generate.native import Response
from franken.tasks import Item
from trainer.rewards.context import Context
from trainer.rewards.sentences import section_score, sentence_score
from trainer.rewards.tagged import answer_right
from trainer.templates import section

THINK, VISUAL, ANSWER = 0.10, 0.10, 0.80


def visual_fusion(
    replies: Sequence[Response], rows: Sequence[Item], context: Context
) -> list[float]:
    """In [−0.2, 1]."""
    return [
        _grounding(reply.text) + ANSWER * answer_right(reply.text, grade)
        for reply, grade in zip(replies, context.grades, strict=True)
    ]


def _grounding(reply: str) -> float:
    think = section(reply, "think")
    if think is None:
        return 0.0
    rest = re.sub(r"<visual>.*?</visual>", " ", think, flags=re.DOTALL)
    return THINK * sentence_score(rest) + VISUAL * section_score(think, "visual")
