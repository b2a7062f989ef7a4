"""Statistics against closed forms, enumeration, scipy and simulation."""

import itertools
import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats as reference
from scipy.optimize import minimize_scalar
from scipy.special import xlogy

from franken.stats import (
    Estimate,
    acc_at_k,
    correlation,
    crossed_mean,
    difference,
    gap,
    holm,
    mcnemar_exact,
    mean,
    mean_rate,
    permutation_test,
    pool,
    rate,
    ratio,
    sign_flip_test,
)


@pytest.mark.parametrize("n", [1, 2, 10, 20, 40])
def test_a_rate_is_covered_at_every_size_and_value(n):
    """Exact, over all counts; also never wider than Clopper and Pearson's interval."""
    intervals = [rate(x, n) for x in range(n + 1)]
    for p in np.linspace(0.002, 0.998, 250):
        chances = reference.binom.pmf(range(n + 1), n, p)
        held = sum(
            c for c, e in zip(chances, intervals, strict=True) if e.low - 1e-4 <= p <= e.high + 1e-4
        )
        assert held >= 0.95
    for x, e in enumerate(intervals):
        widest = reference.binomtest(x, n).proportion_ci(method="exact")
        assert widest.low - 1e-9 <= e.low <= e.value <= e.high <= widest.high + 1e-9


@pytest.mark.parametrize(("x", "n"), [(0, 10), (3, 10), (1, 7), (20, 20)])
def test_a_rates_interval_holds_the_values_that_accept_the_count(x, n):
    """By hand, over a grid: the count's smaller tail, and the largest opposite one within it."""
    grid = np.linspace(0, 1, 4001)
    accepted = []
    for p in grid:
        chances = reference.binom.pmf(range(n + 1), n, p)
        lower, upper = np.cumsum(chances), np.cumsum(chances[::-1])[::-1]
        own, other = sorted([(lower[x], upper), (upper[x], lower)], key=lambda pair: pair[0])[0]
        within = other[other <= own + 1e-12]
        accepted.append(own + (within.max() if len(within) else 0) >= 0.05)
    e = rate(x, n)
    assert grid[accepted][[0, -1]] == pytest.approx(e[1:], abs=5e-4)


def test_no_prompts_have_no_rate():
    assert all(map(math.isnan, rate(0, 0)))


@pytest.mark.parametrize(("won", "lost", "n"), [(1, 0, 44), (5, 2, 20), (0, 9, 30)])
def test_the_ends_of_a_paired_interval_are_just_not_refused(won, lost, n):
    """The score test with the other parameter at its maximum of likelihood, found numerically."""
    counts = [won, lost, n - won - lost]
    ends = difference(np.repeat([0, 1, 0], counts), np.repeat([1, 0, 0], counts), rates=True)[1:]
    for d in ends:

        def negative(q, d=d):
            return -sum(xlogy(c, p) for c, p in zip(counts, (q + d, q, 1 - 2 * q - d), strict=True))

        bounds = max(0, -d), (1 - d) / 2
        q = minimize_scalar(negative, bounds=bounds, method="bounded", options={"xatol": 1e-12}).x
        error = math.sqrt(n * (2 * q + d * (1 - d)))
        assert abs(won - lost - n * d) / error == pytest.approx(1.959964, abs=1e-3)


def test_paired_rates_are_covered_where_pairs_differ_at_all():
    """Exact, over all outcomes of ten pairs: 5 % won and lost and more."""
    n = 10
    for won, lost in ((0.05, 0.05), (0.2, 0.1), (0.3, 0.3), (0.5, 0.2), (0.9, 0.0)):
        held = 0.0
        for i, j in itertools.product(range(n + 1), repeat=2):
            if i + j <= n:
                counts = [i, j, n - i - j]
                e = difference(
                    np.repeat([0, 1, 0], counts), np.repeat([1, 0, 0], counts), rates=True
                )
                chance = reference.multinomial.pmf(counts, n, [won, lost, 1 - won - lost])
                held += chance * (e.low - 1e-9 <= won - lost <= e.high + 1e-9)
        assert round(held, 2) >= 0.93


def test_what_agrees_everywhere_has_an_interval_of_some_width_or_none():
    same = [0.5] * 10
    for e in (
        rate(10, 10),
        mean_rate(same),
        mean_rate([0, 0], [1, 1]),
        mean(same, span=1.0),
        difference(same, same, rates=True),
        difference([0] * 10, [0] * 10, rates=True),
        difference([0] * 10, [1] * 10, rates=True),
    ):
        assert e.low <= e.value <= e.high
        assert e.high - e.low > 0.2
    assert math.isnan(mean(same).low)
    assert math.isnan(crossed_mean(np.ones((3, 4))).low)


