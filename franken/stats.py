"""Intervals and tests for rates and paired comparisons. numpy and scipy only.

Rates of independent samples get Wilson intervals. Several draws of one prompt are not independent,
so means over draws are bootstrapped over prompts. Comparisons are paired by prompt: McNemar's exact
test for one answer each, a sign-flip permutation test for means. Families of tests are corrected
after Holm.
"""

import math
from collections.abc import Sequence
from fractions import Fraction
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike

ALPHA = 0.05
"""The level of every test: an adjusted p below it is significant. Intervals are its complement."""


class Estimate(NamedTuple):
    """A value and its 95 % interval."""

    value: float
    low: float
    high: float


def wilson(successes: float, n: int, z: float = 1.959963984540054) -> tuple[float, float]:
    """Wilson score interval of a binomial rate (Wilson 1927). (nan, nan) for n = 0."""
    if n == 0:
        return math.nan, math.nan
    rate = successes / n
    centre = (rate + z**2 / (2 * n)) / (1 + z**2 / n)
    half = z / (1 + z**2 / n) * math.sqrt(rate * (1 - rate) / n + z**2 / (4 * n**2))
    low = (
        0.0 if successes == 0 else max(0.0, centre - half)
    )  # exact at the ends, where rounding would cross the rate
    high = 1.0 if successes == n else min(1.0, centre + half)
    return low, high


def mcnemar_exact(only_a: int, only_b: int) -> float:
    """Two-sided p that A and B succeed equally often, from the pairs in which just one of them
    does.
    """
    from scipy.stats import binomtest

    discordant = only_a + only_b
    return 1.0 if discordant == 0 else float(binomtest(only_a, discordant, 0.5).pvalue)


def holm(p_values: Sequence[float]) -> list[float]:
    """Holm's step-down adjusted p-values, in the given order. Missing ones (nan) stay missing and
    do not count.
    """
    p = np.asarray(p_values, float)
    adjusted = np.full(len(p), math.nan)
    known = np.flatnonzero(~np.isnan(p))
    order = known[np.argsort(p[known], kind="stable")]
    running = 0.0
    for rank, i in enumerate(order):
        running = max(running, min(1.0, (len(order) - rank) * p[i]))
        adjusted[i] = running
    return adjusted.tolist()


def acc_at_k(n: int, correct: int, k: int) -> float:
    """Unbiased probability that at least one of k draws is right, from n ≥ k draws: 1 − C(n−c,
    k)/C(n, k).
    """
    if k > n:
        raise ValueError(f"acc@{k} needs at least {k} draws, there are {n}")
    return 1.0 - math.comb(n - correct, k) / math.comb(n, k)


def maj_at_k(right: int, wrong: Sequence[int], silent: int, k: int) -> float:
    """Probability that the majority of k draws, taken from all without replacement, is right; ties
    are broken at random.

    `right` draws gave the right answer, `wrong` counts each wrong answer, `silent` draws gave none:
    they are drawn, but
    do not vote. Exact: for every number of right votes, the wrong answers are added one by one,
    each with at most as many votes, counting the ties.
    """
    n = right + sum(wrong) + silent
    if not 1 <= k <= n:
        raise ValueError(f"maj@{k} needs at least {max(k, 1)} draws, there are {n}")
    won = Fraction(0)
    for votes in range(1, min(right, k) + 1):
        ways = {
            (votes, 0): math.comb(right, votes)
        }  # (drawn so far, answers tied with the right one) → ways
        for count in wrong:
            ways = _add_answer(ways, count, votes, k)
        for (drawn, ties), number in ways.items():
            won += Fraction(number * math.comb(silent, k - drawn), 1 + ties)
    return float(won / math.comb(n, k))


def _add_answer(
    ways: dict[tuple[int, int], int], count: int, most: int, k: int
) -> dict[tuple[int, int], int]:
    longer: dict[tuple[int, int], int] = {}
    for (drawn, ties), number in ways.items():
        for votes in range(min(count, most, k - drawn) + 1):
            key = (drawn + votes, ties + (votes == most))
            longer[key] = longer.get(key, 0) + number * math.comb(count, votes)
    return longer


def bootstrap_mean(values: ArrayLike, *, n_boot: int = 2000, seed: int = 0) -> Estimate:
    """Mean over units (prompts) with a percentile bootstrap interval. All nan without values."""
    x = np.asarray(values, float)
    if len(x) == 0:
        return Estimate(math.nan, math.nan, math.nan)
    means = _resampled_means(x, n_boot, seed)
    return Estimate(float(x.mean()), *(float(q) for q in np.quantile(means, (0.025, 0.975))))


def paired_bootstrap(a: ArrayLike, b: ArrayLike, *, n_boot: int = 2000, seed: int = 0) -> Estimate:
    """Mean of a − b over paired units with a percentile bootstrap interval."""
    x, y = np.asarray(a, float), np.asarray(b, float)
    if x.shape != y.shape:
        raise ValueError(f"paired samples need equal shapes, got {x.shape} and {y.shape}")
    return bootstrap_mean(x - y, n_boot=n_boot, seed=seed)


def sign_flip_test(differences: ArrayLike, *, n_perm: int = 20000, seed: int = 0) -> float:
    """Two-sided permutation p that paired differences are symmetric about zero; never below
    1/(n_perm + 1).
    """
    d = np.asarray(differences, float)
    d = d[d != 0]
    if len(d) == 0:
        return 1.0
    rng = np.random.default_rng(seed)
    observed = abs(d.sum())
    extreme = 0
    for start in range(0, n_perm, 1000):
        signs = rng.integers(0, 2, (min(1000, n_perm - start), len(d))) * 2 - 1
        extreme += int((np.abs(signs @ d) >= observed - 1e-12).sum())
    return (extreme + 1) / (n_perm + 1)


def _resampled_means(x: np.ndarray, n_boot: int, seed: int) -> np.ndarray:
    rng = np.random.default_rng(seed)
    return np.concatenate(
        [
            x[rng.integers(0, len(x), (min(200, n_boot - i), len(x)))].mean(1)
            for i in range(0, n_boot, 200)
        ]
    )
