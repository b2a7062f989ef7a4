"""How rewards become updates: advantages (what each response is worth) and policy losses.

A file each where they are more than a few lines. `ADVANTAGES` and `LOSSES` are registries
(`trainer.registry`): a recipe names a method and sets the parameters that its function declares.
"""

from trainer.algorithms import diversity, gdpo, grpo, mupo, passk  # noqa: F401 - they register
from trainer.algorithms.groups import ADVANTAGES, Estimate, Groups
from trainer.algorithms.losses import LOSSES

__all__ = ["ADVANTAGES", "LOSSES", "Estimate", "Groups"]
