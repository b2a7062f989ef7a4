"""Files of a run that are whole or not there, and typed records that are read with their schema
version checked.
"""

import json
import os
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from pydantic import BaseModel, ConfigDict, ValidationError

from franken.errors import FrankenError

if TYPE_CHECKING:
    import pandas as pd

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
        content = json.loads(path.read_text())
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


def atomic_write_text(path: Path, text: str) -> None:
    """Write a text file so that it is there whole or not at all."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    temporary.write_text(text)
    os.replace(temporary, path)


def write_parquet(table: "pd.DataFrame", path: Path) -> None:
    """Write a Parquet file so that it is there whole or not at all."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    table.to_parquet(temporary, index=False)
    os.replace(temporary, path)
