"""From rewards to advantages: GRPO and its relatives, and MUPO. Pure functions of tensors.

Rewards are `[prompts, group]`, a group being the sampled responses of one prompt. Nothing here
knows of models, texts or recipes (`trainer/estimators.py` connects them); the one sibling used is
`trainer/clusters.py`.

Everywhere: a group (or cluster) without spread gets exactly zero, also when floating point sees a
little of it, and the denominator is max(std, std_floor) + eps with ddof 1. A weight on the
surrogate folds into the advantage, because min(r·A, clip(r)·A) is positively homogeneous in A.

    GRPO      DeepSeekMath, arXiv 2402.03300 §4.1     Dr. GRPO  arXiv 2503.20783 §3.2       RLOO
              arXiv 2402.14740
    REINFORCE++-baseline  arXiv 2501.03262            GDPO      arXiv 2601.05242            pass@k
                          arXiv 2508.10751
    DRA-GRPO  arXiv 2505.09655                        MUPO      arXiv 2604.00479 §4.2
"""

import math
from dataclasses import dataclass
from typing import Literal

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor
from torch.nn import functional as F

from franken.errors import UsageError
from trainer.clusters import constrained_kmeans, feasible_clusters, shuffled

EPS = 1e-6
STD_FLOOR = 1e-6

Scale = Literal["group", "batch", "none"]
Rewards = Float[Tensor, "prompts group"]
Embeddings = Float[Tensor, "prompts group dimensions"]


def grpo(
    rewards: Rewards, *, scale: Scale = "group", std_floor: float = STD_FLOOR, eps: float = EPS
) -> Rewards:
    """(R − group mean) / (std + eps), std of the group, of the whole batch, or none at all.

    A `std_floor` above the spread of a group keeps small differences small: they are divided by the
    floor instead.
    """
    rewards = _floating(rewards)
    centred = rewards - rewards.mean(1, keepdim=True)
    if scale == "none":
        advantages = centred
    elif scale in ("group", "batch"):
        std = _std(rewards, dim=1) if scale == "group" else _std(rewards.flatten()[None], dim=1)
        advantages = centred / (std.clamp(min=std_floor) + eps)
    else:
        raise UsageError(f"unknown scale {scale!r}", why="there are group, batch and none")
    return torch.where(_varies(rewards), advantages, torch.zeros_like(advantages))


def dr_grpo(rewards: Rewards) -> Rewards:
    """R − group mean, without division: questions are not weighed by their difficulty."""
    return grpo(rewards, scale="none")


def rloo(rewards: Rewards) -> Rewards:
    """R − mean of the others in the group."""
    group = rewards.shape[1]
    return grpo(rewards, scale="none") * (group / max(group - 1, 1))


def reinforce_baseline(rewards: Rewards, *, eps: float = EPS) -> Rewards:
    """REINFORCE++-baseline: R − group mean, then standardised over the whole batch."""
    return _standardise(grpo(rewards, scale="none"), eps)


def gdpo(
    rewards: Float[Tensor, "prompts group rewards"],
    weights: Float[Tensor, "rewards"] | None = None,
    *,
    std_floor: float = STD_FLOOR,
    eps: float = EPS,
) -> Rewards:
    """Each reward normalised inside its group on its own, then summed by weight and standardised
    over the batch.

    Rewards of different ranges keep their relative weight, which a sum before normalising would
    lose.
    """
    rewards = _floating(rewards)
    each = torch.stack([grpo(r, std_floor=std_floor, eps=eps) for r in rewards.unbind(-1)], -1)
    mixed = each.sum(-1) if weights is None else (each * weights.to(each)).sum(-1)
    return _standardise(mixed, eps)


def passk(correct: Bool[Tensor, "prompts group"], *, k: int = 4) -> Rewards:
    """Analytic advantages of pass@k training: a set of k responses succeeds if one of them does.

    With n responses, c right: ρ = 1 − C(n−c, k)/C(n, k), σ = √(ρ(1−ρ)); right (1 − ρ)/σ, wrong (1 −
    ρ − C(n−c−1, k−1)/C(n−1, k−1))/σ. Zero where every set succeeds or none does.
    """
    n = correct.shape[1]
    if not 1 <= k <= n:
        raise UsageError(f"pass@{k} needs a group of at least {k}", why=f"the group has {n}")
    right = correct.bool()
    table = torch.tensor([_passk_pair(n, c, k) for c in range(n + 1)], device=correct.device)
    chosen = table[right.sum(1)]
    return torch.where(right, chosen[:, :1], chosen[:, 1:])


