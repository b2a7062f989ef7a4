"""The measures of one tensor's update, and how they add up to a layer.

`energy` is ‖Δ‖_F. `relative_energy` is ‖Δ‖_F / ‖W_earlier‖_F. Weights are compared as float32 exactly as stored and
accumulated in float64, slice by slice.

Spectra come from the Gram matrix of the shorter side in float64: exact to about 1e-8 of the largest singular value, which
effective and stable rank need; the condition number would need more and is left out. (Frankenstein paper, §3.2;
effective rank after Roy & Vetterli 2007.)
"""

import math
from typing import NamedTuple, Protocol

import numpy as np

CHUNK = 1 << 22  # elements


class Flat(Protocol):
    """A flat array, or something that is decoded slice by slice."""

    size: int

    def __getitem__(self, span: slice) -> np.ndarray: ...


class Sums(NamedTuple):
    """What one pass over a tensor adds up; layers are sums of these."""

    elements: int
    unchanged: int
    delta: float  # Σ Δ²
    earlier: float  # Σ a²
    later: float  # Σ b²
    product: float  # Σ a·b


ZERO = Sums(0, 0, 0.0, 0.0, 0.0, 0.0)


def sums(a: Flat, b: Flat) -> Sums:
    """One pass over two tensors of equal size, given flat."""
    total = ZERO
    for start in range(0, a.size, CHUNK):
        x, y = a[start : start + CHUNK], b[start : start + CHUNK]
        delta = (y - x).astype(np.float64)
        x64, y64 = x.astype(np.float64), y.astype(np.float64)
        part = Sums(
            x.size, int((x == y).sum()), float(delta @ delta), float(x64 @ x64), float(y64 @ y64), float(x64 @ y64)
        )
        total = add(total, part)
    return total


def add(a: Sums, b: Sums) -> Sums:
    """Sums of the union."""
    return Sums._make(x + y for x, y in zip(a, b, strict=True))


def measures(total: Sums) -> dict[str, float | None]:
    """energy, relative_energy, unchanged_fraction and cosine; null where undefined."""
    norms = math.sqrt(total.earlier) * math.sqrt(total.later)
    return {
        "energy": math.sqrt(total.delta),
        "relative_energy": math.sqrt(total.delta / total.earlier) if total.earlier else None,
        "unchanged_fraction": total.unchanged / total.elements if total.elements else None,
        "cosine": min(1.0, total.product / norms) if norms else None,
    }


def singular_values(a: Flat, b: Flat, shape: tuple[int, ...]) -> np.ndarray:
    """Singular values of b − a as a matrix of `shape` (further axes joined), largest first.

    From the float64 Gram matrix of the shorter side. A tall matrix (an embedding) is streamed by rows, a wide one held once
    in float32.
    """
    rows, cols = shape[0], int(np.prod(shape[1:]))
    side = min(rows, cols)
    gram = np.zeros((side, side))
    step = max(1, CHUNK // (cols if rows >= cols else rows))
    if rows >= cols:
        for start in range(0, rows, step):
            span = slice(start * cols, min(start + step, rows) * cols)
            block = (b[span] - a[span]).reshape(-1, cols).astype(np.float64)
            gram += block.T @ block
    else:
        delta = (b[0 : b.size] - a[0 : a.size]).reshape(rows, cols)
        for start in range(0, cols, step):
            block = delta[:, start : start + step].astype(np.float64)
            gram += block @ block.T
    return np.sqrt(np.clip(np.linalg.eigvalsh(gram)[::-1], 0.0, None))


def ranks(sigma: np.ndarray) -> dict[str, float | None]:
    """`effective_rank` = exp(entropy of σ/Σσ), `stable_rank` = Σσ²/σ₁², of singular values; null where nothing changed."""
    if not sigma.any():
        return {"effective_rank": None, "stable_rank": None}
    shares = sigma / sigma.sum()
    shares = shares[shares > 1e-12]
    return {
        "effective_rank": float(np.exp(-(shares * np.log(shares)).sum())),
        "stable_rank": float((sigma**2).sum() / sigma[0] ** 2),
    }
