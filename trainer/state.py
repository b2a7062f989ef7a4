"""Checkpoints of a training run: atomic, verified, and exact.

    out/state/step-00000040/   model.safetensors (in-memory names), optimizer.pt, state.json written
                               last

`state.json` holds the size and SHA-256 of the other files: a checkpoint that was cut off or damaged
is never loaded, the whole
one before it is. Weights are stored under the names they have in memory and loaded strictly.
(transformers 5 saves some families under legacy names; loading those into a model in memory
restores nothing and merely warns.)
"""

import errno
import hashlib
import json
import logging
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TextIO

import torch
from safetensors import SafetensorError
from safetensors.torch import load_model, save_model
from torch import nn

from franken.errors import FrankenError

log = logging.getLogger(__name__)

KEEP = 2
DISK = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS, errno.EIO)
FILES = ("model.safetensors", "optimizer.pt")


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
    """What the held-out puzzles said where a checkpoint was taken. Scores of different stages do
    not compare.
    """

    stage: int
    value: float


def save_state(
    out: Path,
    model: nn.Module,
    optimizer: torch.optim.Optimizer | None,
    position: Position,
    *,
    score: Score | None = None,
    last: int = KEEP,
    best: int = 0,
) -> Path:
    """Write a checkpoint beside the others, then make it visible by one rename.

    The `last` ones stay, and the `best` by score; others go. Raises FrankenError where it cannot be
    written (a full disk): the checkpoints that were there stay, the part goes.
    """
    folder = out / "state" / f"step-{position.updates:08d}"
    if folder.exists():
        if not damage(folder):
            return folder
        remove(folder)
    temporary = folder.with_name(f".{folder.name}.{os.getpid()}")
    try:
        shutil.rmtree(temporary, ignore_errors=True)
        temporary.mkdir(parents=True)
        _write(temporary, model, optimizer, position, score)
        os.replace(temporary, folder)
        sync(folder.parent)
    except (
        OSError,
        SafetensorError,
        RuntimeError,
    ) as e:  # torch and safetensors wrap what the system said
        shutil.rmtree(temporary, ignore_errors=True)
        raise FrankenError(
            f"checkpoint {folder.name} could not be written",
            why=str(e),
            fix=f"free space; {still_there(out)}",
        ) from e
    keep = {*finished(out)[-last:], *ranked(out)[:best]}
    for old in finished(out):
        if old not in keep:
            remove(old)
    return folder


def ranked(out: Path) -> list[Path]:
    """Checkpoints of the last stage that has scores, best first; of equals, the earlier."""
    scores = {folder: score for folder in finished(out) if (score := _score(folder))}
    stage = max((score.stage for score in scores.values()), default=0)
    return sorted(
        (f for f, s in scores.items() if s.stage == stage), key=lambda f: (-scores[f].value, f)
    )


def best_whole(out: Path) -> Path:
    """The undamaged checkpoint with the highest score. Raises FrankenError if there is none."""
    for folder in ranked(out):
        why = damage(folder)
        if not why:
            return folder
        log.warning("checkpoint %s is damaged (%s): the next best is exported", folder.name, why)
    raise FrankenError(
        "no checkpoint has a score", why=f"none under {out} is whole", fix="train with export: last"
    )


def finished(out: Path, kind: str = "state") -> list[Path]:
    """Folders of checkpoints that were made visible, oldest first; whether they are undamaged is
    not looked at.

    `kind` is `state`, or `shards` for those of trainer/sharded_state.py.
    """
    return sorted(p for p in (out / kind).glob("step-*") if p.is_dir())


def last_whole(out: Path) -> Path | None:
    """The newest undamaged checkpoint. What killed runs left behind, and damaged checkpoints after
    it, are removed.
    """
    clean(out)
    for folder in reversed(finished(out)):
        why = damage(folder)
        if not why:
            return folder
        log.warning(
            "checkpoint %s is damaged (%s): going on from the one before it", folder.name, why
        )
        remove(folder)
    return None