def test_one_unit_says_nothing_of_the_spread():
    for e in (mean([2.0]), mean_rate([0.5]), gap([1.0], [2.0, 3.0]), mean([1.0, 2.0], [3.0])):
        assert math.isnan(e.low)
        assert not math.isnan(e.value)
    assert rate(1, 1) == mean_rate([1.0])
    assert all(map(math.isnan, (*mean([]), *mean_rate())))


def test_the_mean_of_a_symmetric_sample_has_students_interval():
    x = np.array([-3.0, -1.0, 0.0, 1.0, 3.0]) + 7
    expected = reference.t.interval(0.95, 4, x.mean(), x.std(ddof=1) / math.sqrt(5))
    assert mean(x)[1:] == pytest.approx(expected)


def test_a_gap_of_symmetric_samples_has_welchs_interval():
    a, b = np.array([0.0, 1, 2]), np.array([3.0, 5, 7, 9])
    expected = reference.ttest_ind(b, a, equal_var=False).confidence_interval()
    assert gap(a, b) == pytest.approx((5.0, expected.low, expected.high))


def test_a_longer_tail_extends_its_side():
    e = mean([1.0] * 12 + [2, 3, 9])
    assert e.high - e.value > 1.3 * (e.value - e.low)


def test_the_extended_end_is_where_halls_polynomial_has_students_quantile():
    x = np.array([1.0] * 12 + [2, 3, 9])
    e, error = mean(x), x.std(ddof=1) / math.sqrt(15)
    skewness = ((x - x.mean()) ** 3).mean() / 15**2 / error**3
    t = (x.mean() - e.high) / error
    polynomial = t + skewness * t**2 / 3 + skewness**2 * t**3 / 27 + skewness / 6
    assert polynomial == pytest.approx(reference.t.ppf(0.025, 14))


def test_a_mean_of_draws_has_the_beta_interval_of_its_effective_size():
    x = np.array([0.0, 0.25, 0.25, 0.5, 1.0, 0.75])
    m, variance = x.mean(), x.var(ddof=1) / 6
    n = m * (1 - m) / variance * (1.959964 / reference.t.ppf(0.975, 5)) ** 2
    low = reference.beta.ppf(0.025, m * n + 0.25, (1 - m) * n + 0.75)
    high = reference.beta.ppf(0.975, m * n + 0.75, (1 - m) * n + 0.25)
    assert mean_rate(x) == pytest.approx((m, low, high), abs=1e-5)


def test_macro_means_weigh_groups_alike():
    e = mean_rate([1, 1, 1, 1, 1, 0], [0, 1])
    assert e.value == pytest.approx((5 / 6 + 1 / 2) / 2)
    assert mean([1.0, 3], [4, 6, 8, 10]).value == pytest.approx(4.5)
    assert pool([rate(3, 6), rate(3, 6)]).high < rate(3, 6).high


COVERED = {
    "mean of draws": (0.3, lambda r: mean_rate(r.binomial(4, r.beta(0.6, 1.4, 12)) / 4)),
    "macro rate": (
        0.5,
        lambda r: mean_rate(*(r.random((4, 10)) < np.array([[0.1], [0.4], [0.6], [0.9]]))),
    ),
    "paired means": (
        0.0,
        lambda r: difference(*(r.binomial(4, r.beta(1, 1, 12), (2, 12)) / 4), rates=True),
    ),
    "skewed": (1.0, lambda r: mean(r.exponential(size=15))),
    "gap": (1.0, lambda r: gap(r.normal(0, 1, 10), r.normal(1, 2, 20))),
    "ratio": (1.5, lambda r: ratio(r.lognormal(0, 0.3, 8), 1.5 * r.lognormal(0, 0.3, 16))),
    "correlation": (
        0.5,
        lambda r: correlation(*r.multivariate_normal([0, 0], [[1, 0.5], [0.5, 1]], 12).T),
    ),
    "seeds": (0.0, lambda r: crossed_mean(0.3 * r.normal(size=(4, 1)) + r.normal(size=(4, 30)))),
}


@pytest.mark.parametrize("name", COVERED)
def test_intervals_cover_the_truth_as_often_as_they_say(name):
    """800 samples, so ± 2.3 points at three standard errors; benchmarks/coverage.py has more."""
    truth, draw = COVERED[name]
    rng = np.random.default_rng(0)
    intervals = [e for e in (draw(rng) for _ in range(800)) if not math.isnan(e.low)]
    assert len(intervals) > 780
    held = np.mean([e.low <= truth <= e.high for e in intervals])
    assert 0.925 <= held <= 0.99


