"""Numbers with their 95 % intervals. Each kind was chosen by simulation: benchmarks/coverage.py.

The percentile bootstrap is not here. At 10 or 20 prompts it covers far less than it says, and
where all values agree it has no width at all. Every interval here keeps a width then, or is nan
where nothing bounds what was not seen.
"""

from collections.abc import Sequence
from functools import cache
from typing import NamedTuple, TypedDict

import numpy as np
from numpy.typing import ArrayLike
from scipy.special import bdtr, bdtrc, bdtrik, betaincinv, ndtri, stdtrit

LEVEL = 0.95
TAIL = (1 - LEVEL) / 2
Z = float(ndtri(1 - TAIL))
NAN = float("nan")
GRID = 100  # points of the two scans for a limit of Blaker's interval
CORRECTION = 0.25  # between 0 (Clopper and Pearson: too wide) and 1/2 (Jeffreys: too narrow)
TINY = 1e-12


class Columns(TypedDict):
    """An estimate in layers.parquet."""

    value: float | None
    ci_low: float | None
    ci_high: float | None


class Estimate(NamedTuple):
    """A value and its 95 % interval; nan where it cannot be said."""

    value: float
    low: float
    high: float

    def columns(self) -> Columns:
        """As layers.parquet has it; what is nan is null."""
        value, low, high = (None if np.isnan(x) else float(x) for x in self)
        return {"value": value, "ci_low": low, "ci_high": high}


MISSING = Estimate(NAN, NAN, NAN)


class _Moments(NamedTuple):
    """Of an average of independent parts: its estimated variance, third central moment and degrees
    of freedom (Satterthwaite 1946).
    """

    value: float
    variance: float
    third: float
    df: float


@cache
def rate(successes: int, n: int) -> Estimate:
    """A binomial rate with Blaker's exact interval (Blaker 2000): it covers at least 95 % at every
    n, and is never wider than Clopper and Pearson's.

    It must cover more than 95 % where no set of counts has just that probability: at 10 prompts and
    a rate of 1 %, no success alone has 90 %, none or one 99.6 %.
    """
    if n == 0:
        return MISSING
    return Estimate(successes / n, _blaker(successes, n), 1 - _blaker(n - successes, n))


def mean_rate(*groups: ArrayLike) -> Estimate:
    """The mean of the groups' means; values are a prompt's share of successes, in [0, 1].

    0s and 1s in a single group are counts: `rate`. Otherwise a beta interval with the effective
    sample size, the number of single answers that would vary as much (Korn & Graubard 1998, with
    `CORRECTION`; the t factor is for the estimated variance). Groups are tasks: prompts are the
    units within them. Empty groups are left out; a group of one unit has no known spread.
    """
    samples = _samples(groups)
    if not samples:
        return MISSING
    values = np.concatenate(samples)
    if values.min() < 0 or values.max() > 1:
        raise ValueError(f"rates lie in [0, 1], not {values.min():g} to {values.max():g}")
    alike = bool((values == values[0]).all())
    binary = bool(np.isin(values, (0.0, 1.0)).all())
    if binary and (len(samples) == 1 or alike):
        return rate(int(values.sum()), len(values))
    value = float(np.mean([x.mean() for x in samples]))
    if min(map(len, samples)) == 1:
        return Estimate(value, NAN, NAN)
    parts = [_binomial(x) if np.isin(x, (0.0, 1.0)).all() else _moments(x) for x in samples]
    average = _combined(parts, [1 / len(parts)] * len(parts))
    n = float(len(values))
    if average.variance > TINY:
        n = value * (1 - value) / average.variance * (Z / _t(average.df)) ** 2
    right, wrong = value * n, (1 - value) * n
    low = betaincinv(right + CORRECTION, wrong + 1 - CORRECTION, TAIL) if right > TINY else 0.0
    high = betaincinv(right + 1 - CORRECTION, wrong + CORRECTION, 1 - TAIL) if wrong > TINY else 1.0
    return Estimate(value, float(low), float(high))


