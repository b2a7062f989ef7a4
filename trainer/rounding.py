"""What bfloat16 weights do to small updates: a weight has 8 bits, and what is below half of its
last one is rounded away.

AdamW moves a weight by about the learning rate. Half the last bit of w is at least |w| / 512, so
that a weight above 512 times the rate cannot move, however often it is asked. At the papers' 1e-6
that is nearly every weight of a language model (they keep float32 or compensated weights): such a
run ends where it began, and nothing in its log says so.
"""

import logging

from trainer.recipe import Recipe

log = logging.getLogger(__name__)
STEPS = 512  # the reciprocal of the smallest half of a last bit, relative to its weight
ORDINARY = 0.02  # the standard deviation with which weights of these models start


def lost_updates(recipe: Recipe) -> list[str]:
    """A line for every stage whose updates most weights would not feel; none with LoRA, whose B
    starts at zero.
    """
    if recipe.dtype != "bf16" or recipe.lora:
        return []
    return [
        f"stage {index}: in bf16 no weight above {STEPS * stage.lr:.2g} can move by lr "
        f"{stage.lr:g}, which is most of them; "
        "train with dtype fp32, and precision bf16-mixed for the speed (it needs sharding fsdp)"
        for index, stage in enumerate(recipe.stages)
        if STEPS * stage.lr < ORDINARY
    ]


def warn_of_lost_updates(recipe: Recipe) -> None:
    """Say so in the log."""
    for line in lost_updates(recipe):
        log.warning("%s", line)
