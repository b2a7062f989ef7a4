"""Constrained k-means against enumeration and against k-means-constrained, which solves the same
flow problem.
"""

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from k_means_constrained import KMeansConstrained
from k_means_constrained.k_means_constrained_ import _labels_constrained

from franken.errors import UsageError
from trainer.clusters import (
    assign,
    constrained_kmeans,
    exchange,
    feasible_clusters,
    lloyd,
    shuffled,
)


@settings(max_examples=40, deadline=None)
@given(st.integers(4, 7), st.integers(1, 3), st.integers(1, 2), st.integers(0, 10**6))
def test_assignment_is_the_best_of_all_partitions(points, clusters, min_size, seed):
    if points < clusters * min_size:
        return
    squared = np.random.default_rng(seed).random((points, clusters))
    feasible = [
        sum(squared[i, k] for i, k in enumerate(labels))
        for labels in itertools.product(range(clusters), repeat=points)
        if min(np.bincount(labels, minlength=clusters)) >= min_size
    ]
    found = assign(squared, min_size)
    assert min(np.bincount(found, minlength=clusters)) >= min_size
    assert squared[np.arange(points), found].sum() == pytest.approx(min(feasible))


@pytest.mark.parametrize(
    ("points", "clusters", "min_size"), [(15, 3, 3), (12, 2, 4), (40, 5, 6), (9, 3, 3)]
)
def test_fixed_centres_give_the_labels_of_k_means_constrained(points, clusters, min_size):
    """Its costs are plain distances in thousandths; on those, both solve the same flow problem."""
    for seed in range(20):
        x = np.random.default_rng(seed).normal(size=(points, 8))
        centers = x[:clusters] + 0.1
        theirs, _ = _labels_constrained(x, centers, min_size, points, distances=np.zeros(points))
        costs = np.around(1000 * np.linalg.norm(x[:, None] - centers[None], axis=-1))
        ours = assign(costs, min_size)
        rows = np.arange(points)
        assert costs[rows, ours].sum() == costs[rows, theirs].sum()
        assert (ours == theirs).mean() > 0.99 or points > 30  # equal costs may tie


def test_clusters_are_as_tight_as_those_of_k_means_constrained():
    """Both find local optima, so the sums over twenty clouds of noise are compared."""
    clouds = [np.random.default_rng(seed).normal(size=(15, 6)) for seed in range(20)]
    theirs = sum(
        KMeansConstrained(3, size_min=3, random_state=0, n_init=10).fit(x).inertia_ for x in clouds
    )
    assert sum(constrained_kmeans(x, 3, 3).inertia for x in clouds) <= theirs * 1.005


def test_well_apart_clusters_are_found_as_k_means_constrained_finds_them():
    generator = np.random.default_rng(0)
    x = np.concatenate(
        [generator.normal(center, 0.1, size=(n, 4)) for center, n in ((0, 7), (3, 5), (-3, 3))]
    )
    theirs = KMeansConstrained(3, size_min=3, random_state=0).fit(x)
    ours = constrained_kmeans(x, 3, 3)
    assert len({*zip(ours.labels.tolist(), theirs.labels_.tolist(), strict=True)}) == 3
    assert ours.inertia == pytest.approx(theirs.inertia_)
    from_here = lloyd(x, x[[0, 8, 13]], 3)
    assert from_here.inertia == pytest.approx(ours.inertia)


@pytest.mark.parametrize("seed", range(40))
def test_small_clusterings_are_the_best_of_all_partitions(seed):
    """Lloyd's iteration from ten starts alone misses 4 of these 40."""
    generator = np.random.default_rng(seed)
    count = int(generator.integers(6, 10))
    clusters = int(generator.integers(2, 4))
    min_size = int(generator.integers(1, count // clusters + 1))
    x = generator.normal(size=(count, int(generator.integers(2, 6))))
    x /= np.linalg.norm(x, axis=1, keepdims=True)
    best = min(
        _inertia(x, np.array(labels))
        for labels in itertools.product(range(clusters), repeat=count)
        if min(np.bincount(labels, minlength=clusters)) >= min_size
    )
    clustering = constrained_kmeans(x, clusters, min_size)
    assert clustering.inertia == pytest.approx(best)
    assert clustering.inertia == pytest.approx(_inertia(x, clustering.labels))
    assert min(np.bincount(clustering.labels, minlength=clusters)) >= min_size


def test_an_exchange_leaves_an_optimum_that_no_single_move_leaves():
    x = np.array([[0.0], [1.0], [10.0], [11.0]])
    clustering = exchange(x, np.array([0, 1, 0, 1]), 2, 2)
    assert clustering.labels.tolist() in ([0, 0, 1, 1], [1, 1, 0, 0])
    assert clustering.inertia == pytest.approx(1.0)


def _inertia(x, labels):
    groups = (x[labels == k] for k in set(labels.tolist()))
    return sum(((group - group.mean(0)) ** 2).sum() for group in groups)


def test_the_order_of_the_points_does_not_matter():
    x = np.random.default_rng(0).normal(size=(15, 6))
    labels = constrained_kmeans(x, 3, 3).labels
    for seed in range(5):
        order = np.random.default_rng(seed).permutation(15)
        assert (constrained_kmeans(x[order], 3, 3).labels == labels[order]).all()


def test_paraphrases_still_fill_every_cluster():
    labels = constrained_kmeans(np.ones((10, 4)), 3, 3).labels
    assert min(np.bincount(labels)) >= 3
    assert len(np.bincount(labels)) == 3


def test_too_few_points():
    assert [feasible_clusters(n, 3, 3) for n in (15, 9, 8, 5, 2)] == [3, 3, 2, 1, 1]
    with pytest.raises(UsageError):
        assign(np.ones((5, 2)), 3)
    with pytest.raises(UsageError):
        feasible_clusters(5, 0, 3)


def test_the_random_control_keeps_the_sizes():
    labels = np.array([0] * 7 + [1] * 5 + [2] * 3)
    drawn = shuffled(labels, 1)
    assert (np.bincount(drawn) == np.bincount(labels)).all()
    assert (drawn != labels).any()
    assert (shuffled(labels, 1) == drawn).all()
