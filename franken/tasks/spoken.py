"""Rows as supervised training shows them: what was asked and what was replied, turn by turn."""

from dataclasses import dataclass, field
from pathlib import Path

from PIL.Image import Image

from franken.errors import FrankenError
from franken.tasks.benchmarks import dialogue_in, images_of, item_of, question_of, reply_of
from franken.tasks.conversations import MARKS_OF_OTHERS
from franken.tasks.layouts import Layout
from franken.tasks.marks import MARK, placed, without_leading
from franken.tasks.puzzle import Item
from franken.tasks.tables import BadRow, Row


@dataclass(frozen=True)
class Spoken:
    """Turns of (question, reply) about images, which the questions mark, after what the system
    says; or an error.
    """

    turns: tuple[tuple[str, str], ...]
    images: tuple[Image, ...] = field(repr=False, default=())
    error: str | None = None
    system: str = ""


def spoken_of(row: Row, layout: Layout, name: str, number: int, folder: Path | None) -> Spoken:
    """A row's conversation in its own words; of a row with a question and an answer, the question
    as it is asked elsewhere and the answer as it stands.
    """
    try:
        if isinstance(row, BadRow):
            raise FrankenError(row.why)
        dialogue = dialogue_in(row, layout)
        turns = list(dialogue.turns) if dialogue else [(question_of(row, layout), "")]
        if not turns[-1][1]:
            turns[-1] = (turns[-1][0], reply_of(row, layout))
        item = item_of(row, layout, name, number, folder) if dialogue is None else None
        if item is not None and item.error is None:
            return Spoken(((item.question, turns[0][1]),), _pictures(item))
        images, trouble = images_of(row, layout, folder, dialogue)
        asked = [question for question, _ in turns]
        asked, order = placed(asked, len(images), parts_of_one=layout.parts_of_one)
        later = sum(question.count(MARK) for question in asked[1:])
        asked[0] = without_leading(asked[0], len(images) - later).strip()
        turns = [(question, reply) for question, (_, reply) in zip(asked, turns, strict=True)]
        problem = trouble or _problem(turns)
    except FrankenError as e:
        return Spoken((), error=e.what)
    if problem is not None:
        return Spoken((), error=problem)
    shown = tuple(image for i in order if (image := images[i]) is not None)
    return Spoken(tuple(turns), shown, system=dialogue.system if dialogue else "")


def spoken(item: Item) -> Spoken:
    """An item as one question with its right answer."""
    if item.error or not item.question:
        return Spoken((), error=item.error or "the row has no question")
    return Spoken(((item.question, item.answer),), _pictures(item))


def _pictures(item: Item) -> tuple[Image, ...]:
    return () if item.image is None else (item.image, *item.more_images)


def _problem(turns: list[tuple[str, str]]) -> str | None:
    if not all(question for question, _ in turns):
        return "the row has no question"
    for foreign in MARKS_OF_OTHERS:
        if any(foreign in question for question, _ in turns):
            return f"the question has a {foreign}, and only images can be shown"
    return None if all(reply for _, reply in turns) else "the row has no answer"
