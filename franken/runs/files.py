"""Files of a run that are whole or not there, and typed records that are read with their schema
version checked.
"""

import os
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from pydantic import BaseModel, ConfigDict, ValidationError

from franken.errors import FrankenError
from franken.files import parse_json

if TYPE_CHECKING:
    import pandas as pd

DELETE = "delete the run's folder and run its command again"
M = TypeVar("M", bound=BaseModel)


class Stored(BaseModel):
    """A record, or a part of one, as a JSON file of a run folder has it.

    Keys that this version does not know are kept as attributes, so that the verbs may add their own
    results to a manifest. `stored()` is what the file holds: plain objects, nothing added.
    """

    model_config = ConfigDict(extra="allow", populate_by_name=True)

    def stored(self) -> dict[str, object]:
        """As JSON holds it, without the fields that were never set."""
        return self.model_dump(mode="json", by_alias=True, exclude_unset=True)


def read_record(path: Path, record: type[M], *, schema: int, again: str) -> M:
    """Read a JSON file as a `record`; `again` says how the file is made again.

    Raises FrankenError for a file that is damaged or of another schema version. Files older than
    the versions have none and are version 1.
    """
    try:
        content = parse_json(path.read_bytes())
    except OSError as e:
        raise FrankenError(f"{path} cannot be read", e.strerror or str(e), again) from e
    except ValueError as e:
        raise FrankenError(f"{path} is damaged", str(e), again) from e
    version = content.get("schema", 1) if isinstance(content, dict) else None
    if version != schema:
        why = f"its schema is {version}, this franken reads {schema}"
        raise FrankenError(f"{path} was written by another version", why, again)
    try:
        return record.model_validate(content)
    except ValidationError as e:
        first = e.errors()[0]
        where = ".".join(map(str, first["loc"]))
        if first["type"] == "extra_forbidden":
            newer = f"it has {where}, which this franken does not know"
            raise FrankenError(f"{path} was written by another version", newer, again) from e
        raise FrankenError(f"{path} is damaged", f"{where}: {first['msg']}", again) from e


@contextmanager
def whole(path: Path) -> Iterator[Path]:
    """A file beside `path` to write to, which takes its place after the block; it goes where the
    block fails, on a full disk for example.
    """
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        yield temporary
        os.replace(temporary, path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise


def sweep(folder: Path) -> None:
    """Remove what writers that were killed left of `whole` files. Only for the folder's writer."""
    for file in folder.glob(".*"):
        if re.fullmatch(r"\..+\.\d+", file.name):
            file.unlink(missing_ok=True)


def atomic_write_text(path: Path, text: str) -> None:
    """Write a text file so that it is there whole or not at all."""
    with whole(path) as temporary:
        temporary.write_text(text)


def read_parquet(path: Path, columns: Sequence[str] = ()) -> "pd.DataFrame":
    """A table of a run. Raises FrankenError for one that is damaged or lacks one of `columns`."""
    import pandas as pd
    from pyarrow import ArrowException

    if path.is_dir():  # pandas would read it as a table of no rows
        raise FrankenError(f"{path} is damaged", "it is a folder", DELETE)
    try:
        table = pd.read_parquet(path)
    except FileNotFoundError:
        raise
    except (OSError, ValueError, KeyError, ArrowException) as e:
        raise FrankenError(f"{path} is damaged", str(e).splitlines()[0][:200], DELETE) from e
    check_columns(table, columns, path)
    return table


def check_columns(table: "pd.DataFrame", columns: Sequence[str], path: Path) -> None:
    """Raise FrankenError where the table of a file has rows, and not all of these columns."""
    missing = [name for name in columns if name not in table]
    if missing and len(table):
        raise FrankenError(f"{path} is damaged", f"it has no column {missing[0]}", DELETE)


def write_parquet(table: "pd.DataFrame", path: Path) -> None:
    """Write a Parquet file so that it is there whole or not at all."""
    with whole(path) as temporary:
        table.to_parquet(temporary, index=False)