def mean(*groups: ArrayLike, span: float = NAN) -> Estimate:
    """The mean of the groups' means: Student's interval (Welch's and Satterthwaite's over groups),
    extended on the side of the longer tail by Hall's correction for skewness (Hall 1992).

    `span` is how far a value that was not seen may lie from those that were. It is needed only
    where all values agree: then at most 1 − 0.05^(1/n) of all units may differ from them, so far.
    Without it the interval is nan there, as it is with a group of one unit.
    """
    samples = _samples(groups)
    if not samples:
        return MISSING
    parts = [_moments(x) for x in samples]
    average = _combined(parts, [1 / len(parts)] * len(parts))
    if min(map(len, samples)) == 1:
        return Estimate(average.value, NAN, NAN)
    if average.variance <= TINY * max(1.0, average.value**2):
        unseen = (1 - (1 - LEVEL) ** (1 / sum(map(len, samples)))) * span
        return Estimate(average.value, average.value - unseen, average.value + unseen)
    return _student(average)


def difference(
    before: ArrayLike,
    after: ArrayLike,
    *more: ArrayLike,
    rates: bool = False,
    span: float = NAN,
) -> Estimate:
    """The mean of `after` − `before` over paired units: `difference(b1, a1, b2, a2, …)` for the
    mean over several groups of pairs.

    0/1 pairs in a single group: Tango's score interval (Tango 1998). Other pairs: `mean`, where
    `rates` says that values lie in [0, 1], else `span` how far apart they may lie. Raises
    ValueError for unequal lengths.
    """
    sides = [np.asarray(side, float) for side in (before, after, *more)]
    pairs = list(zip(sides[::2], sides[1::2], strict=True))
    for x, y in pairs:
        if x.shape != y.shape:
            raise ValueError(f"paired samples need equal shapes, got {x.shape} and {y.shape}")
    gaps = _samples([y - x for x, y in pairs])
    if len(gaps) == 1 and rates and all(np.isin(side, (0.0, 1.0)).all() for side in sides):
        won, lost = int((gaps[0] > 0).sum()), int((gaps[0] < 0).sum())
        return _tango(won, lost, len(gaps[0]))
    return mean(*gaps, span=1.0 if rates else span)


def gap(a: ArrayLike, b: ArrayLike) -> Estimate:
    """The difference of two independent means, b − a: `mean`'s interval, after Welch."""
    x, y = (_moments(np.asarray(side, float)) for side in (a, b))
    return _student(_combined([x, y], [-1.0, 1.0]))


def ratio(a: ArrayLike, b: ArrayLike) -> Estimate:
    """The ratio of two independent positive means, b / a: Welch's interval of its logarithm, by the
    delta method.
    """
    sides = [_moments(np.asarray(side, float)) for side in (a, b)]
    value = sides[1].value / sides[0].value
    logs = [m._replace(value=0.0, variance=m.variance / m.value**2, third=0.0) for m in sides]
    spread = _student(_combined(logs, [-1.0, 1.0]))
    return Estimate(value, value * float(np.exp(spread.low)), value * float(np.exp(spread.high)))


def pool(estimates: Sequence[Estimate]) -> Estimate:
    """The mean of independent estimates, its interval recovered from theirs: the distances to their
    lower limits add in squares, and so do those to the upper ones (Zou & Donner 2008).
    """
    values, lows, highs = np.array(estimates, float).T
    value = float(values.mean())
    below, above = (float(np.linalg.norm(values - ends)) / len(values) for ends in (lows, highs))
    return Estimate(value, value - below, value + above)


