"""The creature before its first update, and what its Base gets before it is written."""

from typing import TYPE_CHECKING, cast

from torch import nn

from franken.models import creature
from franken.models.loading import Loaded, pick_device, wrap

if TYPE_CHECKING:
    from transformers import Qwen2_5_VLForConditionalGeneration

NEW = "creature:new"  # the model that recipes name
BASE = "creature-base"  # the recipe that makes the Base


def fresh_creature(seed: int, device: str) -> Loaded:
    """A creature with random weights and its own processor."""
    processor = creature.build_processor()
    model = creature.build_model(seed)
    nn.Module.to(model, pick_device(device))
    return wrap(model, processor, processor.tokenizer)


def before_export(model: nn.Module, recipe: str, seed: int) -> None:
    """Give tokens that the Base has never seen fresh embeddings."""
    if recipe == BASE:
        creature.restart_unseen_tokens(cast("Qwen2_5_VLForConditionalGeneration", model), seed)
