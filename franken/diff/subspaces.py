"""Whether two updates go the same way: principal angles between their leading singular subspaces.

`overlap` is ‖U₁ᵀU₂‖²_F / k, the mean squared cosine of the principal angles: 1 for the same
subspace, 0 for orthogonal ones. Two
random subspaces of dimension k in n dimensions overlap by k / n on average; how far they scatter
has a closed form too, so that an overlap comes with the number of standard deviations it lies above
chance.
"""

import math

import numpy as np

from franken.diff.spectra import gram, roots, sides, tall_blocks
from franken.diff.values import Values

K = 16
MEASURES = (
    "subspace_k",
    "left_overlap",
    "left_overlap_random",
    "left_overlap_z",
    "right_overlap",
    "right_overlap_random",
    "right_overlap_z",
)


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
) -> dict[str, float | list[float] | None]:
    """The measures of two updates' (left, right) vectors, and the principal angles in degrees,
    smallest first.

    k is the smaller of both ranks; all null where one of the updates is zero.
    """
    k = min(before[0].shape[1], after[0].shape[1])
    if not k:
        return {**dict.fromkeys(MEASURES), "left_angles": None, "right_angles": None}
    found: dict[str, float | list[float] | None] = {"subspace_k": float(k)}
    for name, one, two in (("left", before[0], after[0]), ("right", before[1], after[1])):
        cosines = np.linalg.svd(one[:, :k].T @ two[:, :k], compute_uv=False)
        overlap = float((cosines**2).mean())
        mean, deviation = random_overlap(one.shape[0], k)
        found[f"{name}_overlap"] = overlap
        found[f"{name}_overlap_random"] = mean
        found[f"{name}_overlap_z"] = (overlap - mean) / deviation if deviation else None
        found[f"{name}_angles"] = np.degrees(np.arccos(np.clip(cosines, 0.0, 1.0))).tolist()
    return found


def random_overlap(n: int, k: int) -> tuple[float, float]:
    """Mean and standard deviation of the overlap of two independent uniformly random k-dimensional
    subspaces of R^n.

    tr(PQ) of two random projections of rank k has mean k²/n and variance 2k²(n − k)² / (n²(n − 1)(n
    + 2)).
    """
    if n == 1:
        return 1.0, 0.0
    return k / n, math.sqrt(2 * (n - k) ** 2 / ((n - 1) * (n + 2))) / n
