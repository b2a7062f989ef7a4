"""From a row of a table to an item: question as it is put, answer with its type, options, images.

A row that cannot be asked or judged becomes an item with an `error`; none is dropped. Nothing but
text becomes text: a cell that holds something else is its row's error.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from PIL.Image import Image

from franken.errors import FrankenError
from franken.tasks.answers import (
    UNSURE,
    Gold,
    gold_of,
    how_digits_are_meant,
    options_in,
    options_of,
    settled,
)
from franken.tasks.conversations import MARKS_OF_OTHERS, Dialogue, dialogue_of
from franken.tasks.graders.options import LETTERS
from franken.tasks.images import Bounds, open_image
from franken.tasks.layouts import IN_QUESTION, Layout, columns_of
from franken.tasks.marks import placed, without_leading
from franken.tasks.puzzle import Item
from franken.tasks.tables import BadRow, Row, Table
from franken.tasks.values import first, from_json, text_of

OPEN_TYPES = ("", "word", "integer", "number", "expression")
NAME = 500  # characters of an id or a task
LOOKED_AT = 1000  # rows that say how a table writes its answers


@dataclass(frozen=True)
class _Asked:
    """What a row asks, before its images are known: the question and its options, and whether the
    question lists them already.
    """

    question: str
    options: tuple[str, ...]
    listed: bool
    gold: Gold
    answer: str
    kind: str


def item_of(row: Row, layout: Layout, name: str, number: int, folder: Path | None) -> Item:
    """One row as an item; what is wrong with it is its `error`. `folder` is where the paths of its
    images start.

    A row without a right answer cannot be asked in any arm: its question is empty too.
    """
    item_id = f"{name}-{id_of(row, layout) or number}"
    try:
        task = task_of(row, layout, name)
    except FrankenError as e:
        return Item(item_id, name, "", "", error=e.what)
    try:
        if isinstance(row, BadRow):
            raise FrankenError(row.why)
        dialogue = dialogue_in(row, layout)
        asked = _asked(row, layout, dialogue)
        described = text_of(
            first(row, layout.description), "the description", layout.max_characters
        )
    except FrankenError as e:
        return Item(item_id, task, "", _shown_answer(row, layout), error=e.what)
    images, trouble = images_of(row, layout, folder, dialogue)
    prompt = ""
    try:
        prompt, order = _prompt(asked, layout, len(images))
        images = [images[place] for place in order]
    except FrankenError as e:
        trouble = trouble or e.what
    seen = [image for image in images if image is not None]
    return Item(
        id=item_id,
        task=task,
        question=prompt,
        answer=asked.answer,
        image=seen[0] if seen else None,
        description=described,
        error=trouble or (None if prompt else "the row has no question"),
        options=asked.options if asked.kind == "option" else (),
        answer_type=asked.kind,
        tolerance=layout.tolerance,
        more_images=tuple(seen[1:]),
        accepted=asked.gold.others,
    )


def dialogue_in(row: Row, layout: Layout) -> Dialogue | None:
    """The conversation that a row's question is, if it is one. Raises FrankenError."""
    return dialogue_of(first(row, layout.question), layout.max_characters)


def question_of(row: Row, layout: Layout) -> str:
    """What a row asks in its own words, before options and the form of the answer are added; empty
    where it cannot be read.
    """
    try:
        return _question(row, layout, dialogue_in(row, layout))
    except FrankenError:
        return ""


def task_of(row: Row, layout: Layout, name: str) -> str:
    """The task of a row. A name that a built-in task has gets `data-` in front, so that no other
    rule judges its answers. Raises FrankenError.
    """
    from franken.tasks import is_puzzle
    from franken.tasks.vision_functionality import is_public

    task = text_of(first(row, layout.task), "the task", NAME, "") if layout.task else ""
    task = task or name
    return f"data-{task}" if is_puzzle(task) or is_public(task) else task


def id_of(row: Row, layout: Layout) -> str:
    """What a row is called by its id columns; those that hold no text say nothing."""
    found = []
    for part in layout.id.split("+"):
        try:
            found.append(text_of(first(row, part), "the id", NAME, ""))
        except FrankenError:
            continue
    return "-".join(filter(None, found))


def _question(row: Row, layout: Layout, dialogue: Dialogue | None) -> str:
    if dialogue is None:
        text = text_of(first(row, layout.question), "the question", layout.max_characters)
    else:
        text = "\n\n".join(filter(None, (dialogue.system, dialogue.last[0])))
    context = text_of(first(row, layout.context), "the context", layout.max_characters)
    if foreign := next((mark for mark in MARKS_OF_OTHERS if mark in text), None):
        raise FrankenError(f"the question has a {foreign}, and only images can be shown")
    return "\n".join(filter(None, (context, text))) or layout.empty