def crossed_mean(table: ArrayLike) -> Estimate:
    """The mean of a table [rows, columns] whose rows (seeds) and columns (puzzles) are both draws:
    two-way analysis of variance with random effects, Satterthwaite's degrees of freedom.
    """
    cells = np.asarray(table, float)
    rows, columns = cells.shape
    value = float(cells.mean())
    if min(rows, columns) < 2:
        return Estimate(value, NAN, NAN)
    by_row, by_column = cells.mean(1) - value, cells.mean(0) - value
    rest = cells - value - by_row[:, None] - by_column
    squares = np.array([columns * by_row @ by_row, rows * by_column @ by_column, (rest**2).sum()])
    df = np.array([rows - 1, columns - 1, (rows - 1) * (columns - 1)])
    of_rows, of_columns, of_rest = squares / df
    total = max(of_rows + of_columns - of_rest, of_rows, of_columns)
    if total <= TINY:
        return Estimate(value, NAN, NAN)
    half = _t(total**2 / (squares**2 / df**3).sum()) * np.sqrt(total / cells.size)
    return Estimate(value, float(value - half), float(value + half))


def correlation(
    x: ArrayLike,
    y: ArrayLike,
    *,
    ranks: bool = False,
    controls: ArrayLike | None = None,
    units: ArrayLike | None = None,
) -> Estimate:
    """Pearson's correlation (of `ranks`: Spearman's) of x and y [n], partial given `controls`
    [n, c]; columns of controls with more than two values are ranked as well.

    The interval is a jackknife on Fisher's z that leaves out one of `units` at a time (a prompt
    that several models answer), by default one row, with n − 2 degrees of freedom. Ranks are taken
    once. Rows with a missing value are left out. nan where there are fewer than four rows more than
    controls, or nothing varies.
    """
    columns = [np.asarray(x, float)[:, None], np.asarray(y, float)[:, None]]
    given = np.zeros((len(columns[0]), 0)) if controls is None else np.asarray(controls, float)
    data = np.hstack([*columns, given])
    known = ~np.isnan(data).any(1)
    labels = np.arange(len(data)) if units is None else np.asarray(units)
    data, members = data[known], np.unique(labels[known], return_inverse=True)[1]
    if len(data) < 4 + given.shape[1]:
        return MISSING
    if ranks:
        for i, column in enumerate(data.T):
            if i < 2 or len(np.unique(column)) > 2:
                data[:, i] = _ranked(column)
    scale = data.std(0)
    data = np.hstack(
        [(data - data.mean(0)) / np.where(scale > 0, scale, 1), np.ones((len(data), 1))]
    )
    each = np.zeros((members.max() + 1, data.shape[1], data.shape[1]))
    np.add.at(each, members, data[:, :, None] * data[:, None, :])
    whole = each.sum(0)
    value = float(_partial(whole[None])[0])
    count = len(each)
    if np.isnan(value) or count < 3:
        return Estimate(value, NAN, NAN)
    z = np.arctanh(np.clip(value, -1 + TINY, 1 - TINY))
    left_out = np.arctanh(np.clip(_partial(whole - each), -1 + TINY, 1 - TINY))
    left_out = np.where(np.isnan(left_out), z, left_out)  # what is left does not vary
    error = np.sqrt((count - 1) / count * ((left_out - left_out.mean()) ** 2).sum())
    half = _t(count - 2) * error
    return Estimate(value, float(np.tanh(z - half)), float(np.tanh(z + half)))


def _samples(groups: Sequence[ArrayLike]) -> list[np.ndarray]:
    return [x for x in (np.asarray(g, float) for g in groups) if len(x)]


def _t(df: float) -> float:
    return float(stdtrit(df, 1 - TAIL)) if np.isfinite(df) else Z


def _moments(x: np.ndarray) -> _Moments:
    """Of the mean of independent values; one value has an unknown variance."""
    n, deviations = len(x), x - x.mean()
    variance = float(deviations @ deviations) / (n - 1) / n if n > 1 else NAN
    return _Moments(float(x.mean()), variance, float((deviations**3).mean()) / n**2, n - 1)


def _binomial(x: np.ndarray) -> _Moments:
    """Of a rate, whose variance follows from its mean."""
    share = float(x.mean())
    return _Moments(share, share * (1 - share) / len(x), 0.0, np.inf)


