"""Learning rates over a stage: a linear warm-up, a plateau, a cosine to the end."""

import math


def learning_rate(
    step: int, total: int, *, peak: float, warmup: int = 0, hold: float = 1.0, end: float = 1.0
) -> float:
    """The rate of the `step`-th update (from 0) out of `total`.

    `warmup` counts updates, `hold` is the share of the stage spent at `peak` (warm-up included),
    `end` the final rate as a
    share of `peak`.
    """
    return peak * shape(step, step / max(total, 1), warmup=warmup, hold=hold, end=end)


def shape(step: int, progress: float, *, warmup: int, hold: float, end: float) -> float:
    """The rate as a share of the peak, for a stage that is `progress` in [0, 1] through (of steps,
    or of a time budget).
    """
    rising = min(1.0, (step + 1) / warmup) if warmup else 1.0
    if progress <= hold:
        return rising
    falling = (progress - hold) / (1.0 - hold)
    return rising * (end + (1.0 - end) * 0.5 * (1.0 + math.cos(math.pi * min(falling, 1.0))))


def cosine_anneal(progress: float, *, start: float, end: float) -> float:
    """From `start` to `end` along half a cosine, for a stage that is `progress` in [0, 1] through
    (MUPO §4.2).
    """
    return end + (start - end) * 0.5 * (1.0 + math.cos(math.pi * min(max(progress, 0.0), 1.0)))


def exponential_anneal(step: int, *, start: float, decay: float, end: float = 0.0) -> float:
    """`start`·e^(−decay·step), never below `end` (MUPO's released code, which has no floor)."""
    return max(start * math.exp(-decay * step), end)
