"""From conversations to tensors, for any chat template and processor.

A conversation is what the system says, any number of images and a list of turns; an image stands
where a question marks it (`franken.tasks.marks`), one that nothing marks before the first
question. The template is asked once per form of a conversation what it puts around questions and
answers; the answers, with whatever closes an assistant turn, are what training supervises. Which
tokens those are follows from the pieces that a conversation is written in, never from looking for
words in it: a question may hold what the template writes around an answer. Every piece is tokenised
by itself, as a prompt and a reply are when the model is sampled.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from os.path import commonprefix
from typing import Any, NamedTuple

import torch
from jaxtyping import Float, Int
from PIL import Image
from torch import Tensor

from franken.errors import FrankenError
from franken.generate.reading import read_with
from franken.models.batch import IMAGES, ModelBatch
from franken.models.loading import Loaded
from franken.models.templates import adds_special_tokens, write_chat
from franken.tasks.marks import MARK, pieces


@dataclass(frozen=True)
class Conversation:
    """Images and the turns about them; `weight` scales its share of the loss. What the system says
    stands in its own place where the chat template has one, else before the first question.
    """

    image: Image.Image | None
    turns: Sequence[tuple[str, str]]
    weight: float = 1.0
    more_images: tuple[Image.Image, ...] = ()
    system: str = ""

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
    written = [_spell(processor or tokenizer, c) for c in conversations]
    images = [c.images for c in conversations]
    texts = [_read_whole(spelt) for spelt in written]
    special = adds_special_tokens(processor or tokenizer, texts[0])
    given: dict[str, Any] = {"text": texts, "padding": True, "return_tensors": "pt"}
    if any(images):
        encoded = read_with(processor, images=images, add_special_tokens=special, **given)
    else:
        encoded = read_with(tokenizer, add_special_tokens=special, **given)
    rows, labels = [], []
    read = zip(encoded["input_ids"], encoded["attention_mask"].bool(), strict=True)
    for (ids, real), spelt, shown in zip(read, written, images, strict=True):
        first = ids[real].tolist()
        if len(texts[len(rows)]) > len(spelt[0].text):  # later pieces were read with it
            first = _ids(processor, spelt[0], shown, special=special)
        own, wanted = _tail(loaded, spelt[1:], shown[spelt[0].images :])
        rows.append(first + own)
        labels.append([-100] * len(first) + wanted)
    width = max(len(row) for row in rows)
    padded = {name: encoded[name] for name in IMAGES if name in encoded}
    padded["input_ids"] = _pad(rows, width, tokenizer.pad_token_id)
    padded["attention_mask"] = _pad([[1] * len(row) for row in rows], width, 0)
    inputs = ModelBatch.of(loaded.model, padded, [len(row) for row in images])
    weights = torch.tensor([c.weight for c in conversations], device=device)
    return Batch(inputs, _pad(labels, width, -100).to(device), weights)


class _Piece(NamedTuple):
    """A text that is tokenised by itself, with the images that it marks."""

    text: str
    supervised: bool = False
    images: int = 0


def _read_whole(pieces: Sequence[_Piece]) -> str:
    """What the processor reads at once: up to the last piece with an image, so that it sees the
    row's images together.
    """
    last = max((i for i, piece in enumerate(pieces) if piece.images), default=0)
    return "".join(piece.text for piece in pieces[: last + 1])


def _ids(
    processor: Any, piece: _Piece, images: Sequence[Image.Image], *, special: bool = False
) -> list[int]:
    """A piece's tokens, those of its images expanded; `special`: with those that begin a text."""
    shown = list(images[: piece.images])
    given: dict[str, Any] = {"images": [shown]} if shown else {}
    given |= {"add_special_tokens": special, "return_tensors": "pt"}
    return read_with(processor, text=[piece.text], **given)["input_ids"][0].tolist()


def _tail(
    loaded: Loaded, pieces: Sequence[_Piece], images: Sequence[Image.Image]
) -> tuple[list[int], list[int]]:
    """Tokens and labels of what follows the first prompt."""
    texts = [piece.text for piece in pieces]
    tokens, labels = [], []
    for ids, piece in zip(
        loaded.tokenizer(texts, add_special_tokens=False)["input_ids"], pieces, strict=True
    ):
        if piece.images:
            ids, images = _ids(loaded.processor, piece, images), images[piece.images :]
        tokens += ids
        labels += ids if piece.supervised else [-100] * len(ids)
    return tokens, labels


