"""Advantages from group rewards alone: GRPO and its nearest relatives.

Everywhere: a group without spread gets exactly zero, also where floating point sees a little of it,
and the denominator is max(std, std_floor) + eps with ddof 1. A weight on the surrogate folds into
the advantage, because min(r·A, clip(r)·A) is positively homogeneous in A.
"""

from typing import Annotated, Literal

import torch
from jaxtyping import Bool, Int
from pydantic import Field
from torch import Tensor

from franken.errors import unknown
from trainer.algorithms.groups import (
    ADVANTAGES,
    EPS,
    STD_FLOOR,
    AnyScale,
    Groups,
    RewardParts,
    Rewards,
    Scale,
    StdFloor,
    floating,
)


def grpo(
    rewards: Rewards, *, scale: Scale = "group", std_floor: float = STD_FLOOR, eps: float = EPS
) -> Rewards:
    """(R − group mean) / (std + eps), with the std of the group, of the whole batch, or none.

    A `std_floor` above the spread of a group keeps small differences small: they are divided by the
    floor instead.
    """
    rewards = floating(rewards)
    centered = rewards - rewards.mean(1, keepdim=True)
    if scale == "none":
        advantages = centered
    elif scale in ("group", "batch"):
        std = _std(rewards) if scale == "group" else _std(rewards.flatten()[None])
        advantages = centered / (std.clamp(min=std_floor) + eps)
    else:
        raise unknown("scale", scale, ("group", "batch", "none"))
    return torch.where(_varies(rewards), advantages, torch.zeros_like(advantages))


def dr_grpo(rewards: Rewards) -> Rewards:
    """R − group mean, without division: questions are not weighted by their difficulty."""
    return grpo(rewards, scale="none")


def rloo(rewards: Rewards) -> Rewards:
    """R − mean of the others in the group."""
    group = rewards.shape[1]
    return grpo(rewards, scale="none") * (group / max(group - 1, 1))


def reinforce_baseline(rewards: Rewards) -> Rewards:
    """R − group mean, then standardised over the whole batch."""
    return standardise(grpo(rewards, scale="none"))


def standardise(values: Rewards) -> Rewards:
    """(x − mean) / (std + eps) over the whole batch. Groups of zeros stay zero: there is nothing to
    prefer in them.
    """
    if values.numel() < 2:
        return torch.zeros_like(values)
    shifted = (values - values.mean()) / (values.std() + EPS)
    return torch.where((values != 0).any(1, keepdim=True), shifted, torch.zeros_like(values))


def standardise_tokens(values: Rewards, lengths: Int[Tensor, "prompts group"]) -> Rewards:
    """(x − mean) / (std + eps) where every response counts as often as it has tokens, as LMM-R1's
    code standardises (arXiv 2503.07536); std without ddof. Groups of zeros stay zero.
    """
    weights = lengths.to(values) / lengths.sum().clamp(min=1)
    centred = values - (weights * values).sum()
    std = (weights * centred**2).sum().sqrt()
    return torch.where(
        (values != 0).any(1, keepdim=True), centred / (std + EPS), torch.zeros_like(values)
    )


@ADVANTAGES.register("grpo", paper="DeepSeekMath, arXiv 2402.03300 §4.1")
def _grpo(
    rewards: RewardParts,
    groups: Groups,
    *,
    scale: AnyScale = "group",
    std_floor: StdFloor = STD_FLOOR,
) -> Rewards:
    """The reward minus the group's mean, divided by a std."""
    return grpo(groups.total(rewards), scale=scale, std_floor=std_floor)


@ADVANTAGES.register("dr_grpo", paper="Dr. GRPO, arXiv 2503.20783 §3.2")
def _dr_grpo(rewards: RewardParts, groups: Groups) -> Rewards:
    """The reward minus the group's mean."""
    return dr_grpo(groups.total(rewards))


@ADVANTAGES.register("rloo", paper="arXiv 2402.14740")
def _rloo(rewards: RewardParts, groups: Groups) -> Rewards:
    """The reward minus the mean of the others in the group."""
    return rloo(groups.total(rewards))


@ADVANTAGES.register("reinforce_baseline", paper="REINFORCE++, arXiv 2501.03262")
def _reinforce_baseline(
    rewards: RewardParts,
    groups: Groups,
    *,
    over: Annotated[
        Literal["sequence", "token"],
        Field(description="standardise over responses, or over tokens, where a long one counts"),
    ] = "sequence",
) -> Rewards:
    """The reward minus the group's mean, standardised over the batch."""
    total = groups.total(rewards)
    if over == "sequence":
        return reinforce_baseline(total)
    return standardise_tokens(grpo(total, scale="none"), groups.lengths)


def _std(rewards: Tensor) -> Tensor:
    return (
        rewards.std(1, keepdim=True) if rewards.shape[1] > 1 else torch.zeros_like(rewards[:, :1])
    )


def _varies(rewards: Rewards) -> Bool[Tensor, "prompts 1"]:
    """Whether a group has spread beyond rounding."""
    spread = rewards.amax(1, keepdim=True) - rewards.amin(1, keepdim=True)
    return (_std(rewards) > STD_FLOOR) & (spread > 0)
