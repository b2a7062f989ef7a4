"""Rewards for the outcome and the form of a response, whatever its reasoning says."""

import math
import re
from collections.abc import Iterator, Sequence
from typing import Annotated, Literal

from pydantic import Field

from franken.generate.native import Response
from franken.tasks import Grade, Item
from franken.tasks.grading import infer_type
from trainer.rewards.registry import REWARDS, Context
from trainer.templates import section, well_formed

CLOCK = re.compile(r"(\d{1,2}):(\d{2})")
NUMBER = re.compile(r"[-+]?\d+(?:\.\d+)?")
BETWEEN = re.compile(r"</think>\s*[^\s<].*<answer>", re.DOTALL)
NEAR = ("number", "integer", "clock")  # answer types that can be nearly right


@REWARDS.register("accuracy", paper="Vision-R1, arXiv 2503.06749")
def accuracy(responses: Sequence[Response], items: Sequence[Item], context: Context) -> list[float]:
    """1[right and well-formed]: the AND of `correct` and `format`."""
    return [
        float(grade.score == 1.0 and well_formed(response.text, context.template))
        for response, grade in zip(responses, context.grades, strict=True)
    ]


@REWARDS.register("correct")
def correct(responses: Sequence[Response], items: Sequence[Item], context: Context) -> list[float]:
    """1[right], whatever the format. A partly right answer (a box, say) is not right."""
    return [float(grade.score == 1.0) for grade in context.grades]


@REWARDS.register("format")
def well_formedness(
    responses: Sequence[Response], items: Sequence[Item], context: Context
) -> list[float]:
    """1[the response has the shape of the template]."""
    return [float(well_formed(response.text, context.template)) for response in responses]


@REWARDS.register("confidence", paper="after ConfClip, arXiv 2509.17730")
def confidence(
    responses: Sequence[Response],
    items: Sequence[Item],
    context: Context,
    *,
    low: Annotated[float, Field(description="the least confidence that counts")] = 0.2,
    high: Annotated[float, Field(description="the most")] = 0.9,
    wrong: Annotated[
        Literal[-1, 0], Field(description="what a wrong answer's confidence is multiplied by")
    ] = -1,
) -> list[float]:
    """±clip(c, low, high), + for a right answer, − for a wrong one, in [−high, high].

    c = exp(mean log-probability of the response) is the model's own confidence. The paper's exact
    formula is not public; this is one reading of its abstract. The log-probabilities are the
    sampler's, so nothing is differentiated through them.
    """
    values = []
    for response, grade in zip(responses, context.grades, strict=True):
        logprobs = response.logprobs
        certainty = math.exp(sum(logprobs) / len(logprobs)) if logprobs else 0.0
        values.append((1 if grade.score == 1.0 else wrong) * min(max(certainty, low), high))
    return values


@REWARDS.register("router", paper="VLAA-Thinker, arXiv 2504.11468")
def router(
    responses: Sequence[Response],
    items: Sequence[Item],
    context: Context,
    *,
    numbers: Annotated[
        Literal["near", "exact"],
        Field(description="near numbers and clocks earn a part, or nothing, as in the paper"),
    ] = "near",
) -> list[float]:
    """By the type of the answer: a box's mean IoU as graded, `partial_credit` of numbers and
    clocks, else 1[right]. In [0, 1].
    """
    values = []
    for response, item, grade in zip(responses, items, context.grades, strict=True):
        kind = item.answer_type or infer_type(item.answer, item.options)
        if kind in NEAR and numbers == "near":
            values.append(partial_credit(response.text, item, grade))
        else:
            values.append(grade.score if kind == "box" else float(grade.score == 1.0))
    return values


@REWARDS.register("exact", template="direct", paper="No-Thinking-RL, arXiv 2503.16188")
def exact(responses: Sequence[Response], items: Sequence[Item], context: Context) -> list[float]:
    """1[the whole reply, without space around it, is the answer]."""
    return [
        float(response.text.strip() == item.answer)
        for response, item in zip(responses, items, strict=True)
    ]


@REWARDS.register("hierarchical", paper="SPARKLE, arXiv 2506.04723")
def hierarchical(
    responses: Sequence[Response], items: Sequence[Item], context: Context
) -> list[float]:
    """−1 for a wrong answer, 1 for a right one, 2 for a right one in the template's shape. The
    released code also pays 0 for an admission not to know, which makes a hedge the best reply where
    the model is unsure; left out.
    """
    return [
        (2.0 if well_formed(response.text, context.template) else 1.0) if right else -1.0
        for response, right in _verdicts(responses, context)
    ]


@REWARDS.register("explained", paper="OpenVLThinker, arXiv 2503.17352")
def explained(
    responses: Sequence[Response], items: Sequence[Item], context: Context
) -> list[float]:
    """1[right], less ½ where nothing but space stands between the reasoning and the answer."""
    return [
        (1.0 if BETWEEN.search(response.text) else 0.5) if right else 0.0
        for response, right in _verdicts(responses, context)
    ]


def _verdicts(responses: Sequence[Response], context: Context) -> Iterator[tuple[Response, bool]]:
    for response, grade in zip(responses, context.grades, strict=True):
        yield response, grade.score == 1.0


@REWARDS.register("repetition", paper="after arXiv 2502.03373")
def repetition(
    responses: Sequence[Response],
    items: Sequence[Item],
    context: Context,
    *,
    n: Annotated[int, Field(ge=1, description="words of an n-gram")] = 3,
) -> list[float]:
    """−(1 − distinct / all) over the n-grams of words, in [−1, 0]; 0 for a response shorter than n
    words. (The paper charges repeated n-grams; this is the share of them.)
    """
    return [-_repeated(response.text.lower().split(), n) for response in responses]


def partial_credit(response: str, item: Item, grade: Grade) -> float:
    """How near the answer is, in [0, 1]; 0 without an answer section.

    clock     ½·hour + ½·minute; hour: 1 − d/5 for a circular distance d ≤ 2, else 0;
              minute: 1 − d/20 for d ≤ 10, else 0
    number    1 / (1 + d) for a distance d ≤ 5, else 0
    other     1[right]
    """
    answer = section(response, "answer")
    if answer is None:
        return 0.0
    if grade.score == 1.0:
        return 1.0
    if right := CLOCK.fullmatch(item.answer):
        given = CLOCK.fullmatch(answer)
        return _clock(given, right) if given else 0.0
    if NUMBER.fullmatch(item.answer) and NUMBER.fullmatch(answer):
        distance = abs(float(answer) - float(item.answer))
        return 1 / (1 + distance) if distance <= 5 else 0.0
    return 0.0


def _clock(given: re.Match[str], right: re.Match[str]) -> float:
    hour = _circular(int(given[1]) - int(right[1]), 12)
    minute = _circular(int(given[2]) - int(right[2]), 60)
    hours = 1 - hour / 5 if hour <= 2 else 0.0
    minutes = 1 - minute / 20 if minute <= 10 else 0.0
    return 0.5 * hours + 0.5 * minutes


def _circular(difference: int, period: int) -> int:
    return min(difference % period, -difference % period)


def _repeated(words: list[str], n: int) -> float:
    grams = [tuple(words[i : i + n]) for i in range(len(words) - n + 1)]
    return 1 - len(set(grams)) / len(grams) if grams else 0.0
