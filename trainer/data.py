"""From conversations to tensors, for any chat template and processor.

A conversation is one image (or none) and a list of turns. The template is asked once per number of
turns what it puts around questions and answers; the answers, with whatever closes an assistant
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
from franken.models.batch import IMAGES, ModelBatch
from franken.models.loading import Loaded


@dataclass(frozen=True)
class Conversation:
    """One image and the turns about it; `weight` scales its share of the loss."""

    image: Image.Image | None
    turns: Sequence[tuple[str, str]]
    weight: float = 1.0


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
    images = [[] if c.image is None else [c.image] for c in conversations]
    if any(images):
        encoded = processor(text=list(prompts), images=images)
    else:
        encoded = tokenizer(list(prompts), add_special_tokens=False)
    rows, labels = [], []
    for prompt, pieces in zip(encoded["input_ids"], answers, strict=True):
        prompt = [int(t) for t in prompt]
        tail, supervised = _tail(tokenizer, pieces)
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
    literals = chat_pieces(template, len(conversation.turns), conversation.image is not None)
    prompt = literals[0] + conversation.turns[0][0] + literals[1][0]
    pieces: list[tuple[str, bool]] = []
    for i, (_, answer) in enumerate(conversation.turns):
        space = literals[1 + 2 * i][1]
        close, rest = literals[2 + 2 * i]
        pieces.append((space + answer + close, True))
        if i + 1 < len(conversation.turns):
            pieces.append((rest + conversation.turns[i + 1][0] + literals[3 + 2 * i][0], False))
    return prompt, pieces


_QUESTION, _ANSWER = "\x02Q{}\x03", "\x02A{}\x03"


@lru_cache(maxsize=256)
def chat_pieces(template: Any, turns: int, with_image: bool) -> tuple[Any, ...]:
    """What the chat template writes around `turns` questions and answers.

    Returns (before question 0, (before answer 0, its space), (end of turn 0, up to question 1),
    (before answer 1, …), …). The end of a turn is the text up to and including the end-of-sequence
    token. A space that the template puts before an answer belongs to the answer's first token,
    since a prompt for generation ends without it.
    """
    tokenizer = getattr(template, "tokenizer", template)
    messages: list[dict[str, Any]] = []
    for i in range(turns):
        content: list[dict[str, str]] = [{"type": "text", "text": _QUESTION.format(i)}]
        if i == 0 and with_image:
            content.insert(0, {"type": "image"})
        messages.append({"role": "user", "content": content})
        messages.append(
            {"role": "assistant", "content": [{"type": "text", "text": _ANSWER.format(i)}]}
        )
    text = template.apply_chat_template(messages, tokenize=False)
    pieces: list[Any] = []
    for i in range(turns):
        for mark in (_QUESTION.format(i), _ANSWER.format(i)):
            before, mark_there, text = text.partition(mark)
            if not mark_there:
                raise FrankenError(
                    "the chat template drops part of a conversation",
                    why="a question or an answer put into it does not come out",
                    fix="use a checkpoint whose template supports several turns",
                )
            pieces.append(before)
    pieces.append(text)
    for at in range(2, len(pieces), 2):
        head, eos, rest = pieces[at].partition(tokenizer.eos_token)
        pieces[at] = (head + eos, rest)
    for at in range(1, len(pieces), 2):
        pieces[at] = (pieces[at].rstrip(" "), " " * (len(pieces[at]) - len(pieces[at].rstrip(" "))))
    return tuple(pieces)


def _tail(tokenizer: Any, pieces: Sequence[tuple[str, bool]]) -> tuple[list[int], list[int]]:
    texts = [text for text, _ in pieces]
    tokens, labels = [], []
    for ids, (_, supervised) in zip(
        tokenizer(texts, add_special_tokens=False)["input_ids"], pieces, strict=True
    ):
        tokens += ids
        labels += ids if supervised else [-100] * len(ids)
    return tokens, labels


def _pad(rows: Sequence[Sequence[int]], width: int, value: int) -> Tensor:
    return torch.tensor([list(row) + [value] * (width - len(row)) for row in rows])
