"""Where questions come from: the built-in puzzles, image pairs on disk, published benchmarks, any
table with a column map. How they are named: franken/tasks/source_names.py.

Nothing is downloaded unless `fetch` is called.
"""

import hashlib
import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple, TypeVar

from franken.errors import FrankenError, UsageError
from franken.tasks import algopuzzlevqa_items
from franken.tasks.benchmarks import how_options_are_meant, item_of, question_of, task_of
from franken.tasks.hub_tables import open_hub, open_snapshot, snapshot_of
from franken.tasks.layouts import (
    GENERIC,
    IN_QUESTION,
    Layout,
    columns_of,
    layout_of,
    recognise,
)
from franken.tasks.puzzle import Item
from franken.tasks.source_names import CHOICE, Source, canonical, contents, parse
from franken.tasks.spoken import Spoken, spoken, spoken_of
from franken.tasks.tables import Row, SeveralSplits, Table, open_local

__all__ = [
    "Stream",
    "canonical",
    "contents",
    "fetch",
    "is_pairs",
    "load_tasks",
    "open_stream",
    "parse",
    "recognised",
]
T = TypeVar("T")


def fetch(spec: str) -> None:
    """Put a source of the hub into the local cache; a local one is there already."""
    source = parse(spec)
    if source.path is None:
        _open_hub(source, download=True)


def _open_hub(source: Source, *, download: bool = False) -> Table:
    if source.layout and source.layout.files:
        return open_snapshot(source.hub, source.split, download=download)
    try:
        return open_hub(source.hub, source.config, source.split, download=download)
    except SeveralSplits:
        raise
    except FrankenError:  # it may have been fetched as files, which that library does not know
        folder = None if download else snapshot_of(source.hub)
        if folder is None:
            raise
        return open_local(folder, source.split)


def _open_table(source: Source) -> Table:
    if source.path is None:
        return _open_hub(source)
    default = source.layout.split if source.layout else ""
    encoding = source.columns.get("encoding", "")
    try:
        return open_local(source.path, source.split, encoding)
    except UsageError:
        if source.split or not default:
            raise
        return open_local(
            source.path, default, encoding
        )  # of several splits, the one that the benchmark is


def load_tasks(tasks: Sequence[str], samples: int, seed: int, data: str | None) -> list[Item]:
    """The questions of a run, task by task: held-out puzzles, or at most `samples` items of each
    task of `data`.

    Image pairs give their target items in file order, AlgoPuzzleVQA its rows. Of a table, the
    sample is drawn by the hash of (seed, row), so that a larger one contains the smaller one; rows
    keep their order. Raises UsageError when there is nothing to ask.
    """
    from franken import tasks as puzzles

    if data is None:
        return [i for name in tasks for i in puzzles.get(name).items(samples, seed, split="test")]
    source = parse(data)
    if is_table(source):
        chosen = _from_table(source, tasks, samples, seed)
    elif source.path is not None and is_pairs(source.path):
        items = [pair.target for pair in puzzles.load_folder(source.path)]
        chosen = _first(items, tasks, samples)
    else:
        assert source.path is not None
        chosen = _first(
            algopuzzlevqa_items.load_items(source.path, choice=source.choice), tasks, samples
        )
    if not chosen:
        wanted = ", ".join(tasks) or "any"
        raise UsageError(
            f"no questions in {data}", f"tasks asked for: {wanted}", "check --tasks and --data"
        )
    return chosen


def is_table(source: Source) -> bool:
    """Whether a source has rows of a table, and is no folder of pairs or of AlgoPuzzleVQA."""
    if source.path is None or not _is_plain(source):
        return True
    return not (is_pairs(source.path) or algopuzzlevqa_items.is_folder(source.path))


def _is_plain(source: Source) -> bool:
    """Whether neither a benchmark nor a column was named: a folder may be of any kind."""
    return source.layout is None and not set(source.columns) - {"split", "config"}


class Stream(NamedTuple):
    """The questions of a source by row number, made when they are asked for.

    `size` is how many there are; `texts` reads what all rows ask in their own words, without any
    image; `converse` gives rows as supervised training shows them.
    """

    size: int
    pick: Callable[[Sequence[int]], list[Item]]
    texts: Callable[[], list[str]]
    converse: Callable[[Sequence[int]], list[Spoken]]


