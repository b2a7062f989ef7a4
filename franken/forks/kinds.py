"""What kind of sentence every token of a reply stands in.

    format       tags and end tokens
    opening      the first word of the reasoning: the way that was chosen
    observation  what says what the picture shows
    inference    the rest of the reasoning
    answer       what stands behind the reasoning, or inside an answer's tags or box

Of a puzzle the observations are known from its own worked solutions (`Puzzle.observations`): the
statements that its solver takes from the picture. Elsewhere a sentence that refers to the image is
one (the words of `franken.evaluate.reading`), which is a rough rule, the same for every model.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from itertools import accumulate
from typing import TYPE_CHECKING

from franken.evaluate.hints import puzzle_of
from franken.evaluate.reading import REFERS, STEP_ENDS

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

    from franken.tasks import Item
    from franken.tasks.puzzle import Span

FORMAT, OPENING, OBSERVATION, INFERENCE, ANSWER = KINDS = (
    "format",
    "opening",
    "observation",
    "inference",
    "answer",
)
TAG = re.compile(r"</?\w[\w ]*>|<\|\w+\|>|</s>")
ANSWERS = re.compile(r"<answer>|\\boxed\s*\{|</(?:think|thinking|reasoning)>")
BEGINS = re.compile(r"<(?:think|thinking|reasoning)>")
CONTEXT = 4  # tokens before one that are decoded with it, so that it keeps its space


def pieces(tokenizer: PreTrainedTokenizerBase, ids: Sequence[int]) -> list[str]:
    """The text that each token adds to a reply."""
    texts = []
    for place in range(len(ids)):
        before = list(ids[max(0, place - CONTEXT) : place])
        shorter, longer = (
            str(tokenizer.decode(part, skip_special_tokens=False))
            for part in (before, [*before, ids[place]])
        )
        texts.append(longer[len(shorter) :] if longer.startswith(shorter) else longer)
    return texts


def kinds_of(item: Item, texts: Sequence[str]) -> list[str]:
    """The kind of every token, from the texts that make up the reply."""
    reply = "".join(texts)
    begins = BEGINS.search(reply)
    start = begins.end() if begins else 0
    ends = ANSWERS.search(reply, start)
    stop = ends.start() if ends else len(reply)
    observed = _observed(item, reply[start:stop])
    first = re.search(r"\S+", reply[start:stop])
    kinds, at = [], 0
    for text, end in zip(texts, accumulate(map(len, texts)), strict=True):
        blank = len(text) - len(text.lstrip()) if text.strip() else 0
        place = at + blank - start  # of its first letter, in the reasoning
        if TAG.fullmatch(text.strip()) or not text:
            kinds.append(FORMAT)
        elif at + blank >= stop:
            kinds.append(ANSWER)
        elif first and first.start() <= place < first.end():
            kinds.append(OPENING)
        elif any(low <= place < high for low, high in observed):
            kinds.append(OBSERVATION)
        else:
            kinds.append(INFERENCE)
        at = end
    return kinds


def _observed(item: Item, thought: str) -> list[Span]:
    """The spans of a chain of thought that say what the picture shows."""
    known = getattr(puzzle_of(item), "observations", None)
    if known is not None:
        return known(thought)
    spans, at = [], 0
    for end in [*STEP_ENDS.finditer(thought), None]:
        stop = end.start() if end else len(thought)
        if REFERS.search(thought, at, stop):
            spans.append((at, stop))
        at = end.end() if end else stop
    return spans
