"""Clusters of at least a given size: constrained k-means (Bradley, Bennett & Demiriz,
MSR-TR-2000-65), with an exchange step.

Lloyd's iteration, whose assignment step is solved exactly. With the centers fixed, "every cluster
gets at least m points, at the least total squared distance" is an assignment problem: each cluster
has m seats, a seat costs a point its squared distance to that center, and the remaining N − K·m
seats cost a point its squared distance to the nearest center. All seats are taken, so that the
cheapest matching is the cheapest feasible partition. Lloyd's iteration stops at local optima that
moving or exchanging single points would leave (Hartigan & Wong 1979, AS 136), so that is done next.
N is the number of responses to one prompt: dense matrices are fast enough. Left out: maximum sizes,
and more than a few thousand points.

The package k-means-constrained, which MUPO's release uses, assigns by plain instead of squared
distances, rounded to thousandths: with minimum sizes that has another optimum, and not the one that
averaging improves.
"""

from typing import NamedTuple

import numpy as np
from jaxtyping import Float, Int
from scipy.optimize import linear_sum_assignment

from franken.errors import UsageError

MAX_ITERATIONS = 100
RESTARTS = 10  # from different centers
TOLERANCE = 1e-12  # what a step must gain to be taken

Labels = Int[np.ndarray, "points"]
Points = Float[np.ndarray, "points dimensions"]
Centers = Float[np.ndarray, "clusters dimensions"]


class Clustering(NamedTuple):
    """`labels` of the points, `centers`, and `inertia`, the sum of squared distances to them."""

    labels: Labels
    centers: Centers
    inertia: float


def feasible_clusters(points: int, clusters: int, min_size: int) -> int:
    """The largest number of clusters, at most `clusters` and at least one, that `points` can fill
    with `min_size` each.
    """
    if clusters < 1 or min_size < 1:
        raise UsageError(
            "clusters and min_size are at least 1", why=f"they are {clusters} and {min_size}"
        )
    return max(1, min(clusters, points // min_size))


def assign(costs: Float[np.ndarray, "points clusters"], min_size: int) -> Labels:
    """The labels of least total cost that give every cluster at least `min_size` points.

    Raises UsageError if there are too few points.
    """
    points, clusters = costs.shape
    if points < clusters * min_size:
        raise UsageError(
            f"{points} points cannot fill {clusters} clusters of {min_size}",
            why="there are too few",
        )
    nearest = costs.argmin(1)
    free = np.repeat(costs.min(1)[:, None], points - clusters * min_size, axis=1)
    seats = np.concatenate([np.repeat(costs, min_size, axis=1), free], axis=1)
    _, seat = linear_sum_assignment(seats)
    return np.where(seat < clusters * min_size, seat // min_size, nearest)


def constrained_kmeans(
    points: Points,
    clusters: int,
    min_size: int,
    *,
    seed: int = 0,
    ties: Float[np.ndarray, "points keys"] | None = None,
) -> Clustering:
    """The best of RESTARTS runs from k-means++ centers; every cluster has at least `min_size`
    points.

    The points are sorted before the first random draw (equal ones by `ties`), and labels count up
    in that order: the partition does not depend on the order in which the points come.
    """
    points = np.asarray(points, dtype=np.float64)
    keys = points if ties is None else np.concatenate([points, np.asarray(ties, float)], axis=1)
    order = np.lexsort(keys.T[::-1])
    generator = np.random.default_rng(seed)
    runs = []
    for _ in range(RESTARTS):
        local = lloyd(points[order], _plus_plus(points[order], clusters, generator), min_size)
        runs.append(exchange(points[order], local.labels, clusters, min_size))
    best = min(runs, key=lambda run: run.inertia)
    first_seen = list(dict.fromkeys(best.labels.tolist()))
    labels = np.empty(len(points), dtype=np.int64)
    labels[order] = [first_seen.index(label) for label in best.labels.tolist()]
    return Clustering(labels, best.centers[first_seen], best.inertia)


def lloyd(points: Points, centers: Centers, min_size: int) -> Clustering:
    """Assign and average in turn from given centers until nothing gets nearer. `min_size` ≥ 1 keeps
    clusters alive.
    """
    inertia = np.inf
    labels = np.zeros(len(points), dtype=np.int64)
    for _ in range(MAX_ITERATIONS):
        squared = _squared_distances(points, centers)
        proposed = assign(squared, min_size)
        total = float(squared[np.arange(len(points)), proposed].sum())
        if total >= inertia - TOLERANCE:
            break
        labels, inertia = proposed, total
        centers = _means(points, labels, len(centers))
    return _clustering(points, labels, len(centers))


def exchange(points: Points, labels: Labels, clusters: int, min_size: int) -> Clustering:
    """Move the point, or exchange the two points, that lowers the inertia most, until none does.

    With n_k points of sum S_k in cluster k, the inertia is Σ‖x‖² − Σ_k ‖S_k‖²/n_k, so that every
    move and every exchange is weighed exactly, in O(N² + N·K).
    """
    labels = labels.copy()
    rows = np.arange(len(points))
    pairwise = _squared_distances(points, points)
    for _ in range(MAX_ITERATIONS):
        member = np.eye(clusters)[labels]
        sizes, sums = member.sum(0), member.T @ points
        to_center = _squared_distances(points, sums / sizes[:, None])
        own = sizes[labels]
        leave = own / np.maximum(own - 1, 1) * to_center[rows, labels]
        move = sizes / (sizes + 1) * to_center - leave[:, None]
        move[own <= min_size] = np.inf
        move[rows, labels] = 0.0
        own_sums = sums[labels]
        towards = own_sums @ points.T - (own_sums * points).sum(1, keepdims=True)  # S_a·(x_j − x_i)
        replace = -(2 * towards + pairwise) / own[:, None]  # x_i by x_j in the cluster of i
        swap = replace + replace.T
        swap[labels[:, None] == labels[None, :]] = 0.0
        if min(move.min(), swap.min()) >= -TOLERANCE:
            break
        if move.min() <= swap.min():
            point, target = np.unravel_index(move.argmin(), move.shape)
            labels[point] = target
        else:
            pair = np.array(np.unravel_index(swap.argmin(), swap.shape))
            labels[pair] = labels[pair[::-1]]
    return _clustering(points, labels, clusters)


def shuffled(labels: Labels, seed: int | tuple[int, ...]) -> Labels:
    """The same cluster sizes with members drawn at random: the control for what the clustering
    knows.
    """
    return np.random.default_rng(seed).permutation(labels)


def _plus_plus(points: Points, clusters: int, generator: np.random.Generator) -> Centers:
    """k-means++ starts: each next center is drawn with probability proportional to its squared
    distance from the nearest one so far.
    """
    chosen = [int(generator.integers(len(points)))]
    while len(chosen) < clusters:
        squared = _squared_distances(points, points[chosen]).min(1)
        total = squared.sum()
        weights = squared / total if total > 0 else np.full(len(points), 1 / len(points))
        chosen.append(int(generator.choice(len(points), p=weights)))
    return points[chosen]


def _clustering(points: Points, labels: Labels, clusters: int) -> Clustering:
    centers = _means(points, labels, clusters)
    squared = _squared_distances(points, centers)[np.arange(len(points)), labels]
    return Clustering(labels, centers, float(squared.sum()))


def _means(points: Points, labels: Labels, clusters: int) -> Centers:
    return np.stack([points[labels == k].mean(0) for k in range(clusters)])


def _squared_distances(points: Points, centers: Centers) -> Float[np.ndarray, "points clusters"]:
    return ((points[:, None, :] - centers[None, :, :]) ** 2).sum(-1)
