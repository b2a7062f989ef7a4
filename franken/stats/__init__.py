"""Every interval, resampling, paired test and family of tests of the house. numpy and scipy only.

    intervals     a number with its 95 % interval: rates, means, differences, ratios, correlations
    significance  p-values (sign flips, permutations, McNemar) and Holm's correction
    recovery      the share of a gain that something recovers
    draws         acc@k and maj@k of several draws of one prompt

The unit is the prompt, never the draw: draws of one prompt are not independent. How often each
interval covers the truth at n = 10 to 100 is in benchmarks/results/coverage.md.
"""

from franken.stats.draws import acc_at_k, maj_at_k
from franken.stats.intervals import (
    LEVEL,
    Estimate,
    correlation,
    crossed_mean,
    difference,
    gap,
    mean,
    mean_rate,
    pool,
    rate,
    ratio,
)
from franken.stats.recovery import recovered, recovered_over_seeds
from franken.stats.significance import (
    ALPHA,
    holm,
    mcnemar_exact,
    permutation_test,
    rank_test,
    sign_flip_test,
)

__all__ = [
    "ALPHA",
    "LEVEL",
    "Estimate",
    "acc_at_k",
    "correlation",
    "crossed_mean",
    "difference",
    "gap",
    "holm",
    "maj_at_k",
    "mcnemar_exact",
    "mean",
    "mean_rate",
    "permutation_test",
    "pool",
    "rate",
    "rank_test",
    "ratio",
    "recovered",
    "recovered_over_seeds",
    "sign_flip_test",
]
