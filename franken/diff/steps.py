"""The inner products of the steps that training took, streamed: one tensor of any number of
checkpoints in the memory of a few stretches.

Steps, not updates since the start, are multiplied: what was walked before would drown the last
small steps, whose length is wanted. They are formed and multiplied in float64. The memory of a
stretch is shared by all checkpoints, so that it does not grow with their number.
"""

from collections.abc import Sequence

import numpy as np
from jaxtyping import Float

from franken.diff.values import Values

BUDGET = 1 << 17  # float64 elements of a stretch, over all checkpoints: 1 MiB, a second-level cache
LEAST = 1 << 10  # elements of a stretch of one checkpoint: below, calls of the system would count


def step_products(
    start: Values, runs: Sequence[Sequence[Values]]
) -> tuple[Float[np.ndarray, "steps steps"], float]:
    """⟨dᵢ, dⱼ⟩ of the steps of all runs, each from the start on, and the start's ‖W₀‖²."""
    count = sum(len(run) for run in runs)
    size = max(LEAST, BUDGET // (count + 1))
    size = min(size, start.size)
    block = np.empty((count, size))
    total, squares = np.zeros((count, count)), 0.0
    for at in range(0, start.size, size or 1):
        stop = min(at + size, start.size)
        steps = block[:, : stop - at]
        first = start.floats(at, stop)
        wide = first.astype(np.float64)
        squares += float(wide @ wide)
        row = 0
        for run in runs:
            row = _fill(steps, row, first, start, run, at, stop)
        total += steps @ steps.T
    return total, squares


def _fill(
    steps: np.ndarray,
    row: int,
    first: np.ndarray,
    start: Values,
    run: Sequence[Values],
    at: int,
    stop: int,
) -> int:
    """Put the steps of a run into the rows from `row` on; returns the row after them."""
    earlier, before = start, first
    for later in run:
        if later.shares(earlier):  # adapters on one weight: without it, so that nothing is rounded
            steps[row] = later.minus(earlier, at, stop)
            before = None
        else:
            now = later.floats(at, stop)
            np.subtract(
                now,
                earlier.floats(at, stop) if before is None else before,
                out=steps[row],
                dtype=np.float64,
            )
            before = now
        earlier, row = later, row + 1
    return row


def combined(
    start: Values, run: Sequence[Values], weights: Float[np.ndarray, "n"]
) -> Float[np.ndarray, "elements"]:
    """W₀ + Σ wᵢ Δᵢ as float64, flat: the only array of the tensor's size."""
    size = min(max(LEAST, BUDGET // 4), start.size)
    made = np.empty(start.size)
    for at in range(0, start.size, size or 1):
        stop = min(at + size, start.size)
        made[at:stop] = start.floats(at, stop)
        for weight, values in zip(weights, run, strict=True):
            made[at:stop] += weight * _since(start, values, at, stop)
    return made


def _since(start: Values, values: Values, at: int, stop: int) -> np.ndarray:
    if values.shares(start):
        return values.minus(start, at, stop).astype(np.float64)
    first = start.floats(at, stop).astype(np.float64)
    return values.floats(at, stop).astype(np.float64) - first
