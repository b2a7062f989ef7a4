"""Checkpoints of a model that one process holds whole: atomic, verified, and exact.

    out/state/step-00000040/   model.safetensors (in-memory names), optimizer.pt, state.json

A checkpoint that was cut off or damaged is never loaded, the whole one before it is. Weights are
stored under the names they have in memory and loaded strictly. (transformers 5 saves some families
under legacy names; loading those into a model in memory restores nothing and merely warns.)
"""

import os
import shutil
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_model, save_model
from torch import nn

from franken.errors import FrankenError
from trainer.checkpoint_files import (
    UNREADABLE,
    Position,
    Score,
    clean,
    could_not_be_written,
    describe,
    finished,
    hash_file,
    newest_undamaged,
    publish,
    read_files,
    read_score,
    remove,
)

KEEP = 2
MODEL, OPTIMIZER = FILES = ("model.safetensors", "optimizer.pt")


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
        save_model(model, str(temporary / MODEL))
        cuda = torch.cuda.get_rng_state_all() if torch.cuda.is_available() else []
        saved = {
            "optimizer": optimizer.state_dict() if optimizer else None,
            "rng": torch.get_rng_state(),
            "cuda_rng": cuda,
        }
        torch.save(saved, temporary / OPTIMIZER)
        files = {name: describe(temporary / name) for name in FILES}
        publish(temporary, folder, position, score, files)
    except (OSError, SafetensorError, RuntimeError) as e:  # torch wraps what the system said
        shutil.rmtree(temporary, ignore_errors=True)
        raise could_not_be_written(folder, str(e)) from e
    keep = {*finished(out)[-last:], *ranked(out)[:best]}
    for old in finished(out):
        if old not in keep:
            remove(old)
    return folder


def ranked(out: Path) -> list[Path]:
    """Checkpoints of the last stage that has scores, best first; of equals, the earlier."""
    scores = {folder: score for folder in finished(out) if (score := read_score(folder))}
    stage = max((score.stage for score in scores.values()), default=0)
    return sorted(
        (f for f, s in scores.items() if s.stage == stage), key=lambda f: (-scores[f].value, f)
    )


def best_whole(out: Path) -> Path:
    """The undamaged checkpoint with the highest score. Raises FrankenError if there is none."""
    best = newest_undamaged(ranked(out)[::-1], damage)
    if best is None:
        raise FrankenError(
            "no checkpoint has a score",
            why=f"none under {out} is whole",
            fix="train with export: last",
        )
    return best


def last_whole(out: Path) -> Path | None:
    """The newest undamaged checkpoint. What killed runs left behind, and damaged checkpoints after
    it, are removed.
    """
    clean(out)
    newest = newest_undamaged(finished(out), damage)
    for folder in finished(out):
        if newest is None or folder > newest:
            remove(folder)
    return newest


def damage(folder: Path) -> str:
    """Why a checkpoint cannot be trusted, or an empty string: sizes first, then every byte."""
    files = read_files(folder)
    if files is None:
        return UNREADABLE
    if set(files) != set(FILES):
        return "state.json does not list its files"
    for name, written in files.items():
        if not (folder / name).is_file():
            return f"{name} is missing"
        if (size := (folder / name).stat().st_size) != written["bytes"]:
            return f"{name} has {size} bytes of {written['bytes']}"
    for name, written in files.items():
        if hash_file(folder / name) != written["sha256"]:
            return f"{name} is not what was written"
    return ""


def load_weights(folder: Path, model: nn.Module) -> None:
    """Restore the model. Raises FrankenError if a name is missing or left over."""
    missing, unexpected = load_model(model, str(folder / MODEL), strict=False)
    if missing or unexpected:
        raise FrankenError(
            f"{folder.name} does not fit the model",
            why=f"missing {sorted(missing)[:2]}, unexpected {sorted(unexpected)[:2]}",
            fix="train into a new --out",
        )


def load_optimizer(folder: Path, optimizer: torch.optim.Optimizer) -> None:
    """Restore optimizer and random state."""
    saved = torch.load(folder / OPTIMIZER, weights_only=True)
    if saved["optimizer"] is not None:
        optimizer.load_state_dict(saved["optimizer"])
    torch.set_rng_state(saved["rng"])
    if saved["cuda_rng"] and torch.cuda.is_available():
        torch.cuda.set_rng_state_all(saved["cuda_rng"])
