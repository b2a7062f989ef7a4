"""The trained checkpoint, `final/`: the last or the best weights, adapters merged, re-opened once
written.
"""

import shutil
from pathlib import Path

from torch import Tensor

from franken.checkpoints import open_checkpoint
from franken.models.loading import Loaded
from trainer import state
from trainer.checkpoint_files import Position, read_position
from trainer.collectives import on_main_process
from trainer.distributed import rank
from trainer.lora import merge_lora
from trainer.origins import before_export, starting_model
from trainer.recipe import Recipe
from trainer.sharding import full_weights, is_sharded
from trainer.tokenizers import save_processor


def restore_exported(recipe: Recipe, loaded: Loaded, out: Path, position: Position) -> int:
    """Put the weights that the recipe exports into the model. Returns the update they are from."""
    if recipe.export == "last":
        return position.updates
    folder = on_main_process(lambda: state.best_whole(out))
    state.load_weights(folder, loaded.model)
    return read_position(folder).updates


def export(loaded: Loaded, recipe: Recipe, final: Path) -> None:
    """Write the checkpoint, and re-open it: every tensor must have a place. Rank 0 writes, all
    ranks call.
    """
    weights = full_weights(loaded.model, keep=rank() == 0) if is_sharded(loaded.model) else None
    on_main_process(lambda: _write(loaded, recipe, final, weights))


def _write(loaded: Loaded, recipe: Recipe, final: Path, weights: dict[str, Tensor] | None) -> None:
    temporary = final.with_name(".final")
    shutil.rmtree(temporary, ignore_errors=True)
    model = loaded.model
    if recipe.lora:
        if weights is not None:  # PEFT merges whole weights only
            model = starting_model(recipe.model_copy(update={"device": "cpu"})).model
            model.load_state_dict(weights)
            weights = None
        merge_lora(model)
    model.requires_grad_(True)
    before_export(model, recipe)
    model.save_pretrained(temporary, state_dict=weights)
    save_processor(loaded, temporary)
    open_checkpoint(temporary, finished=False)
    shutil.rmtree(final, ignore_errors=True)
    temporary.rename(final)
