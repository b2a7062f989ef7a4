"""The files of a checkpoint: written under a hidden name, described by size and SHA-256, made
visible by one rename, and trusted only while they are what was written.

    out/state/step-00000040/    the whole model (trainer/state.py)
    out/shards/step-00000040/   one that is spread over ranks (trainer/sharded_state.py)
        state.json              written last: the position, the score, and what the other files are
"""

import errno
import hashlib
import json
import logging
import os
import shutil
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TextIO, TypedDict

from safetensors import SafetensorError

from franken.errors import FrankenError

log = logging.getLogger(__name__)

STATE = "state.json"
DISK = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS, errno.EIO)
UNREADABLE = "state.json is missing or cut off"


@dataclass
class Position:
    """Where a run is: the stage, its step, updates over all stages, and CPU seconds spent training
    in this stage.
    """

    stage: int = 0
    step: int = 0
    updates: int = 0
    cpu_seconds: float = 0.0


@dataclass(frozen=True)
class Score:
    """Held-out accuracy where a checkpoint was taken. Scores of different stages do not compare."""

    stage: int
    value: float


class FileRecord(TypedDict):
    """What a file was when it was written."""

    bytes: int
    sha256: str


Files = Mapping[str, FileRecord]


class _State(TypedDict):
    position: dict[str, float]
    score: dict[str, float] | None
    files: dict[str, FileRecord]


def finished(out: Path, kind: str = "state") -> list[Path]:
    """Folders of checkpoints that were made visible, oldest first, damaged or not. `kind` is
    `state` or `shards`, or `checkpoints` for weights that are kept.
    """
    return sorted(p for p in (out / kind).glob("step-*") if p.is_dir())


def newest_undamaged(folders: list[Path], damage: Callable[[Path], str]) -> Path | None:
    """The last of the folders that is not damaged."""
    for folder in reversed(folders):
        why = damage(folder)
        if not why:
            return folder
        log.warning("checkpoint %s is damaged (%s): taking the one before it", folder.name, why)
    return None


def read_position(folder: Path) -> Position:
    """Where the checkpoint was taken."""
    return Position(**_read(folder)["position"])  # pyright: ignore[reportArgumentType]


def read_score(folder: Path) -> Score | None:
    """The score of a checkpoint; None where it has none or is damaged."""
    try:
        score = _read(folder).get("score")
        return Score(int(score["stage"]), score["value"]) if score else None
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return None


def read_files(folder: Path) -> Files | None:
    """What the files were when they were written; None where state.json is damaged."""
    try:
        return _read(folder)["files"]
    except (OSError, ValueError, KeyError, TypeError):
        return None


def describe(file: Path) -> FileRecord:
    """What a file is now."""
    return {"bytes": file.stat().st_size, "sha256": hash_file(file)}


def publish(
    temporary: Path, folder: Path, position: Position, score: Score | None, files: Files
) -> None:
    """Describe the files, put all on the disk, and make the folder visible by one rename."""
    record = {
        "position": asdict(position),
        "score": asdict(score) if score else None,
        "files": dict(files),
    }
    (temporary / STATE).write_text(json.dumps(record))
    for path in (*(temporary / name for name in files), temporary / STATE, temporary):
        sync(path)
    os.replace(temporary, folder)
    sync(folder.parent)


def could_not_be_written(folder: Path, why: str) -> FrankenError:
    """The error of a checkpoint that was not finished (a full disk)."""
    fix = f"free space; {still_there(folder.parents[1])}"
    return FrankenError(f"checkpoint {folder.name} could not be written", why=why, fix=fix)


@contextmanager
def failed_writes_told(out: Path) -> Iterator[None]:
    """Turn a system error while a run writes (a full disk) into an error that says where the run
    can go on.
    """
    try:
        yield
    except (OSError, SafetensorError) as e:
        if isinstance(e, OSError) and e.errno not in DISK:
            raise
        raise FrankenError(
            f"{out} cannot be written", why=str(e), fix=f"free space; {still_there(out)}"
        ) from e


def still_there(out: Path) -> str:
    """From where the run goes on once a failure is mended."""
    checkpoints = finished(out) or finished(out, "shards")
    if not checkpoints:
        return "the same command starts again"
    return f"the same command goes on from {checkpoints[-1].name}"


def clean(out: Path) -> None:
    """Remove what killed writers left: `.name.PID` beside a file, and checkpoints that were never
    made visible.
    """
    for rest in out.glob(".*"):
        if rest.is_file() and rest.suffix[1:].isdigit():
            rest.unlink()
    for kind in ("state", "shards", "checkpoints"):
        for rest in (out / kind).glob(".step-*"):
            shutil.rmtree(rest)


def remove(folder: Path) -> None:
    """Hide a folder before its files go, so that half of one is never taken for a checkpoint."""
    if folder.exists():
        hidden = folder.with_name(f".{folder.name}.gone")
        shutil.rmtree(hidden, ignore_errors=True)
        os.replace(folder, hidden)
        shutil.rmtree(hidden)


def hash_file(file: Path) -> str:
    """SHA-256 of a file."""
    with file.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def flush(stream: TextIO) -> None:
    """Put what was written to an open file on the disk."""
    stream.flush()
    os.fsync(stream.fileno())


def sync(path: Path) -> None:
    """Put a closed file, or the names in a folder, on the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _read(folder: Path) -> _State:
    return json.loads((folder / STATE).read_text())
