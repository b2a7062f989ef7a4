"""From rewards to advantages: group normalisation as in GRPO (DeepSeekMath, arXiv 2402.03300, §4.1). Pure torch."""

import torch
from jaxtyping import Float
from torch import Tensor

STD_FLOOR = 1e-6


def grpo(rewards: Float[Tensor, "prompts group"], *, floor: float = STD_FLOOR) -> Float[Tensor, "prompts group"]:
    """(R − mean) / (std + floor) inside each group, std with ddof 1. A group without spread gets exactly zero."""
    mean = rewards.mean(1, keepdim=True)
    std = rewards.std(1, keepdim=True) if rewards.shape[1] > 1 else torch.zeros_like(mean)
    normalised = (rewards - mean) / (std + floor)
    return torch.where(std > floor, normalised, torch.zeros_like(normalised))
