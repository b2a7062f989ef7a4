"""AdamW, its learning rate over a stage, and the optimizer step over all ranks.

The learning rate is a linear warm-up, a plateau, and a cosine to the end. torch's schedulers count
steps; here the end of a stage may be a budget of time, so the rate is a function of its progress.
"""

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from franken.errors import FrankenError
from trainer.collectives import all_reduce_gradients
from trainer.sharding import full
from trainer.stages import Stage


def adamw(stage: Stage, parameters: Sequence[Tensor]) -> torch.optim.AdamW:
    """AdamW over what trains; vectors (norms, biases) are not decayed."""
    matrices = [p for p in parameters if p.ndim >= 2]
    vectors = [p for p in parameters if p.ndim < 2]
    groups = [
        {"params": matrices, "weight_decay": stage.weight_decay},
        {"params": vectors, "weight_decay": 0.0},
    ]
    return torch.optim.AdamW([g for g in groups if g["params"]], lr=stage.lr, betas=stage.betas)


def backpropagate(loss: Tensor, step: int | None = None) -> None:
    """Add the gradient of a loss. Raises FrankenError where it is not finite."""
    if not torch.isfinite(loss):
        number = loss.item()
        raise FrankenError(
            f"the loss is {number}" if step is None else f"the loss is {number} at step {step}",
            why="training diverged",
            fix="lower the learning rate",
        )
    loss.backward()


def learning_rate(stage: Stage, step: int, progress: float) -> float:
    """The rate of the update `step` (from 0) of a stage that is `progress` in [0, 1] through.

    `warmup` counts updates, `hold` is the share of the stage at the peak `lr` (warm-up included),
    `end` the final rate as a share of the peak.
    """
    rising = min(1.0, (step + 1) / stage.warmup) if stage.warmup else 1.0
    if progress <= stage.hold:
        return stage.lr * rising
    falling = min((progress - stage.hold) / (1.0 - stage.hold), 1.0)
    share = stage.end + (1.0 - stage.end) * 0.5 * (1.0 + math.cos(math.pi * falling))
    return stage.lr * (rising * share)


def optimizer_step(
    optimizer: torch.optim.Optimizer, parameters: Sequence[Tensor], *, clip: float, rate: float
) -> float:
    """Sum gradients over the ranks, clip their norm, step with this rate, and drop them. Returns
    the norm before clipping.
    """
    for group in optimizer.param_groups:
        group["lr"] = rate
    all_reduce_gradients(parameters)
    norm = full(torch.nn.utils.clip_grad_norm_(parameters, clip)).item()
    optimizer.step()
    optimizer.zero_grad(set_to_none=True)
    return norm
