"""Rows of a data set on disk or in the local cache of the hub, read when they are asked for.

Parquet, CSV, TSV, JSONL and JSON are read with what the house has anyway. Only a hub id needs the
`datasets` library (extra `data`), and only `fetch` lets it use the network.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

from franken.errors import FrankenError, UsageError
from franken.tasks.text_tables import BadRow, Row, open_text

__all__ = ["BadRow", "Row", "Table", "in_memory", "open_hub", "open_local", "open_snapshot"]

KINDS = (".parquet", ".jsonl", ".json", ".csv", ".tsv")
AT_ONCE = 64  # rows of a Parquet file in memory


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
            if not any(p.startswith(".") for p in f.relative_to(folder).parts)
        )
        if not files:
            continue
        splits = {_split_of(f, folder) for f in files}
        if split:
            named = [f for f in files if _split_of(f, folder) == split]
            if named or len(splits) > 1:
                files = named
        elif len(splits) > 1:
            raise UsageError(
                f"{folder} holds several splits",
                f"they are {', '.join(sorted(splits))}",
                "name one: --columns split=NAME",
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


def open_snapshot(hub: str, split: str, *, download: bool = False) -> Table:
    """A data set of the hub by its files, of which the images are archives beside the table; with
    `download` they are fetched first. Raises FrankenError where it is not in the local cache.
    """
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HfHubHTTPError, LocalEntryNotFoundError

    try:
        folder = snapshot_download(hub, repo_type="dataset", local_files_only=not download)
    except (LocalEntryNotFoundError, HfHubHTTPError, OSError, ValueError) as e:
        raise FrankenError(
            f"no data set {hub} in the local cache" if not download else f"cannot fetch {hub}",
            str(e).splitlines()[0] if str(e) else type(e).__name__,
            "add --download, or give a local folder: NAME=FOLDER",
        ) from e
    return open_local(Path(folder), split)


def open_hub(hub: str, config: str, split: str, *, download: bool = False) -> Table:
    """A data set of the hub, from the local cache; with `download` it is fetched into the cache
    first.

    Raises UsageError when the `datasets` library is missing, FrankenError when the data set is not
    there.
    """
    try:
        import datasets
        from datasets.exceptions import DatasetsError
    except ImportError as e:
        raise UsageError(
            f"{hub} is a data set of the hub",
            "the datasets library is not installed",
            "pip install 'franken[data]'",
        ) from e
    with _network(download):
        try:
            dataset: Any = datasets.load_dataset(hub, config or None, split=split or None)
        except (OSError, ValueError, DatasetsError) as e:
            why = str(e).splitlines()[0] if str(e) else type(e).__name__
            fix = (
                "check the id, and split= and config= of --columns"
                if download
                else "add --download, or give a local folder: NAME=FOLDER"
            )
            raise FrankenError(
                f"no data set {hub} in the local cache" if not download else f"cannot fetch {hub}",
                why,
                fix,
            ) from e
    if isinstance(dataset, dict):
        if len(dataset) > 1:
            raise UsageError(
                f"{hub} has several splits",
                f"they are {', '.join(dataset)}",
                "name one: --columns split=NAME",
            )
        dataset = next(iter(dataset.values()))
    for name, feature in dataset.features.items():
        if isinstance(feature, datasets.Image):
            dataset = dataset.cast_column(name, datasets.Image(decode=False))

    def pick(numbers: Iterable[int], only: Sequence[str] | None = None) -> Iterator[Row]:
        chosen = dataset
        if only is not None:
            chosen = dataset.select_columns([c for c in only if c in dataset.column_names])
        return (chosen[n] for n in numbers)

    return Table(list(dataset.column_names), len(dataset), pick, None)


@contextmanager
def _network(allowed: bool) -> Iterator[None]:
    """The hub's libraries kept from the network unless it is allowed; code that comes with a data
    set never runs (datasets ≥ 4).
    """
    import huggingface_hub
    from datasets import config

    places = (
        (config, "HF_HUB_OFFLINE"),
        (config, "HF_DATASETS_OFFLINE"),
        (huggingface_hub.constants, "HF_HUB_OFFLINE"),
    )
    before = [(where, name, getattr(where, name)) for where, name in places if hasattr(where, name)]
    try:
        for where, name, value in before:
            setattr(where, name, value or not allowed)
        yield
    finally:
        for where, name, value in before:
            setattr(where, name, value)
