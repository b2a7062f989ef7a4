"""Singular values and subspaces against SVDs in float64, closed forms and simulation."""

import numpy as np
import pytest

from franken.diff import spectra, subspaces
from franken.diff.spectra import RESOLUTION, singular_values, spectrum


def matrix(shape, sigma, seed=0):
    rng = np.random.default_rng(seed)
    k = len(sigma)
    left, right = (np.linalg.qr(rng.normal(size=(n, k)))[0] for n in shape)
    return (left * sigma) @ right.T


@pytest.mark.parametrize("shape", [(60, 60), (20, 70), (70, 20), (8, 3, 2, 2)])
def test_singular_values_equal_an_svd_in_float64(stored, shape, monkeypatch):
    monkeypatch.setattr(spectra, "BLOCK", 300)
    a, b = np.random.default_rng(1).normal(size=(2, *shape)).astype(np.float32)
    expected = np.linalg.svd((b - a).reshape(shape[0], -1).astype(np.float64), compute_uv=False)
    assert singular_values(*stored(a, b)) == pytest.approx(expected, rel=1e-9)


def test_accuracy_over_six_decades(stored):
    """Down to 1e-6 of the largest, as a float32 SVD is not; what is below the resolution is zero,
    not noise.
    """
    sigma = np.logspace(0, -6, 40)
    delta = matrix((80, 50), sigma)
    found = singular_values(*stored(np.zeros_like(delta), delta))
    stored_delta = delta.astype(np.float32).astype(np.float64)
    exact = np.linalg.svd(stored_delta, compute_uv=False)
    assert found[:40] == pytest.approx(exact[:40], rel=2e-4)
    low_rank = np.outer(np.arange(1, 9), np.arange(1, 7)).astype(np.float32)
    found = singular_values(*stored(np.zeros_like(low_rank), low_rank))
    assert (found[1:] == 0).all()
    assert found[0] == pytest.approx(np.linalg.norm(low_rank))
    assert RESOLUTION < 1e-6


def test_closed_forms():
    equal = spectrum(np.array([2.0] * 5), topk=3)
    assert equal._asdict() == {
        "spectral_norm": 2.0,
        "nuclear_norm": 10.0,
        "stable_rank": 5.0,
        "effective_rank": pytest.approx(5.0),
        "numerical_rank": 5.0,
        "condition_number": 1.0,
        "log_volume": pytest.approx(3 * np.log(2)),
        "topk_energy": pytest.approx(0.6),
    }
    single = spectrum(np.array([3.0, 0.0, 0.0]), topk=2)
    assert single.effective_rank == 1.0
    assert single.stable_rank == 1.0
    assert single.condition_number is None
    assert single.log_volume is None
    halves = spectrum(np.array([1.0, 0.5, 0.25]))
    shares = np.array([4, 2, 1]) / 7
    assert halves.effective_rank == pytest.approx(np.exp(-(shares * np.log(shares)).sum()))
    assert halves.stable_rank == pytest.approx(1 + 1 / 4 + 1 / 16)
    assert halves.condition_number == 4.0


def test_a_frozen_matrix_has_no_spectrum(stored):
    a = np.ones((4, 6), np.float32)
    assert spectrum(singular_values(*stored(a, a))) == spectra.Spectrum()


@pytest.mark.gpu
def test_the_gpu_agrees(stored):
    a, b = np.random.default_rng(1).normal(size=(2, 300, 800)).astype(np.float32)
    assert singular_values(*stored(a, b), "cuda") == pytest.approx(
        singular_values(*stored(a, b)), rel=1e-9
    )


@pytest.mark.parametrize("shape", [(90, 40), (40, 90)])
def test_directions_equal_the_svds(stored, shape, monkeypatch):
    monkeypatch.setattr(spectra, "BLOCK", 500)
    delta = matrix(shape, np.array([5.0, 3.0, 2.0, 1.0])) + 1e-3 * np.random.default_rng(3).normal(
        size=shape
    )
    left, right = subspaces.directions(*stored(np.zeros_like(delta), delta), 3)
    u, _, vt = np.linalg.svd(delta.astype(np.float32).astype(np.float64), full_matrices=False)
    assert np.abs((left * u[:, :3]).sum(0)) == pytest.approx(np.ones(3), abs=1e-7)
    assert np.abs((right * vt[:3].T).sum(0)) == pytest.approx(np.ones(3), abs=1e-7)


def test_overlaps_of_planted_subspaces(stored):
    """Updates that share 2 of 4 left directions and none on the right; the same update; a zero
    update.
    """
    q = np.linalg.qr(np.random.default_rng(5).normal(size=(30, 30)))[0]
    p = np.linalg.qr(np.random.default_rng(6).normal(size=(50, 50)))[0]
    one = q[:, :4] @ p[:, :4].T
    two = q[:, 2:6] @ p[:, 10:14].T
    zero = np.zeros_like(one)
    first, second = (subspaces.directions(*stored(zero, m), 4) for m in (one, two))
    found = subspaces.overlaps(first, second)
    assert found.left_overlap == pytest.approx(0.5, abs=1e-5)
    assert found.right_overlap == pytest.approx(0.0, abs=1e-5)
    assert found.left_angles == pytest.approx([0, 0, 90, 90], abs=0.1)
    assert found.left_overlap_random == 4 / 30
    assert found.right_overlap_random == 4 / 50
    assert found.left_overlap_z > 3 > -1 > found.right_overlap_z
    assert subspaces.overlaps(first, first).right_overlap == pytest.approx(1.0)
    nothing = subspaces.overlaps(first, subspaces.directions(*stored(zero, zero), 4))
    assert set(nothing) == {None}


def test_a_low_rank_update_has_only_its_own_directions(stored):
    delta = np.outer(np.arange(1, 9), np.arange(1, 7))
    left, right = subspaces.directions(*stored(np.zeros(delta.shape), delta.astype(np.float32)), 5)
    assert (left.shape, right.shape) == ((8, 1), (6, 1))


@pytest.mark.parametrize(("n", "k"), [(2, 1), (12, 3), (40, 8)])
def test_chance_overlap_equals_simulation(n, k):
    rng = np.random.default_rng(7)
    frames = np.linalg.qr(rng.normal(size=(2, 4000, n, k)))[0]
    drawn = (np.einsum("snk,snl->skl", frames[0], frames[1]) ** 2).sum((1, 2)) / k
    mean, deviation = subspaces.random_overlap(n, k)
    assert drawn.mean() == pytest.approx(mean, abs=4 * deviation / 4000**0.5)
    assert drawn.std() == pytest.approx(deviation, rel=0.08)