def _combined(parts: Sequence[_Moments], weights: Sequence[float]) -> _Moments:
    value, variance, third, freedom = 0.0, 0.0, 0.0, 0.0
    for part, w in zip(parts, weights, strict=True):
        value += w * part.value
        variance += w**2 * part.variance
        third += w**3 * part.third
        freedom += (w**2 * part.variance) ** 2 / part.df if part.df else NAN
    return _Moments(value, variance, third, variance**2 / freedom if freedom else np.inf)


def _student(average: _Moments) -> Estimate:
    """Student's interval, each end moved outwards to where Hall's transformation has it, if it is
    farther out. Hall: t + κt²/3 + κ²t³/27 + κ/6 has a normal distribution's tails to second order,
    where κ is the skewness of the average.
    """
    value, variance, third, df = average
    if not variance > 0:
        return Estimate(value, NAN, NAN)
    error, t = np.sqrt(variance), _t(df)
    a = third / error**3 / 3
    ends = np.array([t, -t])
    hall = ends if abs(a) < 1e-9 else (np.cbrt(1 + 3 * a * (ends - a / 2)) - 1) / a
    return Estimate(
        value,
        float(value - error * max(t, hall[0])),
        float(value - error * min(-t, hall[1])),
    )


def _blaker(successes: int, n: int) -> float:
    """The lower limit: the smallest rate whose acceptability of the count is at least 5 %.

    Acceptability is the tail from the count on, plus the largest opposite tail that is no more
    probable. Scanned twice, from Clopper and Pearson's limit up to the rate itself.
    """
    if successes == 0:
        return 0.0
    low, high = float(betaincinv(successes, n - successes + 1, TAIL)), successes / n
    for _ in range(2):
        p = np.linspace(low, high, GRID)
        tail = bdtrc(successes - 1, n, p)
        below = np.ceil(bdtrik(tail, n, p) - 1e-9) - 1
        opposite = np.where(below >= 0, bdtr(np.maximum(below, 0), n, p), 0.0)
        first = int(np.argmax(tail + opposite >= 1 - LEVEL))
        low, high = float(p[max(first - 1, 0)]), float(p[first])
    return low


@cache
def _tango(won: int, lost: int, n: int) -> Estimate:
    """The difference of two paired rates: all differences that a score test at 5 % does not refuse.

    The test's variance is that under the hypothesis, so the interval keeps a width where all pairs
    agree: ±z²/(n + z²).
    """
    value = (won - lost) / n

    def score(d: float) -> float:
        b = (2 * n - won + lost) * d - won - lost
        share = (np.sqrt(max(0.0, b * b + 8 * n * lost * d * (1 - d))) - b) / (4 * n)
        variance = n * (2 * share + d * (1 - d))
        return (won - lost - n * d) / np.sqrt(max(variance, TINY**2))

    ends = []
    for edge, sign in ((-1.0, 1), (1.0, -1)):
        outer, inner = edge, value  # the score is ±z somewhere between them
        for _ in range(50):
            middle = (outer + inner) / 2
            if sign * score(middle) > Z:
                outer = middle
            else:
                inner = middle
        ends.append(outer)
    return Estimate(value, *ends)


def _ranked(x: np.ndarray) -> np.ndarray:
    """Ranks from 1, ties share their mean."""
    place, counts = np.unique(x, return_inverse=True, return_counts=True)[1:]
    return (np.cumsum(counts) - (counts - 1) / 2)[place]


def _partial(products: np.ndarray) -> np.ndarray:
    """Partial correlations of the first two variables given the others, from matrices of products
    [m, v, v]; nan where one of the two does not vary beyond what the others say.
    """
    xy, others = products[:, :2, :2], products[:, 2:, 2:]
    across = products[:, :2, 2:]
    left = xy - across @ np.linalg.pinv(others, hermitian=True) @ across.transpose(0, 2, 1)
    variances = left[:, [0, 1], [0, 1]]
    varies = np.all(variances > 1e-10 * products[:, -1, -1, None], axis=1)
    size = np.sqrt(np.where(varies[:, None], variances, 1).prod(1))
    return np.where(varies, left[:, 0, 1] / size, NAN)
