"""What a swap did to an answer: as the task sees it, and at the token where the two plain answers
part.

Two boxes are the same answer when their IoU passes the row's threshold, two counts when their
numbers agree, two words when they are equal, a yes is a yes; answers of other tasks are compared as
normalised text. The distributions are read where target and source begin to answer differently,
after the words that both share: for a short answer that is its first token, for a chain of thought
the first token that tells the images apart.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor

from franken.generate.native import Response
from franken.tasks import Item
from franken.tasks.grading import NUMBER, extract, normalise
from franken.tasks.vision_functionality import iou

FORBIDDEN = -1e9


@dataclass(frozen=True)
class Swapped:
    """One row of a swap. `kl` (nats, plain ‖ swapped) and `logit_difference` (plain's token −
    source's) where they part.

    Both are None where they were not measured; the difference also where target and source answer
    alike.
    """

    answer: Response
    kl: float | None = None
    logit_difference: float | None = None


def same_answer(a: str, b: str, item: Item) -> bool:
    """Whether two replies give the same answer to `item`, as its task counts it. Replies without an
    answer equal only themselves.
    """
    if item.task == "grounding":
        boxes = _box(a), _box(b)
        threshold = float((item.state or {}).get("iou_threshold", 0.5))
        if boxes[0] and boxes[1]:
            return iou(boxes[0], boxes[1]) > threshold or boxes[0] == boxes[1]
    elif item.task == "counting":
        numbers = _numbers(a), _numbers(b)
        if numbers[0] and numbers[1]:
            return numbers[0][-1] == numbers[1][-1]
    elif item.task == "recognition":
        words = _first_word(a), _first_word(b)
        if {"yes", "no"} >= set(words):
            return words[0] == words[1]
    return _text(a) == _text(b)


def same_text(a: str, b: str) -> bool:
    """Whether two replies say the same answer, word for word after `normalise`."""
    return _text(a) == _text(b)


def parting(a: Sequence[int], b: Sequence[int]) -> int | None:
    """The first place at which two answers differ; None if they do not."""
    for place, (x, y) in enumerate(zip(a, b, strict=False)):
        if x != y:
            return place
    return None if len(a) == len(b) else min(len(a), len(b))


def divergence(
    plain: Float[Tensor, "vocabulary"],
    rows: Float[Tensor, "rows vocabulary"],
    banned: Int[Tensor, "banned"],
) -> Float[Tensor, "rows"]:
    """KL(plain ‖ row) in nats, over the tokens that may be said; in fp64."""
    logp = torch.log_softmax(plain.double().index_fill(-1, banned, FORBIDDEN), -1)
    logq = torch.log_softmax(rows.double().index_fill(-1, banned, FORBIDDEN), -1)
    return (logp.exp() * (logp - logq)).sum(-1).clamp(min=0.0)


def logit_difference(
    logits: Float[Tensor, "vocabulary"], plain: Sequence[int], source: Sequence[int]
) -> float | None:
    """The plain answer's token minus the source's where the two part; None where one has ended."""
    place = parting(plain, source)
    if place is None or place >= min(len(plain), len(source)):
        return None
    return float(logits[plain[place]] - logits[source[place]])


def _text(reply: str) -> str:
    return normalise(extract(reply) or "")


def _numbers(reply: str) -> list[float]:
    return [float(x) for x in NUMBER.findall(extract(reply) or "")]


def _box(reply: str) -> tuple[float, float, float, float] | None:
    numbers = _numbers(reply)
    return (numbers[0], numbers[1], numbers[2], numbers[3]) if len(numbers) == 4 else None


def _first_word(reply: str) -> str:
    return _text(reply).replace(",", " ").split(" ", 1)[0].strip(".!")