def test_correlations_against_scipy_and_least_squares():
    rng = np.random.default_rng(3)
    control = rng.normal(size=(40, 2))
    x, y = (control @ [1.0, -2.0] + rng.normal(size=40) for _ in range(2))
    assert correlation(x, y).value == pytest.approx(reference.pearsonr(x, y).statistic)
    tied = np.round(x)
    assert correlation(tied, y, ranks=True).value == pytest.approx(
        reference.spearmanr(tied, y).statistic
    )
    design = np.column_stack([np.ones(40), control])
    rest = [v - design @ np.linalg.lstsq(design, v)[0] for v in (x, y)]
    partial = correlation(x, y, controls=control)
    assert partial.value == pytest.approx(reference.pearsonr(*rest).statistic)
    assert partial.low < partial.value < partial.high


def test_rows_of_one_unit_are_left_out_together():
    rng = np.random.default_rng(4)
    x, y = rng.normal(size=(2, 20))
    thrice = correlation(np.repeat(x, 3), np.repeat(y, 3), units=np.repeat(np.arange(20), 3))
    assert thrice == pytest.approx(correlation(x, y))


@pytest.mark.parametrize(("n", "correct"), [(5, 2), (6, 0), (6, 6), (4, 1)])
def test_acc_at_k_equals_enumeration(n, correct):
    draws = [1] * correct + [0] * (n - correct)
    for k in range(1, n + 1):
        subsets = list(itertools.combinations(draws, k))
        assert acc_at_k(n, correct, k) == pytest.approx(sum(any(s) for s in subsets) / len(subsets))


def test_acc_at_more_than_n_is_refused():
    with pytest.raises(ValueError, match="needs at least"):
        acc_at_k(4, 1, 5)


@pytest.mark.parametrize(("a", "b"), [(0, 0), (5, 0), (3, 8), (10, 10), (0, 1)])
def test_mcnemar_is_a_sign_test(a, b):
    expected = reference.binomtest(a, a + b, 0.5).pvalue if a + b else 1.0
    assert mcnemar_exact(a, b) == pytest.approx(expected)


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


def test_pairs_of_unequal_lengths_are_refused():
    with pytest.raises(ValueError, match="equal shapes"):
        difference([1.0], [1.0, 2.0], rates=False)
    with pytest.raises(ValueError, match="rates lie in"):
        mean_rate([1.0, 2.0])


def test_sign_flips_equal_enumeration_or_come_near_it():
    d = np.array([1.0, 2.0, -0.5, 3.0, 1.5, 0.0])
    flips = [abs(np.dot(s, d)) >= abs(d.sum()) for s in itertools.product([-1, 1], repeat=len(d))]
    assert sign_flip_test(d) == np.mean(flips)
    assert sign_flip_test(d, n_perm=31) == pytest.approx(np.mean(flips), abs=0.15)
    assert sign_flip_test([0.0, 0.0]) == 1.0


@pytest.mark.parametrize(("count", "n_perm", "floor"), [(6, 20_000, 2 / 64), (40, 999, 1 / 1000)])
def test_p_is_never_below_what_was_counted(count, n_perm, floor):
    """Two patterns of 64 are as extreme as all signs alike; of 999 drawn ones none, and itself."""
    assert sign_flip_test(np.arange(1, count + 1), n_perm=n_perm) == floor


def test_permutations_of_two_samples_equal_enumeration():
    values = np.array([1.0, 2.0, 5.0, 6.0, 9.0])
    sets = list(itertools.combinations(range(5), 2))
    gaps = np.array([np.delete(values, c).mean() - values[list(c)].mean() for c in sets])
    a, b = values[:2], values[2:]
    assert permutation_test(a, b) == np.mean(np.abs(gaps) >= gaps[0] - 1e-12)
    assert permutation_test(a, b, greater=True) == np.mean(gaps >= gaps[0] - 1e-12)
    assert permutation_test(b, a, greater=True) == 1.0
    assert permutation_test(a, b, n_perm=9) in [i / 10 for i in range(1, 11)]
    assert permutation_test([], b) == 1.0


def test_drawn_permutations_are_uniform_without_an_effect_and_small_with_one():
    rng = np.random.default_rng(0)
    null = [
        permutation_test(rng.normal(size=12), rng.normal(size=15), n_perm=400, seed=i)
        for i in range(120)
    ]
    assert 0.01 <= np.mean(np.array(null) < 0.05) <= 0.12
    certain = permutation_test(np.zeros(20), np.ones(20) + np.arange(20), n_perm=1999)
    assert certain == 1 / 2000


