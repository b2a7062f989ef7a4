"""The creature before its first update, and what its Base gets before it is written."""

from torch import nn

from franken.models import creature
from franken.models.loading import Loaded, pick_device, wrap

NEW = "creature:new"  # the model that recipes name
BASE = "creature-base"  # the recipe that makes the Base


def fresh_creature(seed: int, device: str) -> Loaded:
    """A creature with random weights and its own processor."""
    processor = creature.build_processor()
    model = creature.build_model(seed)
    return wrap(model.to(pick_device(device)), processor, processor.tokenizer)


def before_export(model: nn.Module, recipe: str, seed: int) -> None:
    """Give tokens that the Base has never seen fresh embeddings."""
    if recipe == BASE:
        creature.restart_unseen_tokens(model, seed)
