"""The measures of one tensor's update, and how they add up to a layer.

`energy` is ‖Δ‖_F. `relative_energy` is ‖Δ‖_F / ‖W_earlier‖_F. Weights are compared as float32 exactly as stored and
accumulated in float64, in chunks: no tensor is held twice in float64.

Spectra come from the Gram matrix of the shorter side in float64: exact to about 1e-8 of the largest singular value, which
effective and stable rank need; the condition number would need more and is left out. (Frankenstein paper, §3.2;
effective rank after Roy & Vetterli 2007.)
"""

import math
from typing import NamedTuple

import numpy as np

CHUNK = 1 << 22  # elements


class Sums(NamedTuple):
    """What one pass over a tensor adds up; layers are sums of these."""

    elements: int
    unchanged: int
    delta: float  # Σ Δ²
    earlier: float  # Σ a²
    later: float  # Σ b²
    product: float  # Σ a·b


ZERO = Sums(0, 0, 0.0, 0.0, 0.0, 0.0)


def sums(a: np.ndarray, b: np.ndarray) -> Sums:
    """One pass over two arrays of equal shape."""
    total = ZERO
    flat_a, flat_b = a.reshape(-1), b.reshape(-1)
    for start in range(0, flat_a.size, CHUNK):
        x = flat_a[start : start + CHUNK]
        y = flat_b[start : start + CHUNK]
        delta = (y - x).astype(np.float64)
        x64, y64 = x.astype(np.float64), y.astype(np.float64)
        part = Sums(x.size, int((x == y).sum()), delta @ delta, x64 @ x64, y64 @ y64, x64 @ y64)
        total = add(total, part)
    return total


def add(a: Sums, b: Sums) -> Sums:
    """Sums of the union."""
    return Sums(*(x + y for x, y in zip(a, b, strict=True)))


def measures(total: Sums) -> dict[str, float | None]:
    """energy, relative_energy, unchanged_fraction and cosine; null where undefined."""
    norms = math.sqrt(total.earlier) * math.sqrt(total.later)
    return {
        "energy": math.sqrt(total.delta),
        "relative_energy": math.sqrt(total.delta / total.earlier) if total.earlier else None,
        "unchanged_fraction": total.unchanged / total.elements if total.elements else None,
        "cosine": min(1.0, total.product / norms) if norms else None,
    }


def singular_values(delta: np.ndarray) -> np.ndarray:
    """Singular values of a matrix, largest first, from the float64 Gram matrix of its shorter side."""
    matrix = delta.astype(np.float64)
    if matrix.shape[0] > matrix.shape[1]:
        matrix = matrix.T
    eigenvalues = np.linalg.eigvalsh(matrix @ matrix.T)[::-1]
    return np.sqrt(np.clip(eigenvalues, 0.0, None))


def ranks(delta: np.ndarray) -> dict[str, float | None]:
    """`effective_rank` = exp(entropy of σ/Σσ), `stable_rank` = ‖Δ‖_F²/σ₁²; null for no matrix or no change."""
    if delta.ndim < 2 or not delta.any():
        return {"effective_rank": None, "stable_rank": None}
    sigma = singular_values(delta.reshape(delta.shape[0], -1))
    shares = sigma / sigma.sum()
    shares = shares[shares > 1e-12]
    return {
        "effective_rank": float(np.exp(-(shares * np.log(shares)).sum())),
        "stable_rank": float((sigma**2).sum() / sigma[0] ** 2),
    }
