"""Whether training turned the leading directions of the weights, stretched them, or neither.

Of every matrix W = UΣVᵀ before and W′ = U′Σ′V′ᵀ after an update Δ, over its k leading directions:

- `principal_left`, `principal_right`: the overlaps ‖U_kᵀU′_k‖² / k and ‖V_kᵀV′_k‖² / k, 1 where the
  directions are the same;
- `spectral_shift`: ‖σ′ − σ‖ / ‖σ‖ over all singular values;
- `scale_energy`: ‖σ′ − σ‖² / ‖Δ‖², what new singular values on the old directions would account for
  (at most 1, by Mirsky's inequality);
- `principal_energy`: ‖U_kU_kᵀΔV_kV_kᵀ‖² / ‖Δ‖², the share of Δ inside the leading directions; that
  of a Δ that does not know them is k² / (rows · columns) on average.

A longer Δ turns and stretches more whatever it is, so none of these says anything by itself. Each
stands beside two others of the very norm of Δ, matrix by matrix: `…_random`, a Δ of elements
± ‖Δ‖ / √size with fair signs on the same weights (its spectrum is that of Gaussian noise, its norm
is exact), and, with three checkpoints, `…_sft`, the update base → SFT on the base's weights, scaled
to the norm of SFT → RL. Measures after arXiv 2511.08567 and 2509.12235, which have neither null.

Left out: a shorter SFT is not the same as a scaled one, which would take SFT's own checkpoints.
"""

from collections.abc import Sequence
from functools import partial
from typing import NamedTuple

import numpy as np

from franken.diff.spectra import Entries, gram_of, roots, sides, tall_blocks_of
from franken.diff.values import Values

BITS = 256  # that one step of Philox draws


class Principal(NamedTuple):
    """The measures of one update, of a random one and of SFT's of its norm; null where not
    defined.
    """

    principal_k: float | None = None  # no more than the matrix has directions
    principal_left: float | None = None
    principal_right: float | None = None
    spectral_shift: float | None = None
    scale_energy: float | None = None
    principal_energy: float | None = None
    principal_left_random: float | None = None
    principal_right_random: float | None = None
    spectral_shift_random: float | None = None
    scale_energy_random: float | None = None
    principal_energy_random: float | None = None
    principal_left_sft: float | None = None
    principal_right_sft: float | None = None
    spectral_shift_sft: float | None = None
    scale_energy_sft: float | None = None
    principal_energy_sft: float | None = None


MEASURES = Principal._fields
OWN = MEASURES[1:6]


class Frame(NamedTuple):
    """A matrix's singular values [side], all of them, and its first left [rows, k] and right
    [columns, k] vectors.
    """

    sigma: np.ndarray
    left: np.ndarray
    right: np.ndarray


def measured(
    stages: Sequence[Values], norms: Sequence[float], *, k: int, seed: int, device: str = "cpu"
) -> list[Principal]:
    """The measures of base → sft and sft → rl, or of base → rl, of one matrix.

    `norms` are ‖Δ‖ of these updates, 0 where nothing changed (all null then); `seed` draws the
    random update.
    """
    shape = sides(stages[0])
    frames = [frame(shape, values.floats, k, device) for values in stages]
    found = []
    for i, norm in enumerate(norms):
        if not norm:
            found.append(Principal())
            continue
        earlier, later = stages[i], stages[i + 1]
        delta = partial(later.minus, earlier)
        own = _compared(frames[i], frames[i + 1], shape, delta, norm)
        noise = partial(signs, seed, norm / earlier.size**0.5)
        noisy = frame(shape, partial(_sum, earlier, noise), k, device)
        row = [*own, *_compared(frames[i], noisy, shape, noise, norm)[1:]]
        if i and norms[0]:
            scaled = partial(_scaled, stages[1], stages[0], norm / norms[0])
            sft = frame(shape, partial(_sum, stages[0], scaled), k, device)
            row += _compared(frames[0], sft, shape, scaled, norm)[1:]
        found.append(Principal(*row))
    return found


def frame(shape: tuple[int, int], entries: Entries, k: int, device: str = "cpu") -> Frame:
    """The singular values and leading vectors of a matrix, from its shorter side's Gram matrix."""
    matrix = gram_of(shape, entries)
    eigenvalues, vectors = _decomposed(matrix, device)
    sigma = roots(eigenvalues)
    kept = min(k, int((sigma > 0).sum()))
    short = vectors[:, ::-1][:, :kept].copy()
    long = [block.astype(np.float64) @ short for block in tall_blocks_of(shape, entries)]
    other = np.concatenate(long) / sigma[:kept]
    rows, columns = shape
    return Frame(sigma, *((other, short) if rows >= columns else (short, other)))


def signs(seed: int, size: float, start: int, stop: int) -> np.ndarray:
    """Elements start … stop of a matrix of ± `size` with fair signs: the same whatever the
    stretches in which it is asked for.
    """
    first = start // BITS
    generator = np.random.Philox(key=seed)
    generator.advance(first)
    raw = generator.random_raw(4 * (-(-stop // BITS) - first)).view(np.uint8)
    drawn = np.unpackbits(raw, bitorder="little")[start - first * BITS :][: stop - start]
    return np.where(drawn, size, -size)


def _compared(
    before: Frame, after: Frame, shape: tuple[int, int], delta: Entries, norm: float
) -> tuple[float | None, ...]:
    """k, and the measures in the order of `OWN`."""
    k = min(before.left.shape[1], after.left.shape[1])
    if not k:
        return (None,) * (1 + len(OWN))
    shift = float(np.linalg.norm(after.sigma - before.sigma))
    left, right = (
        float(((one[:, :k].T @ two[:, :k]) ** 2).sum() / k)
        for one, two in ((before.left, after.left), (before.right, after.right))
    )
    inside = _inside(before, k, shape, delta)
    scale = shift / float(np.linalg.norm(before.sigma))
    return float(k), left, right, scale, (shift / norm) ** 2, (inside / norm) ** 2


def _inside(before: Frame, k: int, shape: tuple[int, int], delta: Entries) -> float:
    """‖U_kᵀΔV_k‖."""
    tall = shape[0] >= shape[1]
    long, short = (before.left, before.right) if tall else (before.right, before.left)
    total, at = np.zeros((k, k)), 0
    for block in tall_blocks_of(shape, delta):
        total += long[at : at + len(block), :k].T @ (block.astype(np.float64) @ short[:, :k])
        at += len(block)
    return float(np.linalg.norm(total))


def _sum(weights: Values, added: Entries, start: int, stop: int) -> np.ndarray:
    return weights.floats(start, stop).astype(np.float64) + added(start, stop)


def _scaled(later: Values, earlier: Values, factor: float, start: int, stop: int) -> np.ndarray:
    return factor * later.minus(earlier, start, stop).astype(np.float64)


def _decomposed(matrix: np.ndarray, device: str) -> tuple[np.ndarray, np.ndarray]:
    if device == "cpu":
        return np.linalg.eigh(matrix)
    import torch

    values, vectors = torch.linalg.eigh(torch.from_numpy(matrix).to(device))
    return values.cpu().numpy(), vectors.cpu().numpy()