def open_stream(spec: str) -> Stream:
    """A source to draw from again and again, as training does; images are read with their row.

    Raises UsageError where the source is not here or its columns are not known.
    """
    from franken.tasks import load_folder

    source = parse(canonical(spec))
    if source.path is not None and _is_plain(source):
        if is_pairs(source.path):
            return _in_memory([pair.target for pair in load_folder(source.path)])
        if algopuzzlevqa_items.is_folder(source.path):
            return _in_memory(
                list(algopuzzlevqa_items.load_items(source.path, choice=source.choice))
            )
    table, layout, name = recognised(source)

    def each(rows: Sequence[int], made_by: Callable[..., T]) -> list[T]:
        ascending = sorted(set(rows))
        made = {
            number: made_by(row, layout, name, number, table.folder)
            for number, row in zip(ascending, table.pick(ascending), strict=True)
        }
        return [made[row] for row in rows]

    def texts() -> list[str]:
        return [
            question_of(row, layout)
            for row in table.pick(range(table.n), columns_of(layout.question, layout.context))
        ]

    return Stream(
        table.n, lambda rows: each(rows, item_of), texts, lambda rows: each(rows, spoken_of)
    )


def _in_memory(items: list[Item]) -> Stream:
    return Stream(
        len(items),
        lambda rows: [items[row] for row in rows],
        lambda: [item.question for item in items],
        lambda rows: [spoken(items[row]) for row in rows],
    )


def _first(items: Iterable[Item], tasks: Sequence[str], samples: int) -> list[Item]:
    taken: dict[str, int] = {}
    chosen = []
    for item in items:
        named = not tasks or item.task in tasks or item.task.removesuffix(CHOICE) in tasks
        if named and taken.get(item.task, 0) < samples:
            taken[item.task] = taken.get(item.task, 0) + 1
            chosen.append(item)
    return chosen


def _from_table(source: Source, tasks: Sequence[str], samples: int, seed: int) -> list[Item]:
    table, layout, name = recognised(source)
    rows = draw(table, layout, name, tasks, samples, seed)
    picked = zip(rows, table.pick(rows), strict=True)
    return distinct([item_of(row, layout, name, number, table.folder) for number, row in picked])


def recognised(source: Source) -> tuple[Table, Layout, str]:
    """A source's table, its layout and its name. Raises UsageError for columns that nobody
    knows.
    """
    table = _open_table(source)
    layout, name = source.layout, source.name
    if layout is None:
        known = recognise(table.columns)
        if known is None and not {"question", "answer"} & set(source.columns):
            raise UsageError(
                f"the columns of {source.name} are not those of a known benchmark",
                why=f"they are {', '.join(table.columns)}",
                fix="say which is which: --columns question=COLUMN,answer=COLUMN",
            )
        found, base = known or ("", GENERIC)
        name, layout = found or name, layout_of(source.columns, base)
    _check_columns(layout, table)
    return table, how_options_are_meant(table, layout), name


def _check_columns(layout: Layout, table: Table) -> None:
    for what in (
        "question",
        "answer",
        "images",
        "options",
        "id",
        "task",
        "type_column",
        "description",
    ):
        names = getattr(layout, what)
        if what == "options" and names == IN_QUESTION:
            continue
        needed = (
            [n for n in names.split("+") if n]
            if what in ("question", "answer", "task")
            else [names]
            if names
            else []
        )
        for name in needed:
            roots = {column.partition(".")[0] for column in re.split(r"[|+]", name)}
            if not (roots | set(re.split(r"[|+]", name))) & {*table.columns, ""}:
                raise UsageError(
                    f"no column {name!r} for {what}",
                    f"the columns are {', '.join(table.columns)}",
                    "check --columns",
                )


def draw(
    table: Table, layout: Layout, name: str, tasks: Sequence[str], samples: int, seed: int
) -> list[int]:
    """Row numbers: at most `samples` of each task, by hash."""
    columns = columns_of(layout.task)
    rows = table.pick(range(table.n), columns) if columns else ({} for _ in range(table.n))
    names = [_task_named(row, layout, name) for row in rows]
    groups: dict[str, list[int]] = {}
    for number, task in enumerate(names):
        if not tasks or task in tasks:
            groups.setdefault(task, []).append(number)
    key = {
        n: hashlib.sha256(f"{seed}:{n}".encode()).digest()
        for group in groups.values()
        for n in group
    }
    return sorted(
        n for group in groups.values() for n in sorted(group, key=key.__getitem__)[:samples]
    )


def _task_named(row: Row, layout: Layout, name: str) -> str:
    try:
        return task_of(row, layout, name)
    except FrankenError:  # the row's own error
        return name


def distinct(items: list[Item]) -> list[Item]:
    """Items with ids of their own: what a data set calls alike gets a number."""
    seen: dict[str, int] = {}
    named = []
    for item in items:
        seen[item.id] = seen.get(item.id, 0) + 1
        named.append(item if seen[item.id] == 1 else replace(item, id=f"{item.id}~{seen[item.id]}"))
    return named


def is_pairs(path: Path) -> bool:
    """Whether a folder holds image pairs, in the vision_functionality layout."""
    if not path.is_dir():
        return False
    files = [path / "data.jsonl", *sorted(path.glob("*/data.jsonl"))]
    first = next((f for f in files if f.is_file()), None)
    if first is None:
        return False
    with first.open() as lines:
        return '"target_image"' in next((line for line in lines if line.strip()), "")
