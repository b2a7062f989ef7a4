"""AlgoPuzzleVQA's rows as questions for a model: open-ended or with the published options, the
description from the initial state alone.

Nothing is left out: a row whose image file is missing or broken keeps its question, answer and
description, and carries the error for the arms that show the image; a row that cannot be read
carries its error and no question, and so does, where options are asked for, a row whose answer is
not one of its options.
"""

import importlib
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

from PIL import Image

from franken.errors import FrankenError
from franken.tasks.algopuzzlevqa import INITIAL, Row, files, load, same
from franken.tasks.algopuzzlevqa_rows import READERS
from franken.tasks.images import open_image
from franken.tasks.puzzle import Item
from franken.tasks.puzzles import clock
from franken.tasks.puzzles.suite import lettered, with_options

ANSWER_TYPES = {"clock": clock.ANSWER_TYPE}  # of the others the answer itself tells it


def is_folder(folder: Path) -> bool:
    """Whether a folder holds the benchmark: at least one `<type>.json`."""
    return any((folder / f"{name}.json").is_file() for name in INITIAL)


def load_items(folder: Path, *, choice: bool = False) -> list[Item]:
    """All rows of a folder, type by type, as items; the task of an item is its puzzle type.

    With `choice` the published options stand behind the question, the answer is the letter of the
    right one, and the task ends in `+choice`.
    """
    return [_item(row, folder, choice) for path in files(folder).values() for row in load(path)]


def _item(row: Row, folder: Path, choice: bool) -> Item:
    task = f"{row.type}+choice" if choice else row.type
    if row.error:
        return Item(row.id, task, "", row.answer, error=row.error)
    image, error = _image(row.image, folder)
    state, query = _read(row)
    item = Item(
        row.id,
        task,
        row.question,
        row.answer,
        image,
        _describe(row, state),
        state=state,
        query=query,
        error=error,
        answer_type=ANSWER_TYPES.get(row.type, ""),
    )
    return _as_choice(item, row.options) if choice else item


def _as_choice(item: Item, options: tuple[str, ...]) -> Item:
    right = [letter for letter, option in lettered(options).items() if same(option, item.answer)]
    if len(right) != 1:
        reason = f"{len(right)} of the {len(options)} options are the answer {item.answer!r}"
        return Item(item.id, item.task, "", item.answer, error=reason)
    return replace(
        item,
        question=with_options(item.question, options),
        answer=right[0],
        options=options,
        answer_type="",
    )


def _image(path: Path | None, folder: Path) -> tuple[Image.Image | None, str | None]:
    return (None, "the row names no image") if path is None else open_image(path, folder)


def _read(row: Row) -> tuple[Any, Any]:
    """State and question for the solvers; (None, None) where they cannot be read, which the
    question itself survives.
    """
    try:
        return READERS[row.type][1](row.question, row.solution)
    except (
        FrankenError,
        ValueError,
        KeyError,
        TypeError,
        IndexError,
        AttributeError,
        StopIteration,
    ):
        return None, None


def _describe(row: Row, state: Any) -> str:
    """The puzzle's own description where it has one, else the initial state as it is published,
    field by field.
    """
    describe = getattr(
        importlib.import_module(f"franken.tasks.puzzles.{row.type}"), "describe", None
    )
    if describe is not None and state is not None:
        try:
            return str(describe(state))
        except ValueError:  # a published map has outlines, and no layout in squares
            pass
    return "; ".join(
        f"{name.replace('_', ' ')}: {_plain(value)}" for name, value in row.solution.items()
    )


def _plain(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value, separators=(", ", ": "))