def _spell(template: Any, conversation: Conversation) -> list[_Piece]:
    """The conversation in pieces: the prompt up to the first answer, an answer, what stands up to
    the next one …
    """
    questions = [question for question, _ in conversation.turns]
    system = conversation.system
    if system and not _has_system(template):
        questions[0], system = f"{system}\n\n{questions[0]}", ""
    total = len(conversation.images)
    counts = [question.count(MARK) if total else 0 for question in questions[1:]]
    parts = [pieces(questions[0], total - sum(counts))]
    parts += [pieces(q, n) for q, n in zip(questions[1:], counts, strict=True)]
    shapes = tuple("".join("i" if part is None else "t" for part in asked) for asked in parts)
    around = chat_pieces(template, shapes, bool(system))
    literals = iter(around.before)
    prompt = next(literals) + system if system else ""
    spelt: list[_Piece] = []
    for i, (asked, (_, answer)) in enumerate(zip(parts, conversation.turns, strict=True)):
        prompt += "".join(next(literals) + part for part in asked if part is not None)
        opening = next(literals)
        prompt += opening.rstrip(" ")
        spelt.append(_Piece(prompt, images=shapes[i].count("i")))
        space = opening[len(opening.rstrip(" ")) :]
        spelt.append(_Piece(space + answer + around.close, supervised=True))
        prompt = ""
    return spelt


class Around(NamedTuple):
    """What a chat template writes `before` every text of a conversation (the system's, those of a
    question, its answer, …), and the `close` of a turn, which the model learns to write.
    """

    before: tuple[str, ...]
    close: str


_MARK = "\x02{}\x03"


@lru_cache(maxsize=256)
def chat_pieces(template: Any, shapes: tuple[str, ...], system: bool = False) -> Around:
    """What the chat template writes around questions and answers. A shape is what a question
    consists of, `i` for an image and `t` for a text.

    A turn closes with the first special token after its answer; where a template has none, with
    what it writes after the last answer and after every other. A space before an answer belongs
    to the answer's first token, since a prompt for generation ends without it.
    """
    tokenizer = getattr(template, "tokenizer", template)
    marks: list[str] = []
    answers: list[int] = []

    def text() -> dict[str, str]:
        marks.append(_MARK.format(len(marks)))
        return {"type": "text", "text": marks[-1]}

    messages: list[dict[str, Any]] = []
    if system:
        messages.append({"role": "system", "content": [text()]})
    for shape in shapes:
        content = [{"type": "image"} if kind == "i" else text() for kind in shape]
        messages.append({"role": "user", "content": content})
        answers.append(len(marks))
        messages.append({"role": "assistant", "content": [text()]})
    rest = write_chat(template, messages, for_answer=False)
    around: list[str] = []
    for mark in marks:
        before, mark_there, rest = rest.partition(mark)
        if not mark_there:
            raise FrankenError(
                "the chat template drops part of a conversation",
                why="a question or an answer put into it does not come out",
                fix="use a checkpoint whose template supports several turns",
            )
        around.append(before)
    after = [around[at + 1] for at in answers[:-1]]
    close = _closing(tokenizer, rest, after)
    for at in answers[:-1]:
        around[at + 1] = around[at + 1].removeprefix(close)
    return Around(tuple(around), close)


def _closing(tokenizer: Any, last: str, others: Sequence[str]) -> str:
    """What closes an assistant turn, of what a template writes after the last and the others."""
    shared = commonprefix([last, *others])
    ends = [shared.find(token) + len(token) for token in _special(tokenizer) if token in shared]
    return shared[: min(ends)] if ends else shared.rstrip()


@lru_cache(maxsize=16)
def _special(tokenizer: Any) -> tuple[str, ...]:
    added = getattr(tokenizer, "added_tokens_decoder", {}).values()
    named = [token.content for token in added if token.special]
    return tuple(dict.fromkeys([*tokenizer.all_special_tokens, *named]))


@lru_cache(maxsize=64)
def _has_system(template: Any) -> bool:
    """Whether a chat template writes a system message; some drop it, and some refuse it."""
    try:
        chat_pieces(template, ("t",), True)
    except FrankenError:
        return False
    return True


def _pad(rows: Sequence[Sequence[int]], width: int, value: int) -> Tensor:
    return torch.tensor([list(row) + [value] * (width - len(row)) for row in rows])
