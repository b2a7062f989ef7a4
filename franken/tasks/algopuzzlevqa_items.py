"""AlgoPuzzleVQA's rows as questions for a model: open-ended, the description from the initial state alone.

Nothing is left out: a row whose image file is missing or broken keeps its question, answer and description, and carries the
error for the arms that show the image; a row that cannot be read carries its error and no question. The options of the
benchmark are not shown (the answers are judged open-ended).
"""

import importlib
import json
from pathlib import Path
from typing import Any

from PIL import Image

from franken.errors import FrankenError
from franken.tasks.algopuzzlevqa import INITIAL, Row, files, load
from franken.tasks.algopuzzlevqa_rows import READERS
from franken.tasks.puzzle import Item


def is_folder(folder: Path) -> bool:
    """Whether a folder holds the benchmark: at least one `<type>.json`."""
    return any((folder / f"{name}.json").is_file() for name in INITIAL)


def load_items(folder: Path) -> list[Item]:
    """All rows of a folder, type by type, as items; the task of an item is its puzzle type."""
    return [_item(row, folder) for path in files(folder).values() for row in load(path)]


def _item(row: Row, folder: Path) -> Item:
    if row.error:
        return Item(row.id, row.type, "", row.answer, error=row.error)
    image, error = _image(row.image, folder)
    state, query = _read(row)
    return Item(
        row.id, row.type, row.question, row.answer, image, _describe(row, state), state=state, query=query, error=error
    )


def _image(path: Path | None, folder: Path) -> tuple[Image.Image | None, str | None]:
    if path is None:
        return None, "the row names no image"
    if not path.resolve().is_relative_to(folder.resolve()):
        return None, f"{path.name} lies outside the data folder"
    try:
        with Image.open(path) as opened:
            return opened.convert("RGB"), None
    except (OSError, SyntaxError, ValueError) as e:  # PIL raises SyntaxError on broken chunks
        return None, f"{path.name} is missing" if isinstance(e, FileNotFoundError) else f"{path.name}: {e}"


def _read(row: Row) -> tuple[Any, Any]:
    """State and question for the solvers; (None, None) where they cannot be read, which the question itself survives."""
    try:
        return READERS[row.type][1](row.question, row.solution)
    except (FrankenError, ValueError, KeyError, TypeError, IndexError, AttributeError, StopIteration):
        return None, None


def _describe(row: Row, state: Any) -> str:
    """The puzzle's own description where it has one, else the initial state as it is published, field by field."""
    describe = getattr(importlib.import_module(f"franken.tasks.puzzles.{row.type}"), "describe", None)
    if describe is not None and state is not None:
        try:
            return str(describe(state))
        except ValueError:  # a published map has outlines, and no layout in squares
            pass
    return "; ".join(f"{name.replace('_', ' ')}: {_plain(value)}" for name, value in row.solution.items())


def _plain(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value, separators=(", ", ": "))
