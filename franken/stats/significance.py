"""p-values and their correction: exact wherever the cases can be counted, else drawn with a
seed.
"""

import math
from collections.abc import Sequence
from itertools import combinations, permutations

import numpy as np
from numpy.typing import ArrayLike
from scipy.special import bdtr
from scipy.stats import rankdata

ALPHA = 0.05  # the significance level of every verdict, mark and sentence
BLOCK = 1000  # resamples that are held in memory at once
SLACK = 1e-12  # statistics that differ by less are equal: sums depend on the order of summation


def mcnemar_exact(only_a: int, only_b: int) -> float:
    """Two-sided p that A and B succeed equally often, from the pairs in which just one of them
    does: a sign test (McNemar 1947).
    """
    return min(1.0, 2 * float(bdtr(min(only_a, only_b), only_a + only_b, 0.5)))


def sign_flip_test(differences: ArrayLike, *, n_perm: int = 20_000, seed: int = 0) -> float:
    """Two-sided permutation p that paired differences are symmetric about zero.

    Pairs that do not differ say nothing and are left out. Exact where all sign patterns of the
    others are at most `n_perm`; else drawn, and never below 1 / (n_perm + 1) (Phipson & Smyth
    2010).
    """
    values = np.asarray(differences, float)
    values = values[values != 0]
    observed = abs(values.sum()) - SLACK
    if 2 ** len(values) <= n_perm:
        patterns = np.arange(2 ** len(values))[:, None] >> np.arange(len(values)) & 1
        return float((np.abs((2 * patterns - 1) @ values) >= observed).mean())
    rng = np.random.default_rng(seed)
    extreme = 0
    for size in _blocks(n_perm):
        signs = 2 * rng.integers(0, 2, (size, len(values))) - 1
        extreme += int((np.abs(signs @ values) >= observed).sum())
    return (extreme + 1) / (n_perm + 1)


def permutation_test(
    a: ArrayLike, b: ArrayLike, *, greater: bool = False, n_perm: int = 20_000, seed: int = 0
) -> float:
    """p that two independent samples come from one distribution, by the difference of their means.

    Two-sided, or against `mean(b) > mean(a)`. Exact where the ways to choose `a` from all values
    are at most `n_perm`; else drawn, and never below 1 / (n_perm + 1). 1.0 where a sample is empty.
    """
    a, b = np.asarray(a, float), np.asarray(b, float)
    if not len(a) or not len(b):
        return 1.0
    pool = np.concatenate([a, b])

    def statistic(sums_of_a: np.ndarray) -> np.ndarray:
        gaps = (pool.sum() - sums_of_a) / len(b) - sums_of_a / len(a)
        return gaps if greater else np.abs(gaps)

    observed = statistic(np.array([a.sum()]))[0] - SLACK
    if math.comb(len(pool), len(a)) <= n_perm:
        chosen = np.array(list(combinations(range(len(pool)), len(a))))
        return float((statistic(pool[chosen].sum(1)) >= observed).mean())
    rng = np.random.default_rng(seed)
    extreme = 0
    for size in _blocks(n_perm):
        shuffled = rng.permuted(np.tile(pool, (size, 1)), axis=1)
        extreme += int((statistic(shuffled[:, : len(a)].sum(1)) >= observed).sum())
    return (extreme + 1) / (n_perm + 1)


def rank_test(x: ArrayLike, y: ArrayLike, *, n_perm: int = 50_000, seed: int = 0) -> float:
    """Two-sided permutation p of Spearman's correlation of x and y [n].

    Exact where all orders of y are at most `n_perm`; else drawn, and never below 1 / (n_perm + 1).
    1.0 where one of them does not vary.
    """
    one, other = (rankdata(side) for side in (x, y))
    one, other = one - one.mean(), other - other.mean()
    observed = abs(float(one @ other)) - SLACK
    if not one.any() or not other.any():
        return 1.0
    if math.factorial(len(other)) <= n_perm:
        orders = np.array(list(permutations(other)))
        return float((np.abs(orders @ one) >= observed).mean())
    rng = np.random.default_rng(seed)
    extreme = 0
    for size in _blocks(n_perm):
        shuffled = rng.permuted(np.tile(other, (size, 1)), axis=1)
        extreme += int((np.abs(shuffled @ one) >= observed).sum())
    return (extreme + 1) / (n_perm + 1)


def holm(p_values: Sequence[float | None]) -> list[float]:
    """Holm's step-down adjusted p-values (Holm 1979), in the given order. Missing ones (nan, None)
    come back as nan and do not count.
    """
    p = np.asarray(p_values, float)
    adjusted = np.full(len(p), math.nan)
    order = np.argsort(p, kind="stable")[: np.count_nonzero(~np.isnan(p))]
    steps = np.minimum(1.0, np.arange(len(order), 0, -1) * p[order])
    adjusted[order] = np.maximum.accumulate(steps)
    return adjusted.tolist()


def _blocks(total: int) -> list[int]:
    return [min(BLOCK, total - start) for start in range(0, total, BLOCK)]
