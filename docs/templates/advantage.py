"""An advantage: the reward above the group's median, in units of its mean absolute deviation.

    franken --plugin advantage.py train creature-rl --out runs/median --set stages.0.steps=20 --set
    stages.0.advantage='{name: median}'

It gets the rewards `[prompts, group, rewards]` and the `Groups` that they belong to (texts,
lengths, who is correct, embeddings, how far the stage is), and returns one number a response, or
one a token with a third dimension. Its other parameters are what a
recipe may set: here `advantage='{name: median, floor: 0.01}'`.
"""

import torch
from torch import Tensor

from franken.plugins import register
from trainer.algorithms import Groups


def median(rewards: Tensor, groups: Groups, *, floor: float = 1e-3) -> Tensor:
    """(R − median) / max(mean |R − median|, floor), inside each group; a group without spread gets
    zero.
    """
    total = groups.total(rewards)
    centred = total - torch.quantile(total, 0.5, dim=1, keepdim=True)
    spread = centred.abs().mean(1, keepdim=True)
    return centred / spread.clamp(min=floor)


register("advantage", "median", median)
