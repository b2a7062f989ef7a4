"""Pass@k training (arXiv 2508.10751): a set of k responses succeeds if one of them does."""

import math
from typing import Annotated

import torch
from pydantic import Field

from franken.errors import UsageError
from trainer.algorithms.groups import ADVANTAGES, Correct, Groups, RewardParts, Rewards


def passk(correct: Correct, *, k: int = 4) -> Rewards:
    """Analytic advantages of pass@k.

    With n responses, c right: ρ = 1 − C(n−c, k)/C(n, k), σ = √(ρ(1−ρ)); right (1 − ρ)/σ, wrong (1 −
    ρ − C(n−c−1, k−1)/C(n−1, k−1))/σ. Zero where every set succeeds or none does.
    """
    n = correct.shape[1]
    if not 1 <= k <= n:
        raise UsageError(f"pass@{k} needs a group of at least {k}", why=f"the group has {n}")
    right = correct.bool()
    table = torch.tensor([_right_and_wrong(n, c, k) for c in range(n + 1)], device=correct.device)
    chosen = table[right.sum(1)]
    return torch.where(right, chosen[:, :1], chosen[:, 1:])


@ADVANTAGES.register("passk", paper="arXiv 2508.10751", reads=("correct",), at_most_group="k")
def _passk(
    rewards: RewardParts,
    groups: Groups,
    *,
    k: Annotated[int, Field(ge=1, description="size of the sets of which one must succeed")] = 4,
) -> Rewards:
    """Pass@k of the group: rewards other than correctness do not count."""
    return passk(groups.correct, k=k)


def _right_and_wrong(n: int, c: int, k: int) -> tuple[float, float]:
    """The advantage of a right and of a wrong response when c of n are right."""
    rho = 1.0 - math.comb(n - c, k) / math.comb(n, k)
    sigma = math.sqrt(rho * (1.0 - rho))
    if sigma == 0.0:
        return 0.0, 0.0
    rest = math.comb(n - c - 1, k - 1) / math.comb(n - 1, k - 1)
    return (1.0 - rho) / sigma, (1.0 - rho - rest) / sigma
