"""`franken tasks look`: a data set as a model will be asked it, before anything is run on it.

The first rows in full; and over as many rows as are checked, why some fail, of which types the
answers are, and how long questions are.
"""

import re
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from statistics import median

from PIL.Image import Image

from franken.errors import FrankenError
from franken.tasks.layouts import IN_QUESTION, Layout, columns_of
from franken.tasks.puzzle import Item
from franken.tasks.sources import Stream, open_stream, parse, recognised
from franken.tasks.tables import Table

AT_ONCE = 64  # rows whose images are in memory
COLUMNS = ("question", "context", "answer", "options", "images", "id", "task", "type_column")


@dataclass(frozen=True)
class Spread:
    """The least, the middle and the largest of some lengths."""

    least: float
    median: float
    most: float


@dataclass(frozen=True)
class Look:
    """What a data set is taken for. `errors` are reasons with how many of the `checked` rows have
    them, names and numbers left out; `example` is the number of the first such row.
    """

    data: str
    layout: str
    size: int
    checked: int
    columns: dict[str, str]
    settings: dict[str, str]
    errors: dict[str, int]
    example: dict[str, int]
    types: dict[str, int]
    images: dict[int, int]
    notes: dict[str, int]
    lengths: dict[str, Spread]
    items: list[Item] = field(repr=False)


@dataclass
class _Seen:
    """What has been seen so far."""

    errors: Counter[str] = field(default_factory=Counter)
    example: dict[str, int] = field(default_factory=dict)
    types: Counter[str] = field(default_factory=Counter)
    images: Counter[int] = field(default_factory=Counter)
    notes: Counter[str] = field(default_factory=Counter)
    lengths: dict[str, list[float]] = field(default_factory=dict)

    def add(self, number: int, item: Item, tokens: Callable[[Item], int] | None) -> None:
        if item.error:
            reason = short_reason(item.error)
            self.errors[reason] += 1
            self.example.setdefault(reason, number)
            return
        pictures = pictures_of(item)
        self.types[item.answer_type or "of its task"] += 1
        self.images[len(pictures)] += 1
        self.notes.update(_notes(pictures))
        self._measure("characters of a question", len(item.question))
        for picture in pictures:
            self._measure("pixels of an image", picture.width * picture.height)
        if tokens is not None:
            try:
                self._measure("tokens of a prompt", tokens(item))
            except FrankenError as e:
                self.errors[short_reason(e.what)] += 1
                self.example.setdefault(short_reason(e.what), number)

    def _measure(self, what: str, length: float) -> None:
        self.lengths.setdefault(what, []).append(length)


def look(
    spec: str, *, shown: int = 5, checked: int = 1000, tokens: Callable[[Item], int] | None = None
) -> Look:
    """Read the first `checked` rows of a source (`sources.canonical`), and keep the first `shown`.

    `tokens` counts the tokens of a prompt, images included. Raises UsageError where the source is
    not here or its columns are not known.
    """
    stream = open_stream(spec)
    checked = min(checked, stream.size)
    seen, items = _Seen(), []
    for number, item in _rows(stream, max(checked, min(shown, stream.size))):
        if number < shown:
            items.append(item)
        if number < checked:
            seen.add(number, item, tokens)
    columns, settings, name = _taken_for(spec)
    spreads = {
        what: Spread(min(found), median(found), max(found)) for what, found in seen.lengths.items()
    }
    return Look(
        spec,
        name,
        stream.size,
        checked,
        columns,
        settings,
        dict(seen.errors.most_common()),
        seen.example,
        dict(seen.types.most_common()),
        dict(sorted(seen.images.items())),
        dict(seen.notes),
        spreads,
        items,
    )


def pictures_of(item: Item) -> list[Image]:
    """All images of an item in their order."""
    return [] if item.image is None else [item.image, *item.more_images]


def short_reason(error: str) -> str:
    """An error without the names and numbers of its row, so that rows can be counted by it."""
    text = re.sub(r"'[^']{0,200}'|\"[^\"]{0,200}\"", "…", error)
    text = re.sub(
        r"^.{1,220}?(?= cannot be read| lies outside| is an address| is a path)", "an image", text
    )
    return re.sub(r"\d[\d.,]*", "…", text)[:160]


def _rows(stream: Stream, count: int) -> Iterable[tuple[int, Item]]:
    for first in range(0, count, AT_ONCE):
        rows = range(first, min(first + AT_ONCE, count))
        yield from zip(rows, stream.pick(rows), strict=True)


def _notes(pictures: list[Image]) -> list[str]:
    return [f"{frames} frames shown" for p in pictures if (frames := p.info.get("frames"))]


def _taken_for(spec: str) -> tuple[dict[str, str], dict[str, str], str]:
    """The columns of a table by what they hold, how they are read, and the benchmark; empty where
    the source is no table.
    """
    source = parse(spec)
    try:
        table, layout, name = recognised(source)
    except FrankenError:
        return {}, {}, "image pairs or AlgoPuzzleVQA"
    found = {what: _found(layout, table, what) for what in COLUMNS}
    settings = {"reads": layout.reads, "answer type": layout.answer_type or "inferred"}
    return {what: names for what, names in found.items() if names}, settings, name


def _found(layout: Layout, table: Table, what: str) -> str:
    names = getattr(layout, what)
    if names == IN_QUESTION:
        return "in the question"
    have = set(table.columns)
    asked = [c for c in columns_of(names) if c in have]
    nested = [n for n in re.split(r"[|+]", names) if "." in n and n.partition(".")[0] in have]
    return ", ".join(dict.fromkeys([*nested, *(c for c in asked if c not in _roots(nested))]))


def _roots(names: list[str]) -> set[str]:
    return {name.partition(".")[0] for name in names}
