"""Files that came from outside: regular ones in their folder, JSON of bounded size and depth.

Whatever is wrong with one is a FrankenError with the file, why, and a fix; what is returned needs
no further checks of this kind.
"""

import json
import math
import os
import stat
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Never

from franken.errors import FrankenError

MAX_JSON = 128 << 20  # bytes; the largest tokenizers have 35 MB
MAX_DEPTH = 40  # of lists and objects within each other
AGAIN = "fetch the file again"


def inside(folder: Path, name: str) -> Path:
    """The regular file `name` of a folder. Links may lead to files of the same folder, or to the
    blobs of the hub cache that a snapshot lies in.

    Raises FrankenError for what is absent, leads out of the folder, or is a device, pipe or folder.
    """
    path = folder / name
    if name in ("", ".", "..") or "/" in name or "\\" in name or not name.isprintable():
        raise FrankenError(
            f"{folder} names a file outside its folder: {name!r}",
            why="what belongs to a checkpoint must lie beside its config.json",
            fix="do not use this checkpoint",
        )
    try:
        home, real = Path(os.path.realpath(folder)), Path(os.path.realpath(path, strict=True))
        kind = real.stat().st_mode
    except (OSError, ValueError) as e:
        reason = getattr(e, "strerror", None) or str(e)
        raise FrankenError(f"{path} is missing", why=reason, fix=AGAIN) from e
    if not any(real.is_relative_to(place) for place in (home, *_blobs(home))):
        raise FrankenError(
            f"{path} leads outside its folder",
            why=f"it is a link to {real}",
            fix="do not use this checkpoint, or copy the file into its folder if it is yours",
        )
    if not stat.S_ISREG(kind):
        raise FrankenError(
            f"{path} is not a regular file", why="it is a folder, a device or a pipe", fix=AGAIN
        )
    return path


def _blobs(home: Path) -> list[Path]:
    """Where the links of a snapshot in the hub's cache lead: models--A--B/blobs."""
    cached = home.parent.name == "snapshots" and home.parents[1].name.startswith("models--")
    return [home.parents[1] / "blobs"] if cached else []


def read_json(path: Path) -> dict[str, Any]:
    """The JSON object in a file. Raises FrankenError for what is no object, too large or too deep,
    names a key twice, or holds a number that is not finite.
    """
    try:
        size = path.stat().st_size
        if size > MAX_JSON:
            raise _not_json(path, f"it has {size:,} bytes, more than {MAX_JSON:,}")
        content = parse_json(path.read_bytes())
    except OSError as e:
        raise FrankenError(f"cannot read {path}", why=e.strerror or str(e), fix=AGAIN) from e
    except ValueError as e:
        raise _not_json(path, str(e)) from e
    if not isinstance(content, dict):
        raise _not_json(path, f"it holds a {type(content).__name__}, not an object")
    return content


def parse_json(data: bytes) -> Any:
    """A value from JSON in UTF-8. Raises ValueError with the reason; nothing else."""
    try:
        content = json.loads(
            data.decode("utf-8"),
            object_pairs_hook=_no_key_twice,
            parse_constant=_no_constant,
            parse_float=_finite,
        )
    except RecursionError:
        raise ValueError("it is nested too deep") from None
    if _depth(content, MAX_DEPTH) > MAX_DEPTH:
        raise ValueError(f"it is nested deeper than {MAX_DEPTH} levels")
    return content


def _no_key_twice(pairs: Sequence[tuple[str, Any]]) -> dict[str, Any]:
    content = dict(pairs)
    if len(content) < len(pairs):
        names = [name for name, _ in pairs]
        twice = next(name for name in names if names.count(name) > 1)
        raise ValueError(f"the key {twice[:80]!r} is there twice")
    return content


def _no_constant(text: str) -> Never:
    raise ValueError(f"{text} is not a number of JSON")


def _finite(text: str) -> float:
    number = float(text)
    if not math.isfinite(number):
        raise ValueError(f"the number {text[:40]} is too large")
    return number


def _depth(content: object, left: int) -> int:
    """How deep lists and objects lie within each other; stops counting at `left` + 1."""
    if isinstance(content, dict):
        content = content.values()
    elif not isinstance(content, list):
        return 0
    if left < 0:
        return 1
    return 1 + max((_depth(c, left - 1) for c in content if type(c) in (dict, list)), default=0)


def _not_json(path: Path, why: str) -> FrankenError:
    return FrankenError(f"{path} is not what a checkpoint has there", why=why, fix=AGAIN)
