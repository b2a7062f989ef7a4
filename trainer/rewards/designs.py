"""The six reward designs of arXiv 2601.00215: Σ weight · sentence term of a section, and answer.

    sentence term = tanh(number of distinct sentences) − tanh(number of repeated ones)

The paper does not say what a sentence is. Here: what stands between line breaks, semicolons, and
full stops, question or exclamation marks that end a word; compared in lower case, single-spaced,
without closing punctuation. A repeated one is every copy after the first, counted within its
section. A section that is missing (see `trainer.templates.section`) scores 0. Note that the term
saturates at three sentences: it pays for a few distinct sentences, not for length.
"""

import math
import re
from collections.abc import Mapping, Sequence

from franken.generate.native import Response
from franken.tasks import Grade, Item
from trainer.rewards.outcome import partial_credit
from trainer.rewards.registry import REWARDS, Context
from trainer.templates import DESCRIPTION, section

PAPER = "arXiv 2601.00215"
STAGED = "describe-think-rethink-answer"  # the template of three of the designs
SENTENCE_ENDS = re.compile(r"[\n;]+|(?<=\w)[.!?]+(?=\s|$)")
VANILLA = {"think": 0.10}
MIXTURE = {DESCRIPTION: 0.06, "think": 0.06, "rethink": 0.08}
NO_ACCURACY = {DESCRIPTION: 0.30, "think": 0.30, "rethink": 0.30}


@REWARDS.register("vanilla", template="think-answer", paper=PAPER)
def vanilla(responses: Sequence[Response], items: Sequence[Item], context: Context) -> list[float]:
    """The R1-Zero baseline: 0.10 · sentences(think) + 0.90 · 1[right], in [−0.1, 1]."""
    return [
        section_sum(response.text, VANILLA) + 0.90 * answer_right(response.text, grade)
        for response, grade in zip(responses, context.grades, strict=True)
    ]


@REWARDS.register("only_accuracy", template="answer", paper=PAPER)
def only_accuracy(
    responses: Sequence[Response], items: Sequence[Item], context: Context
) -> list[float]:
    """1[right, in an answer section]. No other tag is wanted; reasoning may stand before it."""
    return [
        answer_right(response.text, grade)
        for response, grade in zip(responses, context.grades, strict=True)
    ]


@REWARDS.register("mixture", template=STAGED, paper=PAPER)
def mixture(responses: Sequence[Response], items: Sequence[Item], context: Context) -> list[float]:
    """The reward spread over stages, in [−0.2, 1]: 0.06 · sentences(image description) + 0.06 ·
    sentences(think) + 0.08 · sentences(rethink) + 0.80 · 1[right].
    """
    return [
        section_sum(response.text, MIXTURE) + 0.80 * answer_right(response.text, grade)
        for response, grade in zip(responses, context.grades, strict=True)
    ]


@REWARDS.register("continuous", template=STAGED, paper=PAPER)
def continuous(
    responses: Sequence[Response], items: Sequence[Item], context: Context
) -> list[float]:
    """`mixture` with partial credit for a near answer (`outcome.partial_credit`), in [−0.2, 1].

    A systematically near answer is paid well: read exact accuracy beside it.
    """
    return [
        section_sum(response.text, MIXTURE) + 0.80 * partial_credit(response.text, item, grade)
        for response, item, grade in zip(responses, items, context.grades, strict=True)
    ]


@REWARDS.register("visual_fusion", template="visual-think-answer", paper=PAPER)
def visual_fusion(
    responses: Sequence[Response], items: Sequence[Item], context: Context
) -> list[float]:
    """Grounding forced into the reasoning, in [−0.2, 1]: 0.10 · sentences(think without visual) +
    0.10 · sentences(visual) + 0.80 · 1[right].

    The paper's formula for `visual` is not public: it is scored like the other sections, where it
    stands inside `think`, and its sentences do not count for `think` again.
    """
    return [
        _grounding(response.text) + 0.80 * answer_right(response.text, grade)
        for response, grade in zip(responses, context.grades, strict=True)
    ]


@REWARDS.register("no_accuracy", template=STAGED, paper=PAPER)
def no_accuracy(
    responses: Sequence[Response], items: Sequence[Item], context: Context
) -> list[float]:
    """Nothing verifiable is paid, in [−0.9, 1]: 0.30 · sentences of image description, think and
    rethink each + 0.10 · 1[an answer section is there].
    """
    return [
        section_sum(response.text, NO_ACCURACY)
        + 0.10 * (section(response.text, "answer") is not None)
        for response in responses
    ]


def answer_right(response: str, grade: Grade) -> float:
    """1 for a right answer that stands in one answer section; the rest of the format does not
    matter to it.
    """
    return float(section(response, "answer") is not None and grade.score == 1.0)


def section_sum(response: str, weights: Mapping[str, float]) -> float:
    """Σ weight · `section_score` over the sections in `weights`."""
    return sum(weight * section_score(response, tag) for tag, weight in weights.items())


def section_score(response: str, tag: str) -> float:
    """`sentence_score` of a section; 0 where it is missing."""
    text = section(response, tag)
    return 0.0 if text is None else sentence_score(text)


def sentence_score(text: str) -> float:
    """tanh(distinct) − tanh(repeated), in (−1, 1)."""
    every = sentences(text)
    distinct = len(set(every))
    return math.tanh(distinct) - math.tanh(len(every) - distinct)


def sentences(text: str) -> list[str]:
    """The sentences of a text, normalised; tags are not part of them."""
    pieces = SENTENCE_ENDS.split(re.sub(r"</?[a-z ]+>", " ", text))
    plain = (" ".join(piece.lower().split()).strip(" .!?,") for piece in pieces)
    return [sentence for sentence in plain if sentence]


def _grounding(response: str) -> float:
    think = section(response, "think")
    if think is None:
        return 0.0
    rest = re.sub(r"<visual>.*?</visual>", " ", think, flags=re.DOTALL)
    return 0.10 * sentence_score(rest) + 0.10 * section_score(think, "visual")
