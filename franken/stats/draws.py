"""What several draws of one prompt say about k of them: acc@k and maj@k, unbiased."""

import math
from collections.abc import Sequence
from fractions import Fraction


def acc_at_k(n: int, correct: int, k: int) -> float:
    """Probability that at least one of k draws is right, from n ≥ k draws: 1 − C(n−c, k)/C(n, k).

    Source: Chen et al. 2021, arXiv 2107.03374, equation 1 (pass@k).
    """
    if k > n:
        raise ValueError(f"acc@{k} needs at least {k} draws, there are {n}")
    return 1.0 - math.comb(n - correct, k) / math.comb(n, k)


def maj_at_k(right: int, wrong: Sequence[int], silent: int, k: int) -> float:
    """Probability that the majority of k draws, taken without replacement, is right.

    `right` draws gave the right answer, `wrong` counts each wrong answer, `silent` draws gave none:
    they are drawn, but do not vote. Ties are broken at random. Exact: for every number of right
    votes the wrong answers are added one by one, each with at most as many votes, counting ties.
    """
    n = right + sum(wrong) + silent
    if not 1 <= k <= n:
        raise ValueError(f"maj@{k} needs at least {max(k, 1)} draws, there are {n}")
    won = Fraction(0)
    for votes in range(1, min(right, k) + 1):
        ways = {(votes, 0): math.comb(right, votes)}  # (drawn so far, answers tied) → ways
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