def dra(
    rewards: Rewards, embeddings: Embeddings, *, std_floor: float = STD_FLOOR, eps: float = EPS
) -> Rewards:
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
    return grpo(
        _floating(rewards) / (1.0 + similarity).to(_floating(rewards)), std_floor=std_floor, eps=eps
    )


def grpo_diversity(
    rewards: Rewards,
    *,
    correct: Bool[Tensor, "prompts group"],
    embeddings: Embeddings,
    diversity_weight: float = 0.4,
    scale: Scale = "group",
    std_floor: float = STD_FLOOR,
    eps: float = EPS,
) -> Rewards:
    """GRPO on R + λ·1[correct]·(mean cosine distance to the others of the group): MUPO's reward
    without its clusters.
    """
    reward = pairwise_diversity(embeddings) * correct.to(embeddings.dtype)
    total = _floating(rewards) + diversity_weight * reward.to(_floating(rewards))
    return grpo(total, scale=scale, std_floor=std_floor, eps=eps)


@dataclass(frozen=True)
class Mupo:
    """What MUPO makes of a batch. `diversity` is what a response earned before its weight λ: 0 for
    wrong ones.

    `rewards` are the totals that were normalised inside the clusters; `weights` multiplied the
    result.
    """

    advantages: Rewards
    labels: Int[Tensor, "prompts group"]
    diversity: Rewards
    rewards: Rewards
    weights: Rewards


def mupo(
    rewards: Rewards,
    *,
    correct: Bool[Tensor, "prompts group"],
    embeddings: Embeddings,
    clusters: int = 3,
    min_size: int = 3,
    beta: float = 1.0,
    diversity_weight: float = 0.4,
    weighting: Literal["paper", "code", "none"] = "paper",
    seed: int = 0,
    partition: Literal["kmeans", "random"] = "kmeans",
    distance_scale: float = 1.0,
    mixing: Literal["add", "code"] = "add",
    scale: Literal["group", "none"] = "group",
    std_floor: float = STD_FLOOR,
    eps: float = EPS,
) -> Mupo:
    """Multi-group policy optimisation: advantages inside K clusters of like-minded responses,
    weighed by cluster size.

    Per prompt, the N responses are split by constrained k-means on their (unit) embeddings. R_div
    is the mean cosine distance to all responses of the other clusters, right or wrong; a correct
    response earns `diversity_weight`·R_div on top of its reward, a wrong one nothing; the sum is
    normalised inside its cluster. w_k = (N/(K·|G_k|))^beta.

    - `weighting="paper"` returns (N/(K·|G_k|))·w_k·A, so that the plain mean over a group's
      responses is the paper's
      Σ_k w_k/|G_k| Σ_i divided by K; `"code"`, as released, w_k·A; `"none"`, A.
    - Where N cannot fill K clusters of `min_size`, K falls to ⌊N/min_size⌋. One cluster has no
      diversity and is `grpo`.
    - `partition="random"` keeps the sizes that k-means finds and draws the members.
    - `mixing="code"` takes 0.1 + λ away from a correct response's reward of 1, as the release mixes
      its rewards
      (it assumes accuracy weighs 1 and format 0.1); `distance_scale=2` is the release's R_div.
    - Division by the spread makes λ cancel in a cluster whose responses are all correct; a larger
      `std_floor`, or
      `scale="none"`, keeps it.

    Clusters do not depend on the order of the responses; equal embeddings are told apart by their
    rewards.
    """
    rewards, correct = _floating(rewards), correct.bool()
    prompts, group = rewards.shape
    if correct.shape != rewards.shape or embeddings.shape[:2] != rewards.shape:
        raise UsageError(
            "rewards, correct and embeddings differ in shape",
            why=f"{tuple(rewards.shape)}, {tuple(correct.shape)}, {tuple(embeddings.shape)}",
        )
    if (
        weighting not in ("paper", "code", "none")
        or mixing not in ("add", "code")
        or scale not in ("group", "none")
    ):
        raise UsageError(
            "unknown option of mupo",
            why=f"weighting={weighting!r} mixing={mixing!r} scale={scale!r}",
        )
    count = feasible_clusters(group, clusters, min_size)
    units = F.normalize(_floating(embeddings), dim=-1)
    found = [
        _partition(units[b], rewards[b], correct[b], count, min_size, seed) for b in range(prompts)
    ]
    if partition == "random":
        found = [
            torch.from_numpy(shuffled(labels.numpy(), (seed, b))) for b, labels in enumerate(found)
        ]
    elif partition != "kmeans":
        raise UsageError(f"unknown partition {partition!r}", why="there are kmeans and random")
    labels = torch.stack(found).to(rewards.device)
    diversity = (distance_scale * cluster_diversity(units, labels)).to(rewards) * correct.to(
        rewards
    )
    total = rewards + diversity_weight * diversity
    if mixing == "code":
        total = total - (0.1 + diversity_weight) * correct.to(rewards)
    sizes = (labels[:, :, None] == labels[:, None, :]).sum(-1)
    balance = group / (count * sizes.to(rewards))
    exponent = {"paper": 1.0 + beta, "code": beta, "none": 0.0}[weighting]
    weights = balance**exponent
    inside = normalise_clusters(total, labels, scale=scale, std_floor=std_floor, eps=eps)
    return Mupo(inside * weights, labels, diversity, total, weights)