def damage(folder: Path) -> str:
    """Why a checkpoint cannot be trusted, or an empty string: sizes first, then every byte."""
    try:
        files = json.loads((folder / "state.json").read_text())["files"]
    except (OSError, ValueError, KeyError, TypeError):
        return "state.json is missing or cut off"
    if set(files) != set(FILES):
        return "state.json does not list its files"
    for name, wanted in files.items():
        if not (folder / name).is_file():
            return f"{name} is missing"
        if (size := (folder / name).stat().st_size) != wanted["bytes"]:
            return f"{name} has {size} bytes of {wanted['bytes']}"
    changed = [
        name for name, wanted in files.items() if hash_file(folder / name) != wanted["sha256"]
    ]
    return f"{changed[0]} is not what was written" if changed else ""


def read_position(folder: Path) -> Position:
    """Where the checkpoint was taken."""
    return Position(**json.loads((folder / "state.json").read_text())["position"])


def load_weights(folder: Path, model: nn.Module) -> None:
    """Restore the model. Raises FrankenError if a name is missing or left over."""
    missing, unexpected = load_model(model, str(folder / "model.safetensors"), strict=False)
    if missing or unexpected:
        raise FrankenError(
            f"{folder.name} does not fit the model",
            why=f"missing {sorted(missing)[:2]}, unexpected {sorted(unexpected)[:2]}",
            fix="train into a new --out",
        )


def load_optimizer(folder: Path, optimizer: torch.optim.Optimizer) -> None:
    """Restore optimiser and random state."""
    saved = torch.load(folder / "optimizer.pt", weights_only=True)
    if saved["optimizer"] is not None:
        optimizer.load_state_dict(saved["optimizer"])
    torch.set_rng_state(saved["rng"])
    if saved["cuda_rng"] and torch.cuda.is_available():
        torch.cuda.set_rng_state_all(saved["cuda_rng"])


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


def _write(
    temporary: Path,
    model: nn.Module,
    optimizer: torch.optim.Optimizer | None,
    position: Position,
    score: Score | None,
) -> None:
    save_model(model, str(temporary / "model.safetensors"))
    saved = {
        "optimizer": optimizer.state_dict() if optimizer else None,
        "rng": torch.get_rng_state(),
        "cuda_rng": torch.cuda.get_rng_state_all() if torch.cuda.is_available() else [],
    }
    torch.save(saved, temporary / "optimizer.pt")
    files = {
        n: {"bytes": (temporary / n).stat().st_size, "sha256": hash_file(temporary / n)}
        for n in FILES
    }
    for name in FILES:
        sync(temporary / name)
    about = {
        "position": asdict(position),
        "score": asdict(score) if score else None,
        "files": files,
    }
    (temporary / "state.json").write_text(json.dumps(about))
    sync(temporary / "state.json")
    sync(temporary)


def _score(folder: Path) -> Score | None:
    try:
        found = json.loads((folder / "state.json").read_text())["score"]
        return Score(**found) if found else None
    except (OSError, ValueError, KeyError, TypeError):  # damaged: it has no rank
        return None


def still_there(out: Path) -> str:
    """From where the run goes on once a failure is mended."""
    there = finished(out) or finished(out, "shards")
    return (
        f"the same command goes on from {there[-1].name}"
        if there
        else "the same command starts again"
    )


def clean(out: Path) -> None:
    """Remove what killed writers left: `.name.PID` beside a file, and checkpoints that were never
    made visible.
    """
    for rest in out.glob(".*"):
        if rest.is_file() and rest.suffix[1:].isdigit():
            rest.unlink()
    for rest in (*(out / "state").glob(".step-*"), *(out / "shards").glob(".step-*")):
        shutil.rmtree(rest)


def remove(folder: Path) -> None:
    """Hide a folder before its files go, so that one half removed is never taken for a checkpoint."""
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
