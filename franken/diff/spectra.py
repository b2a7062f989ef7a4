"""How many directions an update has: the singular values of Δ = W_later − W_earlier and what
follows from them.

They come from the float64 Gram matrix of the shorter side, whose eigenvalues are σ². On every shape
measured this is cheaper than a float32 SVD (benchmarks/diff.py) and more accurate down to
`RESOLUTION` · σ₁; what lies below cannot be told from zero and is reported as zero. Measures after
the Frankenstein paper, §3.2, and its code; a Δ of zero has none, not −1381:

- `spectral_norm` σ₁, `nuclear_norm` Σσ, `stable_rank` Σσ² / σ₁², `effective_rank` exp of the
  entropy of σ / Σσ (Roy & Vetterli
  2007), `numerical_rank` how many σ > 0, `condition_number` σ₁ / σ_min (null when Δ is singular);
- `log_volume` Σ ln σᵢ over the first k (null when fewer than k are there), `topk_energy` their
  share of Σσ².
"""

from collections.abc import Callable, Iterator
from functools import partial
from typing import NamedTuple

import numpy as np

from franken.diff.values import Values

BLOCK = 1 << 22  # elements of Δ at a time
RESOLUTION = 1e-7  # of the largest singular value: the square root of float64's, with a margin
TOPK = 50
Entries = Callable[[int, int], np.ndarray]  # elements start … stop of a matrix, row by row


class Spectrum(NamedTuple):
    """The measures of an update's singular values; null where one is not defined."""

    spectral_norm: float | None = None
    nuclear_norm: float | None = None
    stable_rank: float | None = None
    effective_rank: float | None = None
    numerical_rank: float | None = None
    condition_number: float | None = None
    log_volume: float | None = None
    topk_energy: float | None = None


MEASURES = Spectrum._fields


def singular_values(earlier: Values, later: Values, device: str = "cpu") -> np.ndarray:
    """All singular values of the update as a matrix [rows, everything else], largest first, in
    float64.
    """
    return roots(
        np.linalg.eigvalsh(gram(earlier, later))
        if device == "cpu"
        else _on_device(earlier, later, device)
    )


def roots(eigenvalues: np.ndarray) -> np.ndarray:
    """Singular values, largest first, from a Gram matrix's eigenvalues in ascending order."""
    sigma = np.sqrt(np.clip(eigenvalues[::-1], 0.0, None))
    return np.where(sigma > RESOLUTION * sigma[0], sigma, 0.0)


def gram(earlier: Values, later: Values) -> np.ndarray:
    """The Gram matrix of the update's shorter side [side, side] in float64."""
    return gram_of(sides(earlier), partial(later.minus, earlier))


def gram_of(shape: tuple[int, int], entries: Entries) -> np.ndarray:
    """The Gram matrix of the shorter side [side, side] in float64, accumulated over blocks."""
    side = min(shape)
    total = np.zeros((side, side))
    for block in tall_blocks_of(shape, entries):
        wide = block.astype(np.float64)
        total += wide.T @ wide
    return total


def tall_blocks(earlier: Values, later: Values) -> Iterator[np.ndarray]:
    """Δ with its longer side first, as float32 blocks [n, shorter side]."""
    return tall_blocks_of(sides(earlier), partial(later.minus, earlier))


def tall_blocks_of(shape: tuple[int, int], entries: Entries) -> Iterator[np.ndarray]:
    """A matrix [rows, columns] with its longer side first, as blocks [n, shorter side].

    A tall matrix (an embedding) is streamed; a wide one is held once, since its columns lie apart
    on disk.
    """
    rows, columns = shape
    if rows >= columns:
        step = max(1, BLOCK // columns)
        for row in range(0, rows, step):
            start, stop = row * columns, min(row + step, rows) * columns
            yield entries(start, stop).reshape(-1, columns)
        return
    whole = np.empty(rows * columns, entries(0, 1).dtype)
    for start in range(0, whole.size, BLOCK):
        stop = min(start + BLOCK, whole.size)
        whole[start:stop] = entries(start, stop)
    step = max(1, BLOCK // rows)
    for column in range(0, columns, step):
        yield whole.reshape(rows, columns)[:, column : column + step].T


def sides(values: Values) -> tuple[int, int]:
    """(rows, columns), with all axes after the first joined."""
    rows = values.shape[0]
    return rows, values.size // rows


def _on_device(earlier: Values, later: Values, device: str) -> np.ndarray:
    import torch

    side = min(sides(earlier))
    total = torch.zeros(side, side, dtype=torch.float64, device=device)
    for block in tall_blocks(earlier, later):
        wide = torch.from_numpy(np.ascontiguousarray(block)).to(device).double()
        total.addmm_(wide.T, wide)
    return torch.linalg.eigvalsh(total).cpu().numpy()


def spectrum(sigma: np.ndarray, topk: int = TOPK) -> Spectrum:
    """The measures of singular values in descending order; k is at most their number. All null
    where nothing changed.
    """
    rank = int((sigma > 0).sum())
    if not rank:
        return Spectrum()
    k = min(topk, sigma.size)
    squared = sigma**2
    shares = sigma[:rank] / sigma.sum()
    return Spectrum(
        spectral_norm=float(sigma[0]),
        nuclear_norm=float(sigma.sum()),
        stable_rank=float(squared.sum() / squared[0]),
        effective_rank=float(np.exp(-(shares * np.log(shares)).sum())),
        numerical_rank=float(rank),
        condition_number=float(sigma[0] / sigma[-1]) if rank == sigma.size else None,
        log_volume=float(np.log(sigma[:k]).sum()) if rank >= k else None,
        topk_energy=float(squared[:k].sum() / squared.sum()),
    )
