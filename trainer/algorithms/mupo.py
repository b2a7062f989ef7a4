"""MUPO, multi-group policy optimisation (arXiv 2604.00479 §4.2): advantages inside clusters of
similar responses.
"""

from dataclasses import dataclass
from typing import Annotated, Literal

import torch
from jaxtyping import Int
from pydantic import Field
from torch import Tensor
from torch.nn import functional as F

from franken.errors import UsageError
from trainer.algorithms.diversity import Anneal, Weight, cosine_distances, diversity_metrics
from trainer.algorithms.groups import (
    ADVANTAGES,
    EPS,
    STD_FLOOR,
    Correct,
    Embeddings,
    Estimate,
    Groups,
    RewardParts,
    Rewards,
    StdFloor,
    floating,
)
from trainer.algorithms.grpo import grpo
from trainer.clusters import constrained_kmeans, feasible_clusters, shuffled

Weighting = Literal["paper", "code", "none"]
Partition = Literal["kmeans", "random"]
Mixing = Literal["add", "code"]
InsideScale = Literal["group", "none"]
ClusterLabels = Int[Tensor, "prompts group"]


@dataclass(frozen=True)
class Mupo:
    """MUPO's results for a batch. `diversity` is the reward of a response before its weight λ: 0
    for wrong ones.

    `rewards` are the totals that were normalised inside the clusters; `weights` multiplied the
    result.
    """

    advantages: Rewards
    labels: ClusterLabels
    diversity: Rewards
    rewards: Rewards
    weights: Rewards


def mupo(
    rewards: Rewards,
    *,
    correct: Correct,
    embeddings: Embeddings,
    clusters: int = 3,
    min_size: int = 3,
    beta: float = 1.0,
    diversity_weight: float = 0.4,
    weighting: Weighting = "paper",
    seed: int = 0,
    partition: Partition = "kmeans",
    distance_scale: float = 1.0,
    mixing: Mixing = "add",
    relative: bool = False,
    scale: InsideScale = "group",
    std_floor: float = STD_FLOOR,
    eps: float = EPS,
) -> Mupo:
    """Advantages inside K clusters of similar responses, weighted by cluster size.

    Per prompt, the N responses are split by constrained k-means on their (unit) embeddings. R_div
    is the mean cosine distance to all responses of the other clusters, right or wrong; a correct
    response earns `diversity_weight`·R_div on top of its reward, a wrong one nothing; the sum is
    normalised inside its cluster. w_k = (N/(K·|G_k|))^beta.

    - `weighting="paper"` returns (N/(K·|G_k|))·w_k·A, so that the plain mean over a group's
      responses is the paper's Σ_k w_k/|G_k| Σ_i divided by K; `"code"`, as released, w_k·A;
      `"none"`, A.
    - Where N cannot fill K clusters of `min_size`, K falls to ⌊N/min_size⌋. One cluster has no
      diversity and is `grpo`.
    - `partition="random"` keeps the cluster sizes of k-means and draws the members.
    - `mixing="code"` takes 0.1 + λ away from a correct response's reward of 1, as the release mixes
      its rewards (it assumes accuracy weighs 1 and format 0.1); `distance_scale=2` is the release's
      R_div.
    - `relative` multiplies λ by the spread (std, ddof 1) of the rewards inside the cluster: where
      all are right there is no diversity reward, elsewhere it is a share of that spread.
    - Division by the spread makes λ cancel in a cluster whose responses are all correct; a larger
      `std_floor`, or `scale="none"`, keeps it.

    Clusters do not depend on the order of the responses; equal embeddings are told apart by their
    rewards. Raises UsageError for inputs of different shapes and for unknown options.
    """
    rewards, correct = floating(rewards), correct.bool()
    group = rewards.shape[1]
    if correct.shape != rewards.shape or embeddings.shape[:2] != rewards.shape:
        raise UsageError(
            "rewards, correct and embeddings differ in shape",
            why=f"{tuple(rewards.shape)}, {tuple(correct.shape)}, {tuple(embeddings.shape)}",
        )
    if (
        weighting not in ("paper", "code", "none")
        or mixing not in ("add", "code")
        or scale not in ("group", "none")
        or partition not in ("kmeans", "random")
    ):
        raise UsageError(
            "unknown option of mupo",
            why=f"{weighting=} {mixing=} {scale=} {partition=}",
        )
    count = feasible_clusters(group, clusters, min_size)
    units = F.normalize(floating(embeddings), dim=-1)
    labels = _partitions(
        units, rewards, correct, count, min_size, seed, shuffle=partition == "random"
    )
    diversity = (distance_scale * cluster_diversity(units, labels)).to(rewards) * correct.to(
        rewards
    )
    if relative:
        diversity = diversity * cluster_spread(rewards, labels)
    total = rewards + diversity_weight * diversity
    if mixing == "code":
        total = total - (0.1 + diversity_weight) * correct.to(rewards)
    sizes = (labels[:, :, None] == labels[:, None, :]).sum(-1)
    balance = group / (count * sizes.to(rewards))
    weights = balance ** {"paper": 1.0 + beta, "code": beta, "none": 0.0}[weighting]
    inside = normalise_clusters(total, labels, scale=scale, std_floor=std_floor, eps=eps)
    return Mupo(inside * weights, labels, diversity, total, weights)


