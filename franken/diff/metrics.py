"""What one pass over a tensor says of its update, and how that adds up to a layer.

Weights are taken as float32 exactly as stored, subtracted in float32 and accumulated in float64
over blocks. The measures, of Δ = W_later − W_earlier:

- `energy` ‖Δ‖_F, `relative_energy` ‖Δ‖_F / ‖W_earlier‖_F, and `relative_energy_sft` ‖Δ‖_F /
  ‖W_SFT‖_F, the convention of the
  Frankenstein paper's code for both phases (its figure 5);
- `unchanged_fraction` bit-equal elements, `sign_flip_fraction`, `mean_abs` and `max_abs` of Δ;
- `cosine` between the weights, `delta_cosine` between this update and the one before it (of SFT →
  RL only);
- the bf16 noise floor: `rounding_fraction` is the share of the changed elements that moved by no
  more than one unit in the last
  place of bf16, at the smaller of both magnitudes: for bf16 weights exactly those that moved to a
  neighbouring value;
  `rounding_energy` is their share of ‖Δ‖²_F. An update where both are near 1 is made of rounding.
"""

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from franken.diff import kernel
from franken.diff.values import Values

CHUNK = 1 << 17  # elements read at a time: three bf16 buffers of it fit a second-level cache


class Measures(NamedTuple):
    """The measures of an update; null where one is not defined."""

    energy: float | None = None
    relative_energy: float | None = None
    relative_energy_sft: float | None = None
    unchanged_fraction: float | None = None
    sign_flip_fraction: float | None = None
    mean_abs: float | None = None
    max_abs: float | None = None
    cosine: float | None = None
    delta_cosine: float | None = None
    rounding_fraction: float | None = None
    rounding_energy: float | None = None


MEASURES = Measures._fields


class Sums(NamedTuple):
    """What one pass over a tensor adds up for one update; layers are sums of these."""

    elements: int = 0
    unchanged: int = 0
    flipped: int = 0
    near: int = 0  # changed by at most one bf16 unit in the last place
    delta: float = 0.0  # Σ Δ²
    near_delta: float = 0.0  # Σ Δ² of those
    delta_abs: float = 0.0  # Σ |Δ|
    largest: float = 0.0  # max |Δ|
    earlier: float = 0.0  # Σ W_earlier²
    later: float = 0.0  # Σ W_later²
    sft: float = 0.0  # Σ W_SFT², 0 when there is no SFT
    before: float = 0.0  # Σ Δ² of the update before this one, 0 when there is none
    product: float = 0.0  # Σ Δ · Δ_before


def sums(stages: Sequence[Values]) -> list[Sums]:
    """One pass over a tensor of two or three checkpoints: [a→b], or [a→b, b→c, a→c]."""
    size, three = stages[0].size, len(stages) == 3
    table, squares = np.zeros((3, kernel.COLUMNS)), np.zeros(3)
    scratch = np.empty((4, kernel.BLOCK), np.uint32)
    nothing = np.empty(0, np.uint16)
    for start in range(0, size, CHUNK):
        stop = min(start + CHUNK, size)
        chunks = [values.bits(start, stop) for values in stages]
        kernel.measure(
            chunks[0], chunks[1], chunks[2] if three else nothing, table, squares, scratch
        )
    if not three:
        return [_sums(table[0], size, squares[0], squares[1])]
    sft, before, product = squares[1], table[0, kernel.DELTA], table[1, kernel.PRODUCT]
    return [
        _sums(table[0], size, squares[0], squares[1], sft),
        _sums(table[1], size, squares[1], squares[2], sft, before, product),
        _sums(table[2], size, squares[0], squares[2], sft),
    ]


def _sums(
    row: np.ndarray,
    size: int,
    earlier: float,
    later: float,
    sft: float = 0.0,
    before: float = 0.0,
    product: float = 0.0,
) -> Sums:
    unchanged = int(row[kernel.UNCHANGED])
    return Sums(
        elements=size,
        unchanged=unchanged,
        flipped=int(row[kernel.FLIPS]),
        near=int(row[kernel.NEAR]) - unchanged,
        delta=float(row[kernel.DELTA]),
        near_delta=float(row[kernel.NEAR_DELTA]),
        delta_abs=float(row[kernel.DELTA_ABS]),
        largest=float(row[kernel.LARGEST]),
        earlier=float(earlier),
        later=float(later),
        sft=float(sft),
        before=float(before),
        product=float(product),
    )


def add(a: Sums, b: Sums) -> Sums:
    """Sums of the union."""
    return Sums._make(x + y for x, y in zip(a, b, strict=True))._replace(
        largest=max(a.largest, b.largest)
    )


def is_finite(total: Sums) -> bool:
    """False where a weight is NaN or infinite."""
    return all(math.isfinite(value) for value in (total.earlier, total.later, total.delta))


def measures(total: Sums) -> Measures:
    """What the sums say of the update."""
    changed = total.elements - total.unchanged
    return Measures(
        energy=math.sqrt(total.delta),
        relative_energy=_root_ratio(total.delta, total.earlier),
        relative_energy_sft=_root_ratio(total.delta, total.sft),
        unchanged_fraction=_ratio(total.unchanged, total.elements),
        sign_flip_fraction=_ratio(total.flipped, total.elements),
        mean_abs=_ratio(total.delta_abs, total.elements),
        max_abs=total.largest if total.elements else None,
        cosine=_cosine(total),
        delta_cosine=_ratio(total.product, math.sqrt(total.delta) * math.sqrt(total.before)),
        rounding_fraction=_ratio(total.near, changed),
        rounding_energy=_ratio(total.near_delta, total.delta),
    )


def _cosine(total: Sums) -> float | None:
    """From the law of cosines, which keeps the digits that Σ ab / ‖a‖‖b‖ loses where two
    checkpoints hardly differ.
    """
    a, b = math.sqrt(total.earlier), math.sqrt(total.later)
    return 1.0 - (total.delta - (a - b) ** 2) / (2 * a * b) if a and b else None


def _ratio(part: float, whole: float) -> float | None:
    return part / whole if whole else None


def _root_ratio(part: float, whole: float) -> float | None:
    return math.sqrt(part / whole) if whole else None
