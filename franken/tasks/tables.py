"""Rows of a data set on disk, read when they are asked for: Parquet, CSV, TSV, JSONL and JSON, read
with what the house has anyway.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from franken.errors import FrankenError, UsageError
from franken.tasks.text_tables import BadRow, Row, open_text

__all__ = ["BadRow", "Row", "SeveralSplits", "Table", "in_memory", "open_local"]

KINDS = (".parquet", ".jsonl", ".json", ".csv", ".tsv")
EVERY = "all"  # in place of a split's name: all of them
AT_ONCE = 64  # rows of a Parquet file in memory


class SeveralSplits(UsageError):
    """A set holds several splits and none was named: a mistake of the question, not of the set."""


class Table(NamedTuple):
    """Rows of one data set: the columns, how many rows, and `pick`, which yields the rows of
    ascending numbers, restricted to some columns if they are named. Paths of images start at
    `folder`."""

    columns: list[str]
    n: int
    pick: Callable[..., Iterator[Row]]
    folder: Path | None


def open_local(path: Path, split: str = "", encoding: str = "") -> Table:
    """A file, or all files of one kind in a folder, in the order of their names.

    With `split` only the files whose name or folder begins with it (`test-00000-of-00001.parquet`,
    `test/0.parquet`). Raises UsageError when there are none, or when a folder holds several splits
    and none is named.
    """
    files = [path] if path.is_file() else _files(path, split)
    folder = path.parent if path.is_file() else path
    if files[0].suffix == ".parquet":
        return _open_parquet(files, folder)
    try:
        tables = [open_text(file, encoding) for file in files]
    except OSError as e:
        raise FrankenError(f"{path.name} cannot be read", str(e), "check the file") from e
    columns = list(dict.fromkeys(name for table in tables for name in table.columns))

    def pick(numbers: Iterable[int], only: Sequence[str] | None = None) -> Iterator[Row]:
        wanted, start = sorted(set(numbers)), 0
        for table in tables:
            yield from table.read(n - start for n in wanted if start <= n < start + table.n)
            start += table.n

    return Table(columns, sum(table.n for table in tables), pick, folder)


def in_memory(rows: Sequence[Row], folder: Path | None) -> Table:
    """A table of rows that are there."""
    columns = list(dict.fromkeys(key for row in rows for key in row))

    def pick(numbers: Iterable[int], only: Sequence[str] | None = None) -> Iterator[Row]:
        return (rows[n] for n in numbers)

    return Table(columns, len(rows), pick, folder)


def _files(folder: Path, split: str) -> list[Path]:
    for kind in KINDS:
        files = sorted(
            f
            for f in folder.rglob(f"*{kind}")
            if f.is_file() and not any(p.startswith(".") for p in f.relative_to(folder).parts)
        )
        if not files:
            continue
        splits = {_split_of(f, folder) for f in files}
        if split and split != EVERY:
            named = [f for f in files if _split_of(f, folder) in split.split("+")]
            if named or len(splits) > 1:
                files = named
        elif len(splits) > 1 and not split:
            raise SeveralSplits(
                f"{folder} holds several splits",
                f"they are {', '.join(sorted(splits))}",
                f"name one, or some: --columns split=NAME+NAME; split={EVERY} reads all",
            )
        if files:
            return files
        raise UsageError(
            f"no split {split!r} in {folder}",
            f"there are {', '.join(sorted(splits))}",
            "check the split",
        )
    raise UsageError(
        f"no table in {folder}",
        f"it holds no {', '.join(KINDS)}",
        "give a file, or the folder that holds them",
    )


def _split_of(file: Path, folder: Path) -> str:
    parts = file.relative_to(folder).parts
    stem = Path(parts[-1]).stem
    return (
        stem.partition("-0")[0]
        if "-of-" in stem
        else parts[-2]
        if len(parts) > 1 and stem.isdigit()
        else stem
    )


def _open_parquet(files: list[Path], folder: Path) -> Table:
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        opened = [pq.ParquetFile(file, buffer_size=2**20) for file in files]
    except (pa.ArrowException, OSError) as e:
        raise FrankenError(
            f"{files[0].name} cannot be read as Parquet", str(e), "check the files"
        ) from e
    columns = list(dict.fromkeys(name for file in opened for name in file.schema_arrow.names))

    def pick(numbers: Iterable[int], only: Sequence[str] | None = None) -> Iterator[Row]:
        wanted, start = sorted(set(numbers)), 0
        for file in opened:
            names = file.schema_arrow.names
            names = [c for c in only if c in names] if only is not None else names
            for group in range(file.num_row_groups):
                size = file.metadata.row_group(group).num_rows
                here = [n - start for n in wanted if start <= n < start + size]
                yield from _of_group(file, group, here, names)
                start += size

    return Table(columns, sum(file.metadata.num_rows for file in opened), pick, folder)


def _of_group(file: Any, group: int, rows: Sequence[int], columns: list[str]) -> Iterator[Row]:
    """Some rows of a row group, ascending, read a few rows at a time up to the last one."""
    import pyarrow as pa

    if not columns:
        yield from ({} for _ in rows)
        return
    first, waiting = 0, list(rows)
    try:
        for batch in (
            file.iter_batches(AT_ONCE, row_groups=[group], columns=columns) if rows else ()
        ):
            here = [n - first for n in waiting if n < first + batch.num_rows]
            yield from batch.take(pa.array(here, pa.int64())).to_pylist() if here else ()
            first, waiting = first + batch.num_rows, waiting[len(here) :]
            if not waiting:
                return
    except pa.ArrowException as e:
        raise FrankenError("a Parquet file cannot be read", str(e), "check the files") from e
