"""Where a stage starts, and what its KL refers to.

A stage goes on with the weights of the one before, or begins anew with the recipe's model. A KL to
the start of a later stage needs those weights until the stage is over: they are in
`out/start/stage-<n>.safetensors`, written once, before the stage's first update, so that a resumed
run refers to the same. Left out: sharded models and adapters, which recipes refuse.
"""

import os
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file

from franken.models.loading import Loaded, load
from trainer.collectives import on_main_process
from trainer.distributed import local_device
from trainer.recipe import Recipe
from trainer.stages import GrpoStage


def begin_stage(recipe: Recipe, index: int, loaded: Loaded, out: Path, *, step: int) -> None:
    """Put the weights in place that stage `index` starts from, and keep them where its KL will ask
    for them; nothing where the stage has begun.
    """
    stage = recipe.stages[index]
    if step:
        return
    if stage.start == "recipe" and index:
        first = load(recipe.model, device=local_device(recipe.device), dtype=recipe.dtype)
        copy_weights(dict(first.model.named_parameters()), loaded)
    file = start_file(recipe, index, out)
    if file is not None:
        on_main_process(lambda: _write(loaded, file))


def start_file(recipe: Recipe, index: int, out: Path) -> Path | None:
    """Where the start of a stage is kept; None where nothing refers to it, or it is the recipe's
    model.
    """
    stage = recipe.stages[index]
    if not isinstance(stage, GrpoStage) or not stage.beta or stage.reference == "recipe":
        return None
    if index == 0 or stage.start == "recipe":
        return None
    return out / "start" / f"stage-{index}.safetensors"


def load_start(file: Path, reference: Loaded) -> None:
    """Put kept weights into a model of the same shape."""
    copy_weights(load_file(file), reference)


@torch.no_grad()
def copy_weights(weights: dict[str, torch.Tensor], loaded: Loaded) -> None:
    """Overwrite a model's parameters with others of the same names."""
    for name, parameter in loaded.model.named_parameters():
        parameter.copy_(weights[name])


def _write(loaded: Loaded, file: Path) -> None:
    file.parent.mkdir(exist_ok=True)
    partial = file.with_suffix(".partial")
    weights = {name: p.detach().cpu().clone() for name, p in loaded.model.named_parameters()}
    save_file(weights, partial)
    os.replace(partial, file)
