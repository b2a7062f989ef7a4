"""The share of a gain against the test that it inverts, by simulation, and at its edges."""

import numpy as np
import pytest
from scipy.stats import spearmanr, ttest_1samp

from franken.stats import crossed_mean, rank_test, recovered, recovered_over_seeds


def prompts(rng, n, *, share, gain=0.3, draws=4):
    """Rates of `draws` replies a prompt of the start, the end and something in between."""
    base = rng.beta(2, 2, n) * (1 - gain)
    levels = base, base + gain, base + share * gain
    return [rng.binomial(draws, p) / draws for p in levels]


def test_the_interval_holds_the_shares_that_a_t_test_does_not_refuse():
    start, end, own = prompts(np.random.default_rng(1), 60, share=0.6)
    found = recovered(start, end, own)
    assert found.value == pytest.approx((own.mean() - start.mean()) / (end.mean() - start.mean()))

    def p(share):
        return ttest_1samp(own - start - share * (end - start), 0.0).pvalue

    kept = [share for share in np.linspace(-1, 3, 4001) if p(share) >= 0.05]
    assert (found.low, found.high) == pytest.approx((min(kept), max(kept)), abs=2e-3)


@pytest.mark.parametrize(("n", "share"), [(25, 0.5), (60, 0.9), (150, 0.0)])
def test_it_covers(n, share):
    rng = np.random.default_rng(n)
    inside = whole = 0
    for _ in range(600):
        one, two = prompts(rng, n, share=share), prompts(rng, 2 * n, share=share)
        found = recovered(*one, *two)
        if found.low == found.low:
            whole += 1
            inside += found.low <= share <= found.high
    assert whole > 500
    assert 0.92 < inside / whole < 0.98


def test_groups_weigh_the_same():
    one = [np.array(x) for x in ([0, 0.0], [1, 1.0], [1, 0.5])]
    two = [np.zeros(8), np.ones(8), np.full(8, 0.25)]
    assert recovered(*one, *two).value == pytest.approx((0.75 + 0.25) / 2)


def test_without_a_sure_gain_there_is_no_interval():
    rng = np.random.default_rng(0)
    start, end, own = (rng.binomial(4, 0.5, 30) / 4 for _ in range(3))
    found = recovered(start, end, own)
    assert np.isnan(found.low)
    assert np.isnan(found.high)
    assert np.isnan(recovered(start, start, own).value)


def test_the_end_itself_keeps_a_width():
    start, end, _ = prompts(np.random.default_rng(0), 50, share=1.0, gain=0.6)
    found = recovered(start, end, end)
    assert found.value == 1.0
    assert found.high - 1.0 == pytest.approx(1.0 - found.low)
    assert 0 < found.high - 1.0 < 0.2


def test_unequal_lengths_are_refused():
    with pytest.raises(ValueError, match="one value for each prompt"):
        recovered([0, 1], [1, 1], [1])


def test_over_seeds_the_interval_holds_the_shares_that_the_analysis_of_variance_does_not_refuse():
    rng = np.random.default_rng(5)
    tables = np.stack([prompts(rng, 50, share=0.4) for _ in range(3)]).transpose(1, 0, 2)
    start, end, own = tables
    found = recovered_over_seeds(start, end, own)
    assert found.value == pytest.approx((own - start).mean() / (end - start).mean())

    def refused(share):
        _, low, high = crossed_mean(own - start - share * (end - start))
        return low > 0 or high < 0

    kept = [share for share in np.linspace(-1, 3, 4001) if not refused(share)]
    assert (found.low, found.high) == pytest.approx((min(kept), max(kept)), abs=2e-3)
    assert recovered_over_seeds(start[:1], end[:1], own[:1]) == recovered(start[0], end[0], own[0])
    same = recovered_over_seeds(start, end, end)
    assert same.value == same.low == same.high == 1
    none = recovered_over_seeds(start, start + 0.01 * rng.normal(size=start.shape), own)
    assert np.isnan(none.low)
    assert np.isnan(none.high)


def test_rank_p_is_exact_for_few_and_near_it_for_many():
    x, y = [1, 2, 3, 4, 5], [10, 20, 30, 50, 40]  # rho .9: 1 + 4 of 120 orders are as far up
    assert rank_test(x, y) == pytest.approx(2 * 5 / 120)
    assert rank_test(x, [1, 1, 1, 1, 1]) == 1
    rng = np.random.default_rng(2)
    one = rng.normal(size=40)
    other = one + 3 * rng.normal(size=40)
    assert rank_test(one, other) == pytest.approx(spearmanr(one, other).pvalue, abs=0.02)
