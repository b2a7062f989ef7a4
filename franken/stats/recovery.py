"""The share of a gain that something recovers, with its interval."""

import numpy as np
from numpy.typing import ArrayLike
from scipy.special import stdtrit

from franken.stats.intervals import LEVEL, MISSING, NAN, TAIL, TINY, Estimate, crossed_mean

FAR = 1e6  # a share that no data give


def recovered(start: ArrayLike, end: ArrayLike, own: ArrayLike, *more: ArrayLike) -> Estimate:
    """(own − start) / (end − start), all three means over the same prompts:
    `recovered(s1, e1, o1, s2, e2, o2, …)` for the means over several groups (tasks) of prompts.

    0 is the start, 1 the end; it may lie outside. Both differences are of the same prompts, so the
    interval is Fieller's (1954): all shares ρ for which the mean of (own − start) − ρ (end − start)
    does not differ from 0 by Student's test. Where that set has no end, because the gain itself is
    not sure to differ from 0, the interval is nan. Values are rates in [0, 1]: where they say no
    more than that the share is the same at every prompt, up to 1 − 0.05^(1/n) of all prompts may
    still differ from that by one.

    Raises ValueError for unequal lengths.
    """
    sides = [np.asarray(side, float) for side in (start, end, own, *more)]
    if len(sides) % 3 or any(s.shape != g[0].shape for g in _groups(sides) for s in g):
        raise ValueError("start, end and own need one value for each prompt")
    groups = [(o - s, e - s) for s, e, o in _groups(sides) if len(s)]
    if not groups:
        return MISSING
    pairs = [np.stack(pair) for pair in groups]  # [2, prompts]: what is recovered, the gain
    part, gain = np.mean([pair.mean(1) for pair in pairs], axis=0)
    value = float(part / gain) if gain else NAN
    n = [pair.shape[1] for pair in pairs]
    if min(n) < 2 or np.isnan(value):
        return Estimate(value, NAN, NAN)
    each = [np.cov(pair) / pair.shape[1] / len(pairs) ** 2 for pair in pairs]
    whole = np.sum(each, axis=0)
    contrast = np.array([1.0, -value])
    spread = [float(contrast @ own @ contrast) for own in each]
    alike = sum(spread) <= TINY
    freedom = sum(s**2 / (k - 1) for s, k in zip(spread, n, strict=True))
    df = sum(n) - len(n) if alike else sum(spread) ** 2 / freedom
    t2 = float(stdtrit(df, 1 - TAIL)) ** 2
    a, b, c = (
        part**2 - t2 * whole[0, 0],
        part * gain - t2 * whole[0, 1],
        gain**2 - t2 * whole[1, 1],
    )
    if c <= 0:
        return Estimate(value, NAN, NAN)
    if alike:
        unseen = (1 - (1 - LEVEL) ** (1 / sum(n))) / abs(gain)
        return Estimate(value, value - unseen, value + unseen)
    half = np.sqrt(max(b * b - a * c, 0.0))
    return Estimate(value, float((b - half) / c), float((b + half) / c))


def recovered_over_seeds(start: ArrayLike, end: ArrayLike, own: ArrayLike) -> Estimate:
    """`recovered` of tables [seeds, prompts], both of them draws: all shares ρ for which the mean
    of (own − start) − ρ (end − start) does not differ from 0 by the analysis of variance of
    `crossed_mean`. Of one seed it is `recovered`. nan where the set has no end.
    """
    start, end, own = (np.atleast_2d(np.asarray(table, float)) for table in (start, end, own))
    part, gain = own - start, end - start
    if len(gain) < 2:
        return recovered(start[0], end[0], own[0])
    value = float(part.mean() / gain.mean()) if gain.mean() else NAN
    if np.isnan(value) or not _differs(gain):
        return Estimate(value, NAN, NAN)
    ends = [_edge(part, gain, value, sign) for sign in (-1.0, 1.0)]
    return Estimate(value, *ends)


def _differs(table: np.ndarray) -> bool:
    """Whether the mean surely differs from 0."""
    value, low, high = crossed_mean(table)
    return bool(value) if np.isnan(low) else low > 0 or high < 0


def _edge(part: np.ndarray, gain: np.ndarray, value: float, sign: float) -> float:
    """Where the shares end that the data do not refuse, from `value` on: doubled, then halved."""
    inner, reach = value, 1.0
    while not _differs(part - (value + sign * reach) * gain):
        inner, reach = value + sign * reach, 2 * reach
        if reach > FAR:
            return NAN
    outer = value + sign * reach
    for _ in range(50):
        middle = (inner + outer) / 2
        inner, outer = (inner, middle) if _differs(part - middle * gain) else (middle, outer)
    return float(inner)


def _groups(sides: list[np.ndarray]) -> list[tuple[np.ndarray, np.ndarray, np.ndarray]]:
    return list(zip(sides[::3], sides[1::3], sides[2::3], strict=True))
