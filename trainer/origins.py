"""Where a run's weights come from: a checkpoint, or a model that is made new."""

from collections.abc import Callable
from typing import NamedTuple

from torch import nn

from franken.models.loading import Loaded, load
from trainer.creature import origin as creature
from trainer.distributed import local_device
from trainer.lora import add_lora
from trainer.recipe import Recipe


class Origin(NamedTuple):
    """A model that no checkpoint holds: `build(seed, device)`, and what is done to it
    `before_export(model, recipe name, seed)`.
    """

    build: Callable[[int, str], Loaded]
    before_export: Callable[[nn.Module, str, int], None]


ORIGINS = {creature.NEW: Origin(creature.fresh_creature, creature.before_export)}


def starting_model(recipe: Recipe) -> Loaded:
    """The model that a recipe starts from, with its adapters."""
    device = local_device(recipe.device)
    if recipe.model in ORIGINS:
        loaded = ORIGINS[recipe.model].build(recipe.seed, device)
    else:
        loaded = load(recipe.model, device=device, dtype=recipe.dtype)
    if recipe.lora:
        add_lora(loaded.model, **recipe.lora.model_dump(), seed=recipe.seed)
    return loaded


def before_export(model: nn.Module, recipe: Recipe) -> None:
    """Change the model of a recipe that started from a new one, where that is called for."""
    if recipe.model in ORIGINS:
        ORIGINS[recipe.model].before_export(model, recipe.name, recipe.seed)