def test_rates_outside_their_range_are_refused_on_either_side():
    for outside in ([-0.1, 0.5], [0.5, 1.1]):
        with pytest.raises(ValueError, match="rates lie in"):
            mean_rate(outside)


def test_a_mean_of_equal_values_allows_for_what_was_not_seen():
    unseen = 3 * (1 - 0.05 ** (1 / 8))
    assert mean([2.0] * 5, [2.0] * 3, span=3.0) == pytest.approx((2.0, 2 - unseen, 2 + unseen))


def test_a_gap_to_a_constant_is_a_mean_with_its_skewness():
    x, nothing = np.array([1.0] * 12 + [2, 3, 9]), np.zeros(5)
    value, low, high = mean(x)
    assert gap(nothing, x) == pytest.approx((value, low, high))
    assert gap(x, nothing) == pytest.approx((-value, -high, -low))


def test_a_ratio_has_welchs_interval_of_its_logarithm():
    a, b = np.array([2.0, 3, 4, 5]), np.array([6.0, 8, 9, 11, 11])
    parts = np.array([x.var(ddof=1) / len(x) / x.mean() ** 2 for x in (a, b)])
    df = parts.sum() ** 2 / (parts**2 / [3, 4]).sum()
    factor = math.exp(reference.t.ppf(0.975, df) * math.sqrt(parts.sum()))
    value = b.mean() / a.mean()
    assert ratio(a, b) == pytest.approx((value, value / factor, value * factor))


def test_a_pooled_interval_adds_squared_distances_on_each_side():
    pooled = pool([Estimate(1.0, -2.0, 2.0), Estimate(3.0, -1.0, 5.0)])
    assert pooled == pytest.approx((2.0, 2 - math.hypot(3, 4) / 2, 2 + math.hypot(1, 2) / 2))


def test_a_mean_over_seeds_and_puzzles_by_hand():
    table = np.array([[1.0, 2, 4, 3], [2, 2, 5, 5], [0, 1, 3, 1]])
    rows, columns, m = table.mean(1), table.mean(0), table.mean()
    rest = sum((table[i, j] - rows[i] - columns[j] + m) ** 2 for i in range(3) for j in range(4))
    squares = 4 * rows.var(ddof=1), 3 * columns.var(ddof=1), rest / 6
    total = squares[0] + squares[1] - squares[2]
    df = total**2 / sum(s**2 / d for s, d in zip(squares, (2, 3, 6), strict=True))
    half = reference.t.ppf(0.975, df) * math.sqrt(total / 12)
    assert crossed_mean(table) == pytest.approx((m, m - half, m + half))
    assert math.isnan(crossed_mean(table[:1]).low)
    assert math.isnan(crossed_mean(table[:, :1]).low)


def test_what_varies_between_seeds_alone_has_students_interval_of_the_seeds():
    x = np.array([1.0, 2.0, 4.0, 9.0])
    expected = reference.t.interval(0.95, 3, x.mean(), x.std(ddof=1) / 2)
    for table in (np.repeat(x[:, None], 6, 1), np.repeat(x[None], 6, 0)):
        assert crossed_mean(table)[1:] == pytest.approx(expected)


def test_the_interval_of_a_correlation_is_a_jackknife_of_fishers_z():
    x, y = np.random.default_rng(5).normal(size=(2, 9))
    left_out = [
        math.atanh(reference.pearsonr(np.delete(x, i), np.delete(y, i)).statistic) for i in range(9)
    ]
    z = math.atanh(reference.pearsonr(x, y).statistic)
    half = reference.t.ppf(0.975, 7) * math.sqrt(8 * np.var(left_out))
    expected = [math.tanh(v) for v in (z, z - half, z + half)]
    assert correlation(x, y) == pytest.approx(expected)
    missing = np.append(x, math.nan), np.append(y, 1.0)
    assert correlation(*missing) == pytest.approx(expected)


def test_a_correlation_needs_four_rows_more_than_controls():
    rng = np.random.default_rng(6)
    for n, controls, known in ((3, 0, False), (4, 0, True), (5, 2, False), (6, 2, True)):
        x, y = rng.normal(size=(2, n))
        e = correlation(x, y, controls=rng.normal(size=(n, controls)))
        assert math.isnan(e.value) != known
    assert math.isnan(correlation([1.0] * 6, [1.0, 2, 3, 4, 5, 6]).value)
    two = correlation([1.0, 2, 3, 4], [1.0, 3, 2, 4], units=[0, 0, 1, 1])
    assert two.value == pytest.approx(0.8)
    assert math.isnan(two.low)


def test_missing_numbers_are_null_in_a_table():
    assert Estimate(1.0, math.nan, 2.0).columns() == {"value": 1.0, "ci_low": None, "ci_high": 2.0}
