"""Statistics against closed forms, enumeration and simulation."""

import itertools
import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats as reference

from franken.stats import (
    acc_at_k,
    bootstrap_mean,
    holm,
    mcnemar_exact,
    paired_bootstrap,
    sign_flip_test,
    wilson,
)


@given(st.integers(1, 300), st.data())
def test_wilson_equals_scipy(n, data):
    successes = data.draw(st.integers(0, n))
    expected = reference.binomtest(successes, n).proportion_ci(method="wilson")
    assert wilson(successes, n) == pytest.approx((expected.low, expected.high), abs=1e-9)


def test_wilson_of_nothing_is_nothing():
    assert all(math.isnan(x) for x in wilson(0, 0))


@pytest.mark.parametrize(("n", "correct"), [(5, 2), (6, 0), (6, 6), (4, 1)])
def test_acc_at_k_equals_enumeration(n, correct):
    draws = [1] * correct + [0] * (n - correct)
    for k in range(1, n + 1):
        subsets = list(itertools.combinations(draws, k))
        assert acc_at_k(n, correct, k) == pytest.approx(sum(any(s) for s in subsets) / len(subsets))


def test_acc_at_more_than_n_is_refused():
    with pytest.raises(ValueError, match="needs at least"):
        acc_at_k(4, 1, 5)


@pytest.mark.parametrize(("a", "b"), [(0, 0), (5, 0), (3, 8), (10, 10)])
def test_mcnemar_is_a_sign_test(a, b):
    n, small = a + b, min(a, b)
    tail = sum(math.comb(n, i) for i in range(small + 1)) / 2**n if n else 1.0
    assert mcnemar_exact(a, b) == pytest.approx(min(1.0, 2 * tail))


@given(st.lists(st.floats(0, 1), min_size=1, max_size=8))
def test_holm_equals_the_definition(p):
    order = sorted(range(len(p)), key=lambda i: p[i])
    expected = [0.0] * len(p)
    for rank, i in enumerate(order):
        expected[i] = max(min(1.0, (len(p) - j) * p[order[j]]) for j in range(rank + 1))
    assert holm(p) == pytest.approx(expected)


def test_holm_leaves_missing_tests_out():
    adjusted = holm([0.01, math.nan, 0.04])
    assert adjusted[0] == pytest.approx(0.02)
    assert math.isnan(adjusted[1])


def test_bootstrap_interval_covers():
    rng = np.random.default_rng(0)
    hits = sum(
        low <= 0.3 <= high
        for low, high in (
            bootstrap_mean(rng.random(60) < 0.3, n_boot=400, seed=i)[1:] for i in range(200)
        )
    )
    assert 0.88 <= hits / 200 <= 0.99


def test_paired_bootstrap_is_about_differences():
    rng = np.random.default_rng(1)
    noise = rng.normal(0, 5, 200)
    estimate = paired_bootstrap(noise + 1, noise)
    assert estimate == pytest.approx((1.0, 1.0, 1.0))
    with pytest.raises(ValueError, match="equal shapes"):
        paired_bootstrap([1.0], [1.0, 2.0])


def test_sign_flip_equals_enumeration():
    d = np.array([1.0, 2.0, -0.5, 3.0, 1.5, 0.0])
    flips = [abs(np.dot(s, d)) >= abs(d.sum()) for s in itertools.product([-1, 1], repeat=len(d))]
    assert sign_flip_test(d, n_perm=40000) == pytest.approx(np.mean(flips), abs=0.01)
    assert sign_flip_test([0.0, 0.0]) == 1.0
