"""Checkpoints along a run: the weights after some of its updates, so that what training did can be
followed (`franken diff BASE --along RUN`).

    out/checkpoints/step-00000040/   as from_pretrained reads it; with LoRA, its adapter alone

They hold no state of the optimizer, and are no place to resume from (out/state is). Which updates
they are of is said by trainer/kept.py; the last one is always among them.
"""

import os
import shutil
from pathlib import Path

from torch import Tensor
from transformers import PreTrainedModel

from franken.errors import FrankenError
from franken.models.loading import Loaded
from trainer.checkpoint_files import could_not_be_written, finished, remove, sync
from trainer.collectives import on_main_process
from trainer.distributed import rank
from trainer.kept import is_kept, most_kept
from trainer.lora import save_adapter
from trainer.recipe import Keep, Recipe
from trainer.sharding import full_weights, is_sharded
from trainer.tokenizers import save_processor

FOLDER = "checkpoints"


def keep_weights(out: Path, loaded: Loaded, recipe: Recipe, updates: int, *, last: bool) -> None:
    """Write the weights after `updates` where the recipe keeps them, and remove those that fall out
    by it. Rank 0 writes, all ranks call.

    Raises FrankenError where they cannot be written (a full disk): those that were there stay.
    """
    keep = recipe.keep
    if not keep.every or not (last or is_kept(keep, updates, updates)):
        return
    model = loaded.model
    weights = full_weights(model, keep=rank() == 0) if is_sharded(model) else None
    on_main_process(lambda: _write(out, loaded, recipe, updates, weights))
    on_main_process(lambda: _thin(out, keep, updates))


def drop_after(out: Path, updates: int) -> None:
    """Remove what was kept after the update from which a run goes on: it will be made again."""
    for folder in finished(out, FOLDER):
        if update_of(folder) > updates:
            remove(folder)


def check_room(out: Path, recipe: Recipe, nbytes: int) -> None:
    """Raises FrankenError, before anything has trained, where all checkpoints that the recipe keeps
    (`nbytes` each) do not fit on the disk beside what is there.
    """
    missing = most_kept(recipe) - len(finished(out, FOLDER))
    free = shutil.disk_usage(out).free
    if missing > 0 and missing * nbytes > free:
        raise FrankenError(
            f"{missing} checkpoints will not fit under {out}",
            why=f"each has {nbytes / 2**20:.0f} MiB, and {free / 2**20:.0f} MiB are free",
            fix="keep fewer: --set 'keep={every: 10, at_most: 20}'; or choose another --out",
        )


def update_of(folder: Path) -> int:
    """After which update a checkpoint was kept."""
    return int(folder.name.rpartition("-")[2])


def _write(
    out: Path, loaded: Loaded, recipe: Recipe, updates: int, weights: dict[str, Tensor] | None
) -> None:
    folder = out / FOLDER / f"step-{updates:08d}"
    if folder.exists():
        return
    temporary = folder.with_name(f".{folder.name}.{os.getpid()}")
    try:
        shutil.rmtree(temporary, ignore_errors=True)
        temporary.mkdir(parents=True)
        _save(loaded, recipe, temporary, weights)
        for path in (*temporary.iterdir(), temporary):
            sync(path)
        os.replace(temporary, folder)
        sync(folder.parent)
    except (OSError, RuntimeError) as e:
        shutil.rmtree(temporary, ignore_errors=True)
        raise could_not_be_written(folder, str(e)) from e


def _save(loaded: Loaded, recipe: Recipe, folder: Path, weights: dict[str, Tensor] | None) -> None:
    if recipe.lora:
        save_adapter(loaded.model, folder, weights, base=recipe.model)
        return
    assert isinstance(loaded.model, PreTrainedModel)
    loaded.model.save_pretrained(folder, state_dict=weights)
    save_processor(loaded, folder)


def _thin(out: Path, keep: Keep, updates: int) -> None:
    for folder in finished(out, FOLDER):
        update = update_of(folder)
        if update != updates and not is_kept(keep, update, updates):
            remove(folder)
