"""Clusters of at least a given size: constrained k-means (Bradley, Bennett & Demiriz,
MSR-TR-2000-65).

Lloyd's iteration whose assignment step is solved exactly. With centres fixed, "every cluster gets
at least m points, at the least total squared distance" is an assignment problem: each cluster owns
m seats that cost a point its distance to that centre, and the remaining N − K·m seats are free and
cost a point its distance to the nearest centre. No seat stays empty, so the minimum over matchings
is the minimum over feasible partitions. N is a group of responses, so `scipy`'s dense solver is
instant. Left out: maximum sizes, and anything for more than a few thousand points.

The package k-means-constrained, which MUPO's release uses, assigns by plain distances, not squared
ones, and rounds them to thousandths: with minimum sizes that is another optimum, and not the one
that averaging improves on.
"""

from typing import NamedTuple

import numpy as np
from jaxtyping import Float, Int
from numpy.typing import NDArray
from scipy.optimize import linear_sum_assignment

from franken.errors import UsageError

MAX_ITERATIONS = 100


class Clustering(NamedTuple):
    """`labels` of the points, `centers`, and `inertia`, the sum of squared distances to them."""

    labels: Int[NDArray[np.int64], "points"]
    centers: Float[NDArray[np.float64], "clusters dimensions"]
    inertia: float


def feasible_clusters(points: int, clusters: int, min_size: int) -> int:
    """The largest number of clusters up to `clusters` that `points` can fill with `min_size` each,
    but at least one.
    """
    if clusters < 1 or min_size < 1:
        raise UsageError(
            "clusters and min_size are at least 1", why=f"they are {clusters} and {min_size}"
        )
    return max(1, min(clusters, points // min_size))


def assign(
    costs: Float[NDArray[np.float64], "points clusters"], min_size: int
) -> Int[NDArray[np.int64], "points"]:
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
    points: Float[NDArray[np.floating], "points dimensions"],
    clusters: int,
    min_size: int,
    *,
    seed: int = 0,
    restarts: int = 10,
    ties: Float[NDArray[np.floating], "points keys"] | None = None,
) -> Clustering:
    """The best of `restarts` runs from k-means++ centres, all clusters of at least `min_size`
    points.

    The points are sorted before the first random draw (equal ones by `ties`), and labels count up
    in that order: the partition does not depend on the order in which the points come.
    """
    points = np.asarray(points, dtype=np.float64)
    keys = (
        points
        if ties is None
        else np.concatenate([points, np.asarray(ties, dtype=np.float64)], axis=1)
    )
    order = np.lexsort(keys.T[::-1])
    generator = np.random.default_rng(seed)
    starts = (_plus_plus(points[order], clusters, generator) for _ in range(restarts))
    best = min(
        (lloyd(points[order], start, min_size) for start in starts), key=lambda found: found.inertia
    )
    seen = list(dict.fromkeys(best.labels.tolist()))
    renamed = np.array([seen.index(label) for label in best.labels.tolist()])
    labels = np.empty(len(points), dtype=np.int64)
    labels[order] = renamed
    return Clustering(labels, best.centers[seen], best.inertia)


def lloyd(
    points: Float[NDArray[np.float64], "points dimensions"],
    centers: Float[NDArray[np.float64], "clusters dimensions"],
    min_size: int,
) -> Clustering:
    """Assign and average in turn from given centres until nothing gets nearer. `min_size` ≥ 1 keeps
    clusters alive.
    """
    inertia = np.inf
    labels = np.zeros(len(points), dtype=np.int64)
    for _ in range(MAX_ITERATIONS):
        squared = _squared_distances(points, centers)
        found = assign(squared, min_size)
        now = float(squared[np.arange(len(points)), found].sum())
        if now >= inertia - 1e-12:
            break
        labels, inertia = found, now
        centers = np.stack([points[labels == k].mean(0) for k in range(len(centers))])
    spread = _squared_distances(points, centers)[np.arange(len(points)), labels]
    return Clustering(labels, centers, float(spread.sum()))


def shuffled(
    labels: Int[NDArray[np.int64], "points"], seed: int | tuple[int, ...]
) -> Int[NDArray[np.int64], "points"]:
    """The same cluster sizes with members drawn at random: the control for what the clustering
    knows.
    """
    return np.random.default_rng(seed).permutation(labels)


def _plus_plus(
    points: NDArray[np.float64], clusters: int, generator: np.random.Generator
) -> NDArray[np.float64]:
    """k-means++ starts: each next centre is drawn with probability proportional to its squared
    distance from the chosen.
    """
    chosen = [int(generator.integers(len(points)))]
    while len(chosen) < clusters:
        squared = _squared_distances(points, points[chosen]).min(1)
        total = squared.sum()
        weights = squared / total if total > 0 else np.full(len(points), 1 / len(points))
        chosen.append(int(generator.choice(len(points), p=weights)))
    return points[chosen]


def _squared_distances(
    points: NDArray[np.float64], centers: NDArray[np.float64]
) -> NDArray[np.float64]:
    return ((points[:, None, :] - centers[None, :, :]) ** 2).sum(-1)
