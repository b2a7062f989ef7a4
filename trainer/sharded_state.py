"""Checkpoints of a model that is spread over ranks: every rank writes its shares, any number of
ranks reads them.

    out/shards/step-00000040/   what torch.distributed.checkpoint writes, and state.json: the
                                position, and what the files hold

A checkpoint is written beside the others, under a hidden name, by all ranks together; rank 0 then
makes it visible by one rename. `state.json` holds the size and SHA-256 of every other file, as in
trainer/state.py: one that was cut off or damaged is never loaded. No random state is kept: what is
drawn is a function of seed and step. All ranks need to see the same folder.
"""

import json
import logging
import os
import shutil
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
import torch.distributed.checkpoint as dcp
from torch import nn
from torch.distributed.checkpoint.api import CheckpointException
from torch.distributed.checkpoint.state_dict import (
    StateDictOptions,
    get_model_state_dict,
    get_optimizer_state_dict,
    set_optimizer_state_dict,
)

from franken.errors import FrankenError
from trainer.collectives import all_gather, on_main_process
from trainer.distributed import rank, world_size
from trainer.state import KEEP, Position, clean, finished, hash_file, remove, still_there, sync

log = logging.getLogger(__name__)


def save(
    out: Path,
    model: nn.Module,
    optimizer: torch.optim.Optimizer | None,
    position: Position,
    *,
    last: int = KEEP,
) -> Path:
    """Write a checkpoint; the `last` ones stay. All ranks call.

    Raises FrankenError where it cannot be written (a full disk): the checkpoints that were there
    stay, the part goes.
    """
    folder = out / "shards" / f"step-{position.updates:08d}"
    if on_main_process(folder.exists):
        return folder
    temporary = folder.with_name(f".{folder.name}")
    on_main_process(lambda: shutil.rmtree(temporary, ignore_errors=True))
    values: dict[str, Any] = {"model": get_model_state_dict(model)}
    if optimizer is not None:
        values["optimizer"] = get_optimizer_state_dict(model, optimizer)
    try:
        dcp.save(values, checkpoint_id=temporary)  # pyright: ignore[reportPrivateImportUsage]
    except CheckpointException as e:  # on all ranks: they tell each other
        on_main_process(lambda: shutil.rmtree(temporary, ignore_errors=True))
        raise FrankenError(
            f"checkpoint {folder.name} could not be written",
            why=str(next(iter(e.failures.values()))[0]),
            fix=f"free space; {still_there(out)}",
        ) from e
    names = on_main_process(lambda: sorted(path.name for path in temporary.iterdir()))
    files = {
        name: told
        for part in all_gather(_described(temporary, names))
        for name, told in part.items()
    }
    on_main_process(lambda: _finish(out, temporary, folder, position, files, last))
    return folder


def last_whole(out: Path) -> Path | None:
    """The newest undamaged checkpoint; what killed runs left behind, and damaged ones after it, go.
    All ranks call.
    """
    on_main_process(lambda: clean(out))
    for folder in reversed(on_main_process(lambda: finished(out, "shards"))):
        why = damage(folder)
        if not why:
            return folder
        log.warning(
            "checkpoint %s is damaged (%s): going on from the one before it", folder.name, why
        )
        on_main_process(lambda folder=folder: remove(folder))
    return None


def damage(folder: Path) -> str:
    """Why a checkpoint cannot be trusted, or an empty string. Every rank reads some of the files;
    all ranks call.
    """
    try:
        files = json.loads((folder / "state.json").read_text())["files"]
        why = ""
    except (OSError, ValueError, KeyError, TypeError):
        files, why = {}, "state.json is missing or cut off"
    names = sorted(files)
    missing = [name for name in names if not (folder / name).is_file()]
    if missing:
        why = f"{missing[0]} is missing"
    elif not why:
        found = _described(folder, names)
        changed = [name for name, told in found.items() if told != files[name]]
        why = f"{changed[0]} is not what was written" if changed else ""
    return next((told for told in all_gather(why) if told), "")


def load_weights(folder: Path, model: nn.Module) -> None:
    """Restore the model, whatever the number of ranks that wrote it. A missing name is an error.
    All ranks call.
    """
    values = {"model": get_model_state_dict(model)}  # the shares themselves: filled in place
    dcp.load(values, checkpoint_id=folder)  # pyright: ignore[reportPrivateImportUsage]


def load_optimizer(folder: Path, model: nn.Module, optimizer: torch.optim.Optimizer) -> None:
    """Restore the optimiser, whatever the number of ranks that wrote it. All ranks call."""
    values = {"optimizer": get_optimizer_state_dict(model, optimizer)}
    dcp.load(values, checkpoint_id=folder)  # pyright: ignore[reportPrivateImportUsage]
    set_optimizer_state_dict(
        model, optimizer, values["optimizer"], options=StateDictOptions(strict=True)
    )


def _described(folder: Path, names: list[str]) -> dict[str, dict[str, Any]]:
    """Size and SHA-256 of this rank's part of the files."""
    mine = [folder / name for name in names[rank() :: world_size()]]
    return {file.name: {"bytes": file.stat().st_size, "sha256": hash_file(file)} for file in mine}


def _finish(
    out: Path,
    temporary: Path,
    folder: Path,
    position: Position,
    files: dict[str, dict[str, Any]],
    last: int,
) -> None:
    (temporary / "state.json").write_text(
        json.dumps({"position": asdict(position), "files": files})
    )
    for path in (*temporary.iterdir(), temporary):
        sync(path)
    os.replace(temporary, folder)
    sync(folder.parent)
    for old in finished(out, "shards")[:-last]:
        remove(old)
