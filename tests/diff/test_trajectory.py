"""Paths through weight space against naive numpy, closed forms and planted lines."""

import numpy as np
import pytest
import torch

from franken.diff.steps import combined, step_products
from franken.diff.trajectory import Way, cosine_of_ends, measures, ways_of
from franken.errors import FrankenError


def path_of(start, weights, updates):
    steps: np.ndarray = np.diff(np.array([start, *weights]), axis=0).reshape(len(weights), -1)
    return Way(tuple(updates), steps @ steps.T)


def walk(n=6, size=(7, 5), seed=0):
    rng = np.random.default_rng(seed)
    start = rng.normal(size=size)
    return start, start + np.cumsum(rng.normal(size=(n, *size)), axis=0)


def test_the_measures_are_those_of_the_stacked_updates():
    start, weights = walk()
    updates = [3, 5, 9, 20, 30, 31]
    path = path_of(start, weights, updates)
    stacked = (weights - start).reshape(6, -1)
    u, sigma, vt = np.linalg.svd(stacked.T, full_matrices=False)
    found = measures(path)
    np.testing.assert_allclose(path.distances, np.linalg.norm(stacked, axis=1))
    naive = [[a @ b / np.linalg.norm(a) / np.linalg.norm(b) for b in stacked] for a in stacked]
    np.testing.assert_allclose(path.cosines, naive)
    length = sum(np.linalg.norm(b - a) for a, b in zip([start, *weights], weights, strict=False))
    assert found.path_length == pytest.approx(length)
    assert found.straightness == pytest.approx(np.linalg.norm(stacked[-1]) / length)
    assert found.rank_one_share == pytest.approx(sigma[0] ** 2 / (sigma**2).sum())
    first = u[:, 0] * np.sign(stacked[-1] @ u[:, 0])
    np.testing.assert_allclose(path.coefficients(), stacked @ first)
    line = np.polyfit([0, *updates], [0, *(stacked @ first)], 1)
    r2 = np.corrcoef([0, *updates], [0, *(stacked @ first)])[0, 1] ** 2
    assert (path.line().slope, path.line().intercept) == pytest.approx(tuple(line))
    assert found.linearity == pytest.approx(r2)


def test_a_straight_run_is_straight_and_an_orthogonal_walk_is_its_own_null():
    rng = np.random.default_rng(1)
    start, direction = rng.normal(size=(2, 4, 6))
    updates = [10, 20, 40, 80]
    straight = measures(path_of(start, [start + t * direction for t in updates], updates))
    assert straight.straightness == pytest.approx(1, abs=1e-12)
    assert straight.rank_one_share == pytest.approx(1, abs=1e-12)
    assert straight.linearity == pytest.approx(1, abs=1e-12)
    assert straight.half_change == pytest.approx(40)
    assert (straight.straightness_null or 1) < 0.8
    n = 400
    even = measures(Way(tuple(range(1, n + 1)), np.eye(n)))
    assert even[2:6] == even[6:]
    assert even.straightness == pytest.approx(1 / np.sqrt(n))
    assert even.rank_one_share == pytest.approx(8 / np.pi**2, abs=1e-3)
    assert even.half_change == pytest.approx(n / 4, abs=1)
    quarter = np.sin(np.linspace(0, np.pi / 2, n + 1))  # Brownian motion's first mode
    r2 = np.corrcoef(np.arange(n + 1), quarter)[0, 1] ** 2
    assert even.linearity == pytest.approx(r2, abs=1e-3)


def test_half_of_the_change_is_found_between_checkpoints():
    one = np.ones((1, 1))
    path = path_of(0 * one, [one, 3 * one, 8 * one], [10, 20, 30])
    assert path.half() == pytest.approx(22)
    assert path_of(0 * one, [8 * one], [10]).half() == pytest.approx(5)
    beyond = path_of(0 * one, [6 * one, 4 * one], [10, 20])  # there, and back a third of the way
    assert beyond.half() == pytest.approx(10 / 3)
    still = measures(path_of(one, [one, one], [1, 2]))
    assert still.distance == 0
    assert set(still[2:]) == {None}


@pytest.mark.parametrize("rank", [1, 2, 5])
def test_weights_make_the_projection_on_the_first_directions(rank):
    start, weights = walk(5)
    path = path_of(start, weights, [1, 2, 3, 4, 5])
    stacked = (weights - start).reshape(5, -1)
    u = np.linalg.svd(stacked.T, full_matrices=False)[0][:, :rank]
    kept = path.weights(3, rank=rank, fitted=False) @ stacked
    np.testing.assert_allclose(kept, u @ (u.T @ stacked[2]), atol=1e-10)
    if rank == 5:  # full rank is the checkpoint
        np.testing.assert_allclose(kept, stacked[2], atol=1e-10)
    with pytest.raises(FrankenError, match="no checkpoint after update 7"):
        path.weights(7, fitted=False)


def test_a_planted_line_is_extended_exactly():
    rng = np.random.default_rng(3)
    start, direction = rng.normal(size=(2, 3, 8))
    updates = [10, 20, 30]
    weights = [start + t * direction for t in updates]
    path = path_of(start, weights, updates)
    stacked = (np.array(weights) - start).reshape(3, -1)
    for goal in (5, 30, 300):
        made = path.weights(goal) @ stacked
        np.testing.assert_allclose(made, goal * direction.ravel(), rtol=1e-10)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_streamed_products_are_those_of_numpy_in_every_type(stored, monkeypatch, dtype):
    monkeypatch.setattr("franken.diff.steps.BUDGET", 64)  # several stretches, the last one shorter
    monkeypatch.setattr("franken.diff.steps.LEAST", 8)
    start, weights = walk(5, (9, 11))
    first, *rest = stored(start, *weights, dtype=dtype)
    arrays = [v.floats(0, v.size).astype(np.float64) for v in (first, *rest)]
    runs = [rest[:3], rest[3:]]
    products, squares = step_products(first, runs)
    chains = [[arrays[0], *arrays[1:4]], [arrays[0], *arrays[4:]]]
    steps = np.concatenate([np.diff(chain, axis=0) for chain in chains])
    np.testing.assert_allclose(products, steps @ steps.T, rtol=1e-12, atol=1e-12)
    assert squares == pytest.approx((arrays[0] ** 2).sum(), rel=1e-12)
    made = combined(first, rest[:2], np.array([0.5, -2.0]))
    naive = arrays[0] + 0.5 * (arrays[1] - arrays[0]) - 2 * (arrays[2] - arrays[0])
    np.testing.assert_allclose(made, naive, rtol=1e-12)


def test_runs_lie_side_by_side_in_one_matrix_of_products():
    start, one = walk(3)
    other = start - 2 * (one[:2] - start)
    steps = [np.diff([start, *run], axis=0).reshape(len(run), -1) for run in (one, other)]
    joined = np.concatenate(steps)
    products = joined @ joined.T
    (a, b), places = ways_of(products, [[1, 2, 3], [1, 2]])
    assert (a.updates, b.updates) == ((1, 2, 3), (1, 2))
    np.testing.assert_allclose(b.distances, 2 * a.distances[:2])
    first, second = (one[2] - start).ravel(), (other[1] - start).ravel()
    naive = first @ second / np.linalg.norm(first) / np.linalg.norm(second)
    assert cosine_of_ends(products, *places) == pytest.approx(naive)