def normalise_clusters(
    rewards: Rewards,
    labels: ClusterLabels,
    *,
    scale: InsideScale = "group",
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


def cluster_spread(rewards: Rewards, labels: ClusterLabels) -> Rewards:
    """The std (ddof 1) of the rewards in each response's cluster; 0 in a cluster of one."""
    same = (labels[:, :, None] == labels[:, None, :]).to(rewards)
    count = same.sum(-1)
    mean = (same * rewards[:, None, :]).sum(-1) / count
    squares = (same * (rewards[:, None, :] - mean[:, :, None]) ** 2).sum(-1)
    return (squares / (count - 1).clamp(min=1)).sqrt()


def cluster_diversity(embeddings: Embeddings, labels: ClusterLabels) -> Rewards:
    """Mean cosine distance of each response to all responses of the other clusters; 0 where there
    is one cluster.
    """
    distances = cosine_distances(embeddings)
    others = (labels[:, :, None] != labels[:, None, :]).to(distances)
    return (distances * others).sum(-1) / others.sum(-1).clamp(min=1.0)


@ADVANTAGES.register("mupo", paper="arXiv 2604.00479 §4.2", reads=("texts", "correct"))
def _mupo(
    rewards: RewardParts,
    groups: Groups,
    *,
    clusters: Annotated[int, Field(ge=1, description="MUPO's K")] = 3,
    min_size: Annotated[
        int, Field(ge=1, description="MUPO's G_min; K falls to ⌊group/min_size⌋ where it must")
    ] = 3,
    beta: Annotated[
        float, Field(description="exponent of the load-balance weight (N/(K|G_k|))^beta")
    ] = 1.0,
    weighting: Annotated[
        Weighting,
        Field(
            description="paper: w_k/|G_k| per response; code: w_k, as released; none: equal weights"
        ),
    ] = "paper",
    partition: Annotated[
        Partition,
        Field(
            description="random: clusters of the same sizes with members drawn at random, a control"
        ),
    ] = "kmeans",
    distance_scale: Annotated[
        float, Field(gt=0, description="factor on R_div; the released code has 2")
    ] = 1.0,
    mixing: Annotated[
        Mixing,
        Field(
            description="code: the diversity reward is taken out of accuracy's weight, as released"
        ),
    ] = "add",
    relative: Annotated[
        bool, Field(description="λ counts in units of the reward's spread inside the cluster")
    ] = False,
    diversity: Weight = Anneal(),  # noqa: B008
    scale: Annotated[
        InsideScale, Field(description="divide by the std inside clusters, or not at all")
    ] = "group",
    std_floor: StdFloor = STD_FLOOR,
) -> Estimate:
    """GRPO inside clusters of similar responses, with a reward for differing from others."""
    total, embeddings = groups.total(rewards), groups.embed()

    def at(weight: float) -> Mupo:
        return mupo(
            total,
            correct=groups.correct,
            embeddings=embeddings,
            clusters=clusters,
            min_size=min_size,
            beta=beta,
            diversity_weight=weight,
            weighting=weighting,
            seed=groups.seed + groups.step,
            partition=partition,
            distance_scale=distance_scale,
            mixing=mixing,
            relative=relative,
            scale=scale,
            std_floor=std_floor,
        )

    weight = diversity.at(groups.step, groups.progress)
    result = at(weight)
    without = result if weight == 0 else at(0.0)
    members = [
        row[labels == k]
        for row, labels in zip(result.advantages, result.labels, strict=True)
        for k in labels.unique()
    ]
    sizes = [len(cluster) for cluster in members]
    metrics = {
        "clusters": len(members) / len(total),
        "cluster_size_min": float(min(sizes)),
        "cluster_size_max": float(max(sizes)),
        "zero_variance_clusters": sum(bool((c == 0).all()) for c in members) / len(members),
        **diversity_metrics(
            result.advantages, without.advantages, result.diversity, groups, weight
        ),
    }
    return Estimate(result.advantages, metrics)


def _partitions(
    units: Embeddings,
    rewards: Rewards,
    correct: Correct,
    clusters: int,
    min_size: int,
    seed: int,
    *,
    shuffle: bool,
) -> ClusterLabels:
    """The cluster of every response, by prompt; with `shuffle`, of the same sizes at random."""
    labels = []
    for b in range(len(units)):
        if clusters == 1:
            own = torch.zeros(units.shape[1], dtype=torch.long).numpy()
        else:
            ties = torch.stack([rewards[b].double(), correct[b].double()], 1).detach().cpu().numpy()
            points = units[b].detach().double().cpu().numpy()
            own = constrained_kmeans(points, clusters, min_size, seed=seed, ties=ties).labels
        labels.append(torch.from_numpy(shuffled(own, (seed, b)) if shuffle else own))
    return torch.stack(labels).to(rewards.device)
