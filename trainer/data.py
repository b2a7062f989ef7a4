"""From conversations to tensors, for any chat template and processor.

A conversation is any number of images and a list of turns; the images stand in the first question
where it marks them (`franken.tasks.marks`), else before it. The template is asked once per number
of turns what it puts around questions and answers; the answers, with whatever closes an assistant
turn, are what training supervises.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any

import torch
from jaxtyping import Float, Int
from PIL import Image
from torch import Tensor

from franken.errors import FrankenError
from franken.generate.reading import read_with
from franken.models.batch import IMAGES, ModelBatch
from franken.models.loading import Loaded
from franken.models.templates import write_chat
from franken.tasks.marks import pieces


@dataclass(frozen=True)
class Conversation:
    """Images and the turns about them; `weight` scales its share of the loss."""

    image: Image.Image | None
    turns: Sequence[tuple[str, str]]
    weight: float = 1.0
    more_images: tuple[Image.Image, ...] = ()

    @property
    def images(self) -> list[Image.Image]:
        """All images, in the order of their marks."""
        return [] if self.image is None else [self.image, *self.more_images]


@dataclass(frozen=True)
class Batch:
    """Padded conversations. `inputs` are the model's; `labels` are -100 wherever nothing is
    supervised.
    """

    inputs: ModelBatch = field(repr=False)
    labels: Int[Tensor, "batch tokens"]
    weights: Float[Tensor, "batch"]


def encode(loaded: Loaded, conversations: Sequence[Conversation]) -> Batch:
    """Tokenise, expand the image tokens and pad on the right. Tensors are put on the model's
    device.
    """
    processor, tokenizer, device = loaded.processor, loaded.tokenizer, loaded.device
    prompts, answers = zip(*(_spell(processor or tokenizer, c) for c in conversations), strict=True)
    images = [c.images for c in conversations]
    if any(images):
        encoded = read_with(processor, text=list(prompts), images=images)
    else:
        encoded = read_with(tokenizer, text=list(prompts), add_special_tokens=False)
    rows, labels = [], []
    for prompt, spelt in zip(encoded["input_ids"], answers, strict=True):
        prompt = [int(t) for t in prompt]
        tail, supervised = _tail(tokenizer, spelt)
        rows.append(prompt + tail)
        labels.append([-100] * len(prompt) + supervised)
    width = max(len(row) for row in rows)
    given = {name: torch.as_tensor(encoded[name]) for name in IMAGES if name in encoded}
    given["input_ids"] = _pad(rows, width, tokenizer.pad_token_id)
    given["attention_mask"] = _pad([[1] * len(row) for row in rows], width, 0)
    inputs = ModelBatch.of(loaded.model, given, [len(row) for row in images])
    weights = torch.tensor([c.weight for c in conversations], device=device)
    return Batch(inputs, _pad(labels, width, -100).to(device), weights)


def _spell(template: Any, conversation: Conversation) -> tuple[str, list[tuple[str, bool]]]:
    """The prompt up to the first answer, and what follows: (text, whether it is supervised)."""
    parts = pieces(conversation.turns[0][0], len(conversation.images))
    shape = "".join("i" if part is None else "t" for part in parts)
    literals = chat_pieces(template, len(conversation.turns), shape)
    texts = [part for part in parts if part is not None]
    prompt = "".join(a + b for a, b in zip(literals[0], texts, strict=True)) + literals[1][0]
    spelt: list[tuple[str, bool]] = []
    for i, (_, answer) in enumerate(conversation.turns):
        space = literals[1 + 2 * i][1]
        close, rest = literals[2 + 2 * i]
        spelt.append((space + answer + close, True))
        if i + 1 < len(conversation.turns):
            spelt.append((rest + conversation.turns[i + 1][0] + literals[3 + 2 * i][0], False))
    return prompt, spelt


_QUESTION, _ANSWER = "\x02Q{}\x03", "\x02A{}\x03"


@lru_cache(maxsize=256)
def chat_pieces(template: Any, turns: int, shape: str) -> tuple[Any, ...]:
    """What the chat template writes around `turns` questions and answers. `shape` is what the first
    question consists of, `i` for an image and `t` for a text.

    Returns (before each text of question 0, (before answer 0, its space), (end of turn 0, up to
    question 1), (before answer 1, …), …). The end of a turn is the text up to and including the
    end-of-sequence token. A space that the template puts before an answer belongs to the answer's
    first token, since a prompt for generation ends without it.
    """
    tokenizer = getattr(template, "tokenizer", template)
    messages: list[dict[str, Any]] = []
    for i in range(turns):
        content: list[dict[str, str]] = [
            {"type": "image"}
            if kind == "i"
            else {"type": "text", "text": _QUESTION.format(f"{i}.{place}")}
            for place, kind in enumerate(shape if i == 0 else "t")
        ]
        messages.append({"role": "user", "content": content})
        messages.append(
            {"role": "assistant", "content": [{"type": "text", "text": _ANSWER.format(i)}]}
        )
    text = write_chat(template, messages, for_answer=False)
    texts = [place for place, kind in enumerate(shape) if kind == "t"]
    marks = [_QUESTION.format(f"0.{place}") for place in texts]
    for i in range(turns):
        marks += [_QUESTION.format(f"{i}.0")] * (i > 0) + [_ANSWER.format(i)]
    around: list[Any] = []
    for mark in marks:
        before, mark_there, text = text.partition(mark)
        if not mark_there:
            raise FrankenError(
                "the chat template drops part of a conversation",
                why="a question or an answer put into it does not come out",
                fix="use a checkpoint whose template supports several turns",
            )
        around.append(before)
    around[: len(texts)] = [tuple(around[: len(texts)])]
    around.append(text)
    for at in range(2, len(around), 2):
        head, eos, rest = around[at].partition(tokenizer.eos_token)
        around[at] = (head + eos, rest)
    for at in range(1, len(around), 2):
        around[at] = (around[at].rstrip(" "), " " * (len(around[at]) - len(around[at].rstrip(" "))))
    return tuple(around)


def _tail(tokenizer: Any, spelt: Sequence[tuple[str, bool]]) -> tuple[list[int], list[int]]:
    texts = [text for text, _ in spelt]
    tokens, labels = [], []
    for ids, (_, supervised) in zip(
        tokenizer(texts, add_special_tokens=False)["input_ids"], spelt, strict=True
    ):
        tokens += ids
        labels += ids if supervised else [-100] * len(ids)
    return tokens, labels


def _pad(rows: Sequence[Sequence[int]], width: int, value: int) -> Tensor:
    return torch.tensor([list(row) + [value] * (width - len(row)) for row in rows])