def _asked(row: Row, layout: Layout, dialogue: Dialogue | None) -> _Asked:
    if dialogue is not None and len(dialogue.turns) > 1:
        raise FrankenError(
            f"a conversation of {len(dialogue.turns)} questions cannot be asked as one"
        )
    question = _question(row, layout, dialogue)
    listed = layout.options == IN_QUESTION
    options = (
        options_in(question) if listed else options_of(_options(row, layout), layout.max_characters)
    )
    value = first(row, layout.answer)
    if value is None and dialogue is not None:
        value = dialogue.last[1]
    gold = gold_of(value, layout.reads, options)
    kinds = first(row, layout.type_column) if layout.type_column else None
    kind = layout.types.get(kinds if isinstance(kinds, str) else "", layout.answer_type)
    if options and kind in OPEN_TYPES:
        kind = "option" if not listed or _is_letter(gold.text, options) else kind
    answer, kind = settled(gold, kind, options if kind == "option" else ())
    return _Asked(question, options if kind == "option" else (), listed, gold, answer, kind)


def _shown_answer(row: Row, layout: Layout) -> str:
    """The answer of a row that failed, where it can be shown."""
    try:
        value = first(row, layout.answer)
    except FrankenError:
        return ""
    return value[:NAME] if isinstance(value, str) and value.isprintable() else ""


def _options(row: Row, layout: Layout) -> object:
    """The cell of the options; of columns A+B+C, their values in this order."""
    for names in layout.options.split("|"):
        if "+" not in names:
            value = first(row, names)
        else:
            cells = [first(row, name) for name in names.split("+")]
            value = None if all(cell is None for cell in cells) else cells
        if value is not None:
            return value
    return None


def _is_letter(answer: str, options: Sequence[str]) -> bool:
    return (
        bool(re.fullmatch(r"\(?[A-Z]\)?(?:\s*,\s*\(?[A-Z]\)?)*\.?", answer))
        and answer.strip("().")[:1] in LETTERS[: len(options)]
    )


def images_of(
    row: Row, layout: Layout, folder: Path | None, dialogue: Dialogue | None
) -> tuple[list[Image | None], str | None]:
    """A row's images in order, None for one that cannot be read, and what is wrong with the first
    such one.
    """
    bounds = Bounds(layout.max_image_pixels, layout.max_aspect)
    values = list(dialogue.images) if dialogue else []
    if not values:
        for names in layout.images.split("+") if layout.images else []:
            cell = first(row, names)
            if isinstance(cell, str) and cell.lstrip().startswith("["):
                try:
                    cell = from_json(cell)
                except FrankenError:
                    return [None], "the images are a list that cannot be read"
            values += cell if isinstance(cell, list | tuple) else [cell]
    values = [value for value in values if value is not None and value != ""]
    if len(values) > layout.max_images:
        return [], f"{len(values)} images are more than max_images={layout.max_images}"
    opened = [open_image(value, folder, bounds) for value in values]
    return [image for image, _ in opened], next((why for _, why in opened if why), None)


def _prompt(asked: _Asked, layout: Layout, images: int) -> tuple[str, list[int]]:
    """The question as it is put, and the images in the order of their marks. Raises FrankenError
    where they do not match.
    """
    shown = [] if asked.listed else list(asked.options)
    if shown == list(LETTERS[: len(shown)]) or all(
        re.fullmatch(rf"\(?{letter}\)?", text) for letter, text in zip(LETTERS, shown, strict=False)
    ):
        shown = []  # bare letters say nothing that the image does not
    (question, *options), order = placed(
        [asked.question, *shown], images, parts_of_one=layout.parts_of_one
    )
    lines = [question.strip()]
    lines += [f"({letter}) {text.strip()}" for letter, text in zip(LETTERS, options, strict=False)]
    lines += [layout.ask] if layout.ask else []
    is_choice = asked.kind == "option" and lines[0]
    lines += ["Answer with the letter of the right option."] if is_choice else []
    return without_leading("\n".join(lines).strip(), images).strip(), order


def reply_of(row: Row, layout: Layout) -> str:
    """What a row answers, in its own words, as supervised training shows it. Raises
    FrankenError.
    """
    return text_of(first(row, layout.answer), "the answer", layout.max_characters)


def how_options_are_meant(table: Table, layout: Layout) -> Layout:
    """The layout with what the whole table says of answers that are digits beside options: their
    text, or their place counted from 0.
    """
    if layout.reads not in UNSURE or not layout.options or layout.options == IN_QUESTION:
        return layout
    if not set(columns_of(layout.options)) & set(table.columns):
        return layout
    rows = []
    for row in table.pick(
        range(min(table.n, LOOKED_AT)), columns_of(layout.options, layout.answer)
    ):
        try:
            rows.append((first(row, layout.answer), options_of(_options(row, layout), NAME)))
        except FrankenError:
            continue
    return replace(layout, reads=how_digits_are_meant(rows) or layout.reads)
