"""Checkpoints of a model that is spread over ranks: every rank writes its shards, any number of
ranks reads them.

    out/shards/step-00000040/   what torch.distributed.checkpoint writes, and state.json

A checkpoint is written by all ranks together; rank 0 makes it visible. No random state is kept:
what is drawn is a function of seed and step. All ranks need to see the same folder.
"""

import shutil
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

from trainer.checkpoint_files import (
    UNREADABLE,
    Files,
    Position,
    clean,
    could_not_be_written,
    describe,
    finished,
    newest_undamaged,
    publish,
    read_files,
    remove,
)
from trainer.collectives import all_gather, on_main_process
from trainer.distributed import rank, world_size

KEEP = 2


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
        raise could_not_be_written(folder, str(next(iter(e.failures.values()))[0])) from e
    names = on_main_process(lambda: sorted(path.name for path in temporary.iterdir()))
    parts = all_gather(_described(temporary, names))
    files = {name: record for part in parts for name, record in part.items()}

    def finish() -> None:
        publish(temporary, folder, position, None, files)
        for old in finished(out, "shards")[:-last]:
            remove(old)

    on_main_process(finish)
    return folder


def last_whole(out: Path) -> Path | None:
    """The newest undamaged checkpoint; what killed runs left behind, and damaged ones after it, go.
    All ranks call.
    """
    on_main_process(lambda: clean(out))
    folders = on_main_process(lambda: finished(out, "shards"))
    newest = newest_undamaged(folders, damage)
    for folder in folders:
        if newest is None or folder > newest:
            on_main_process(lambda folder=folder: remove(folder))
    return newest


def damage(folder: Path) -> str:
    """Why a checkpoint cannot be trusted, or an empty string. Every rank reads some of the files;
    all ranks call.
    """
    files = read_files(folder)
    return next(filter(None, all_gather(UNREADABLE if files is None else _own(folder, files))), "")


def load_weights(folder: Path, model: nn.Module) -> None:
    """Restore the model, whatever the number of ranks that wrote it. A missing name is an error.
    All ranks call.
    """
    values = {"model": get_model_state_dict(model)}  # the shards themselves: filled in place
    dcp.load(values, checkpoint_id=folder)  # pyright: ignore[reportPrivateImportUsage]


def load_optimizer(folder: Path, model: nn.Module, optimizer: torch.optim.Optimizer) -> None:
    """Restore the optimizer, whatever the number of ranks that wrote it. All ranks call."""
    values = {"optimizer": get_optimizer_state_dict(model, optimizer)}
    dcp.load(values, checkpoint_id=folder)  # pyright: ignore[reportPrivateImportUsage]
    set_optimizer_state_dict(
        model, optimizer, values["optimizer"], options=StateDictOptions(strict=True)
    )


def _own(folder: Path, files: Files) -> str:
    """What is wrong with this rank's part of the files."""
    names = sorted(files)
    missing = next((name for name in names if not (folder / name).is_file()), "")
    if missing:
        return f"{missing} is missing"
    now = _described(folder, names)
    changed = next((name for name, record in now.items() if record != files[name]), "")
    return f"{changed} is not what was written" if changed else ""


def _described(folder: Path, names: list[str]) -> Files:
    """This rank's part of the files."""
    return {name: describe(folder / name) for name in names[rank() :: world_size()]}