def normalise_clusters(
    rewards: Rewards,
    labels: Int[Tensor, "prompts group"],
    *,
    scale: Literal["group", "none"] = "group",
    std_floor: float = STD_FLOOR,
    eps: float = EPS,
) -> Rewards:
    """`grpo` inside each cluster on its own."""
    if int(labels.max()) == 0:
        return grpo(rewards, scale=scale, std_floor=std_floor, eps=eps)
    advantages = torch.zeros_like(rewards)
    for b in range(rewards.shape[0]):
        for k in labels[b].unique():
            members = labels[b] == k
            advantages[b, members] = grpo(
                rewards[b, members][None], scale=scale, std_floor=std_floor, eps=eps
            )[0]
    return advantages


def cosine_distances(embeddings: Embeddings) -> Float[Tensor, "prompts group group"]:
    """1 − cosine of every pair of a group's responses, in [0, 2], 0 on the diagonal."""
    units = F.normalize(_floating(embeddings), dim=-1)
    distances = (1.0 - units @ units.transpose(1, 2)).clamp(0.0, 2.0)
    return distances * (1.0 - torch.eye(units.shape[1], device=units.device, dtype=units.dtype))


def pairwise_diversity(embeddings: Embeddings) -> Rewards:
    """Mean cosine distance of each response to the others of its group; 0 for a group of one."""
    return cosine_distances(embeddings).sum(-1) / max(embeddings.shape[1] - 1, 1)


def cluster_diversity(embeddings: Embeddings, labels: Int[Tensor, "prompts group"]) -> Rewards:
    """Mean cosine distance of each response to all responses of the other clusters; 0 where there
    is one cluster.
    """
    distances = cosine_distances(embeddings)
    others = (labels[:, :, None] != labels[:, None, :]).to(distances)
    return (distances * others).sum(-1) / others.sum(-1).clamp(min=1.0)


def _partition(
    units: Tensor, rewards: Tensor, correct: Tensor, clusters: int, min_size: int, seed: int
) -> Tensor:
    if clusters == 1:
        return torch.zeros(len(units), dtype=torch.long)
    ties = torch.stack([rewards.double(), correct.double()], 1).detach().cpu().numpy()
    found = constrained_kmeans(
        units.detach().double().cpu().numpy(), clusters, min_size, seed=seed, ties=ties
    )
    return torch.from_numpy(found.labels)


def _passk_pair(n: int, c: int, k: int) -> tuple[float, float]:
    """The advantage of a right and of a wrong response when c of n are right."""
    rho = 1.0 - math.comb(n - c, k) / math.comb(n, k)
    sigma = math.sqrt(rho * (1.0 - rho))
    if sigma == 0.0:
        return 0.0, 0.0
    rest = math.comb(n - c - 1, k - 1) / math.comb(n - 1, k - 1)
    return (1.0 - rho) / sigma, (1.0 - rho - rest) / sigma


def _standardise(values: Rewards, eps: float) -> Rewards:
    """Over the whole batch. Groups that were zero before stay zero: there is nothing to prefer in
    them.
    """
    if values.numel() < 2:
        return torch.zeros_like(values)
    shifted = (values - values.mean()) / (values.std() + eps)
    return torch.where((values != 0).any(1, keepdim=True), shifted, torch.zeros_like(values))


def _std(rewards: Tensor, *, dim: int) -> Tensor:
    return (
        rewards.std(dim, keepdim=True)
        if rewards.shape[dim] > 1
        else torch.zeros_like(rewards[:, :1])
    )


def _varies(rewards: Rewards) -> Bool[Tensor, "prompts 1"]:
    """Whether a group has spread beyond rounding."""
    spread = rewards.amax(1, keepdim=True) - rewards.amin(1, keepdim=True)
    return (_std(rewards, dim=1) > STD_FLOOR) & (spread > 0)


def _floating(values: Tensor) -> Tensor:
    return values if values.is_floating_point() else values.float()
