"""Whether two updates go the same way: principal angles between their leading singular subspaces.

`overlap` is ‖U₁ᵀU₂‖²_F / k, the mean squared cosine of the principal angles: 1 for the same
subspace, 0 for orthogonal ones. Two random subspaces of dimension k in n dimensions overlap by k /
n on average; how far they scatter has a closed form too, so that an overlap comes with the number
of standard deviations it lies above chance.
"""

import math
from typing import NamedTuple

import numpy as np

from franken.diff.spectra import gram, roots, sides, tall_blocks
from franken.diff.values import Values

K = 16


class Overlaps(NamedTuple):
    """The measures, and the principal angles in degrees, smallest first; all null where one of the
    updates is zero.
    """

    subspace_k: float | None = None  # the smaller of both ranks
    left_overlap: float | None = None
    left_overlap_random: float | None = None
    left_overlap_z: float | None = None
    left_angles: list[float] | None = None
    right_overlap: float | None = None
    right_overlap_random: float | None = None
    right_overlap_z: float | None = None
    right_angles: list[float] | None = None


MEASURES = tuple(name for name in Overlaps._fields if not name.endswith("angles"))


def directions(earlier: Values, later: Values, k: int) -> tuple[np.ndarray, np.ndarray]:
    """The first left [rows, r] and right [columns, r] singular vectors of the update; r ≤ k, fewer
    where its rank is lower.
    """
    from scipy.linalg import eigh

    rows, columns = sides(earlier)
    matrix = gram(earlier, later)
    side = matrix.shape[0]
    k = min(k, side)
    eigenvalues, vectors = eigh(
        matrix, subset_by_index=[side - k, side - 1], check_finite=False, overwrite_a=True
    )
    sigma = roots(eigenvalues)
    rank = int((sigma > 0).sum())
    short = vectors[:, ::-1][:, :rank]
    long = [block.astype(np.float64) @ short for block in tall_blocks(earlier, later)]
    other = np.concatenate(long) / sigma[:rank]
    return (other, short) if rows >= columns else (short, other)


def overlaps(
    before: tuple[np.ndarray, np.ndarray], after: tuple[np.ndarray, np.ndarray]
) -> Overlaps:
    """How the subspaces of two updates' (left, right) vectors lie to each other."""
    k = min(before[0].shape[1], after[0].shape[1])
    if not k:
        return Overlaps()
    return Overlaps(float(k), *_side(before[0], after[0], k), *_side(before[1], after[1], k))


def _side(
    one: np.ndarray, two: np.ndarray, k: int
) -> tuple[float, float, float | None, list[float]]:
    """Overlap, its mean by chance, the standard deviations above that, and the angles."""
    cosines = np.linalg.svd(one[:, :k].T @ two[:, :k], compute_uv=False)
    overlap = float((cosines**2).mean())
    mean, deviation = random_overlap(one.shape[0], k)
    z = (overlap - mean) / deviation if deviation else None
    return overlap, mean, z, np.degrees(np.arccos(np.clip(cosines, 0.0, 1.0))).tolist()


def random_overlap(n: int, k: int) -> tuple[float, float]:
    """Mean and standard deviation of the overlap of two independent uniformly random k-dimensional
    subspaces of R^n.

    tr(PQ) of two random projections of rank k has mean k²/n and variance 2k²(n − k)² / (n²(n − 1)(n
    + 2)).
    """
    if n == 1:
        return 1.0, 0.0
    return k / n, math.sqrt(2 * (n - k) ** 2 / ((n - 1) * (n + 2))) / n
