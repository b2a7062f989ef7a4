"""GDPO (arXiv 2601.05242): every reward is normalised on its own before they are summed."""

import torch
from jaxtyping import Float
from torch import Tensor

from trainer.algorithms.groups import (
    ADVANTAGES,
    STD_FLOOR,
    Groups,
    RewardParts,
    Rewards,
    StdFloor,
    floating,
)
from trainer.algorithms.grpo import grpo, standardise


def gdpo(
    rewards: RewardParts,
    weights: Float[Tensor, "rewards"] | None = None,
    *,
    std_floor: float = STD_FLOOR,
) -> Rewards:
    """Each reward normalised inside its group, then their weighted sum standardised over the batch.

    Rewards of different ranges keep their relative weight, which a sum before normalising would
    lose.
    """
    each = torch.stack([grpo(r, std_floor=std_floor) for r in floating(rewards).unbind(-1)], -1)
    mixed = each.sum(-1) if weights is None else (each * weights.to(each)).sum(-1)
    return standardise(mixed)


@ADVANTAGES.register("gdpo", paper="arXiv 2601.05242")
def _gdpo(
    rewards: RewardParts,
    groups: Groups,
    *,
    std_floor: StdFloor = STD_FLOOR,
) -> Rewards:
    """Every reward normalised in its group, weighted, summed, and standardised over the batch."""
    return gdpo(rewards, torch.tensor(groups.reward_weights), std_floor=std_floor)
