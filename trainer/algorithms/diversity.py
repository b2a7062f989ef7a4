"""Advantages that know how different the responses of a group are, by the cosine of embeddings.

DRA-GRPO (arXiv 2505.09655), and GRPO with MUPO's diversity reward (arXiv 2604.00479 §4.2) without
its clusters. The weight λ of that reward may change over a stage (`Anneal`).
"""

import math
from functools import partial
from typing import Annotated, Literal

import torch
from pydantic import Field
from torch import Tensor
from torch.nn import functional as F

from franken.errors import UsageError
from trainer.algorithms.groups import (
    ADVANTAGES,
    STD_FLOOR,
    AnyScale,
    Correct,
    Embeddings,
    Estimate,
    Groups,
    Metrics,
    RewardParts,
    Rewards,
    Scale,
    StdFloor,
    floating,
)
from trainer.algorithms.grpo import grpo
from trainer.registry import Strict


class Anneal(Strict):
    """The weight λ of the diversity reward over a stage."""

    start: float = Field(default=0.4, ge=0, description="λ at the first update (the paper's λ_max)")
    end: float = Field(
        default=0.1,
        ge=0,
        description="λ at the end of the stage (λ_min); a floor for `exponential`",
    )
    shape: Literal["cosine", "exponential", "constant"] = Field(
        default="cosine",
        description="cosine is the paper's, exponential the release's; constant keeps `start`",
    )
    decay: float = Field(default=9e-3, ge=0, description="rate per update of `exponential`")

    def at(self, step: int, progress: float) -> float:
        """λ at an update (from 0) that is `progress` in [0, 1] through its stage."""
        if self.shape == "constant":
            return self.start
        if self.shape == "exponential":  # the released code has no floor
            return max(self.start * math.exp(-self.decay * step), self.end)
        half = 0.5 * (1.0 + math.cos(math.pi * min(max(progress, 0.0), 1.0)))
        return self.end + (self.start - self.end) * half


Weight = Annotated[Anneal, Field(description="λ, the weight of the diversity reward")]


def cosine_distances(embeddings: Embeddings) -> Tensor:
    """1 − cosine of every pair of a group's responses, `[prompts, group, group]` in [0, 2], 0 on
    the diagonal.
    """
    units = F.normalize(floating(embeddings), dim=-1)
    distances = (1.0 - units @ units.transpose(1, 2)).clamp(0.0, 2.0)
    return distances * (1.0 - torch.eye(units.shape[1], device=units.device, dtype=units.dtype))


def pairwise_diversity(embeddings: Embeddings) -> Rewards:
    """Mean cosine distance of each response to the others of its group; 0 for a group of one."""
    return cosine_distances(embeddings).sum(-1) / max(embeddings.shape[1] - 1, 1)


def dra(rewards: Rewards, embeddings: Embeddings, *, std_floor: float = STD_FLOOR) -> Rewards:
    """DRA-GRPO: rewards divided by 1 + Σ_{j≠i} cos(o_i, o_j), then as in GRPO.

    Raises UsageError where a divisor is not positive (a response opposite to the rest), which the
    method leaves open.
    """
    cosine = 1.0 - cosine_distances(embeddings)
    similarity = cosine.sum(-1) - cosine.diagonal(dim1=1, dim2=2)
    if (similarity <= -1.0).any():
        raise UsageError(
            "DRA is undefined here",
            why="a response is opposite to the rest",
            fix="use other embeddings",
        )
    rewards = floating(rewards)
    return grpo(rewards / (1.0 + similarity).to(rewards), std_floor=std_floor)


def grpo_diversity(
    rewards: Rewards,
    *,
    correct: Correct,
    embeddings: Embeddings,
    diversity_weight: float = 0.4,
    scale: Scale = "group",
    std_floor: float = STD_FLOOR,
) -> Rewards:
    """GRPO on R + λ·1[correct]·(mean cosine distance to the others of the group): MUPO's reward
    without its clusters.
    """
    reward = pairwise_diversity(embeddings) * correct.to(embeddings.dtype)
    total = floating(rewards) + diversity_weight * reward.to(floating(rewards))
    return grpo(total, scale=scale, std_floor=std_floor)


def diversity_metrics(
    advantages: Tensor, without: Tensor, earned: Rewards, groups: Groups, weight: float
) -> Metrics:
    """λ, the mean diversity reward of right responses, and the share of the gradient due to λ.

    On-policy the gradient is Σ A·∇log π over tokens. With A₀ the advantages at λ = 0 (`without`,
    same clusters), the share is Σ|A − A₀| / (Σ|A − A₀| + Σ|A₀|) over tokens: 0 without diversity, 1
    where nothing else moves the policy.
    """
    lengths = groups.lengths.to(advantages)
    extra = float(((advantages - without).abs() * lengths).sum())
    rest = float((without.abs() * lengths).sum())
    right = groups.correct
    return {
        "lambda": weight,
        "diversity_reward": float(earned[right].mean()) if right.any() else 0.0,
        "diversity_share": extra / (extra + rest) if extra > 0 else 0.0,
    }


@ADVANTAGES.register("dra", paper="DRA-GRPO, arXiv 2505.09655", reads=("texts",))
def _dra(
    rewards: RewardParts,
    groups: Groups,
    *,
    std_floor: StdFloor = STD_FLOOR,
) -> Rewards:
    """GRPO on rewards that are divided by how similar a response is to the others."""
    return dra(groups.total(rewards), groups.embed(), std_floor=std_floor)


@ADVANTAGES.register(
    "grpo_diversity", paper="arXiv 2604.00479 §4.2, without clusters", reads=("texts", "correct")
)
def _grpo_diversity(
    rewards: RewardParts,
    groups: Groups,
    *,
    diversity: Weight = Anneal(),  # noqa: B008
    scale: AnyScale = "group",
    std_floor: StdFloor = STD_FLOOR,
) -> Estimate:
    """GRPO with a reward for right responses that differ from the others of their group."""
    embeddings, weight = groups.embed(), diversity.at(groups.step, groups.progress)
    of = {"correct": groups.correct, "embeddings": embeddings}
    at = partial(grpo_diversity, groups.total(rewards), **of, scale=scale, std_floor=std_floor)
    advantages, without = at(diversity_weight=weight), at(diversity_weight=0.0)
    earned = pairwise_diversity(embeddings)
    return Estimate(advantages, diversity_metrics(advantages, without, earned, groups, weight))
