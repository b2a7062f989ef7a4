"""Delta surgery: W = W_base + T(Δ), and its complement W_base + Δ − T(Δ), tensor by tensor.

T is one of `franken.merge.parts`. Parts that are sets of elements move the donor's very bits, so
that what is kept and what is dropped are the donor to the last bit; the others are computed in
fp64, so that kept and dropped updates add up to Δ before they are rounded.

The leading directions come from the Gram matrix of the shorter side, by Lanczos where few of many
are wanted: no tensor is decomposed whole. `known` keeps them from one hybrid to the next.
"""

from collections.abc import MutableMapping

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from franken.merge.parts import SHARES, Part

BLOCK = 1 << 22  # elements at a time
FEW = 4  # of this many directions at most one is wanted: Lanczos is cheaper than all of them
AT_ONCE = 32  # directions that are looked for where fewer are wanted: larger parts come later
RESOLUTION = 1e-7  # of the largest singular value; what lies below is zero, as in franken.diff
SMALL = 256  # matrices up to this side are decomposed whole in any case

Known = MutableMapping[str, Tensor]
"""Leading directions by tensor, as far as they were asked for."""
Matrix = Float[Tensor, "rows columns"]


def operated(
    base: Tensor, donor: Tensor, part: Part, *, keep: bool, seed: int, known: Known, key: str
) -> Tensor:
    """The base with a part of the donor's update, or with all of it but that part.

    `base` and `donor` are of one shape and type (fp32, or fp64). `seed` draws what is random, the
    same for keeping and dropping; `key` names the tensor in `known`.
    """
    if part.kind in SHARES or part.kind == "norms":
        mask = _elements(base, donor, part, seed)
        return torch.where(mask if keep else ~mask, donor, base)
    delta = donor.double() - base.double()
    if part.kind == "sign":
        own = _signs(delta)
    elif part.kind in ("rotation", "scale"):
        own = _respectrum(base.double(), donor.double(), part.kind) - base.double()
    else:
        own = _low_rank(delta, part, seed, known, key)
    return (base.double() + (own if keep else delta - own)).to(base.dtype)


def _elements(base: Tensor, donor: Tensor, part: Part, seed: int) -> Bool[Tensor, "..."]:
    """The set of elements that a part is."""
    if part.kind == "norms":
        return torch.full(base.shape, base.dim() <= 1)
    count = round(part.size * base.numel())
    generator = torch.Generator().manual_seed(seed)
    if part.kind == "random":
        mask = drawn(base.numel(), count, generator)
    else:
        mask = largest((donor.float() - base.float()).abs().flatten(), count, generator)
    return mask.reshape(base.shape)


def drawn(size: int, count: int, generator: torch.Generator) -> Bool[Tensor, "size"]:
    """`count` of `size` elements, drawn block by block: every block gives its share."""
    mask = torch.zeros(size, dtype=torch.bool)
    for start in range(0, size, BLOCK):
        stop = min(start + BLOCK, size)
        own = stop * count // size - start * count // size
        mask[start + torch.randperm(stop - start, generator=generator)[:own]] = True
    return mask


def largest(
    values: Float[Tensor, "size"], count: int, generator: torch.Generator
) -> Bool[Tensor, "size"]:
    """The `count` largest of non-negative fp32 values; of those that tie at the end, some are drawn
    (updates of bf16 weights are full of ties).

    The threshold is found by counting bit patterns, whose order is that of the values.
    """
    if count <= 0:
        return torch.zeros(values.shape, dtype=torch.bool)
    bits = values.view(torch.int32)
    high, above = _last_bin(bits >> 16, count)
    inside = bits[bits >> 16 == high]
    low, more = _last_bin(inside & 0xFFFF, count - above)
    threshold = (high << 16) | low
    mask = bits > threshold
    ties = (bits == threshold).nonzero().flatten()
    missing = count - above - more
    mask[ties[torch.randperm(len(ties), generator=generator)[:missing]]] = True
    return mask


def _last_bin(keys: Tensor, count: int) -> tuple[int, int]:
    """The key at which the `count`-th largest lies, and how many lie above it."""
    counts = torch.bincount(keys, minlength=1 << 16).flip(0)
    at = int(torch.searchsorted(counts.cumsum(0), count))
    return len(counts) - 1 - at, int(counts[:at].sum())


def _signs(delta: Tensor) -> Tensor:
    return delta.sign() * delta.abs().mean()


def _respectrum(base: Tensor, donor: Tensor, kind: str) -> Tensor:
    """The donor's singular vectors with the base's singular values (`rotation`), or the reverse.

    U′ΣV′ᵀ is W′V′ · Σ/Σ′ · V′ᵀ, so that the right vectors of one side are enough. A direction in
    which that side is zero has no vectors, and stays zero. A vector is a matrix of one column.
    """
    directions, values = (donor, base) if kind == "rotation" else (base, donor)
    own, given = (_tall(x) for x in (directions, values))
    eigenvalues, vectors = torch.linalg.eigh(_gram(own))
    before = eigenvalues.clamp_min(0).sqrt()
    after = torch.linalg.eigvalsh(_gram(given)).clamp_min(0).sqrt()
    known = before > RESOLUTION * before[-1]
    stretch = torch.where(known, after / torch.where(known, before, 1.0), 0.0)
    made = (own @ (vectors * stretch)) @ vectors.T
    return (made if own.shape == _matrix(base).shape else made.T).reshape(base.shape)


def _matrix(tensor: Tensor) -> Matrix:
    return tensor.reshape(tensor.shape[0], -1) if tensor.dim() else tensor.reshape(1, 1)


def _tall(tensor: Tensor) -> Matrix:
    matrix = _matrix(tensor)
    return matrix if matrix.shape[0] >= matrix.shape[1] else matrix.T


def _gram(tall: Matrix) -> Float[Tensor, "columns columns"]:
    """In float64, accumulated over blocks."""
    gram = torch.zeros(tall.shape[1], tall.shape[1], dtype=torch.float64)
    for block in tall.split(max(1, BLOCK // tall.shape[1])):
        gram.addmm_(block.T, block)
    return gram


def _low_rank(delta: Tensor, part: Part, seed: int, known: Known, key: str) -> Tensor:
    """Δ projected on some directions of its shorter side; a vector is a matrix of one column."""
    matrix, tall = _matrix(delta), _tall(delta)
    rank = min(int(part.size), tall.shape[1])
    if rank == tall.shape[1]:
        return delta
    if part.kind == "rank":
        basis = _leading(tall, rank, known, key)
    else:
        generator = torch.Generator().manual_seed(seed)
        draws = torch.randn(tall.shape[1], rank, generator=generator, dtype=torch.float64)
        basis = torch.linalg.qr(draws).Q
    own = tall @ basis @ basis.T
    return (own if tall.shape == matrix.shape else own.T).reshape(delta.shape)


def _leading(tall: Matrix, rank: int, known: Known, key: str) -> Float[Tensor, "columns rank"]:
    """The leading right singular vectors, those of the largest singular value first."""
    if key not in known or known[key].shape[1] < rank:
        gram = _gram(tall)
        known[key] = leading(gram, min(max(rank, AT_ONCE), len(gram)))
    return known[key][:, :rank]


def leading(gram: Float[Tensor, "side side"], rank: int) -> Float[Tensor, "side rank"]:
    """Eigenvectors of the largest eigenvalues of a symmetric matrix, largest first: all of them
    where the matrix is small or many are wanted, which cost the same.
    """
    side = len(gram)
    if side <= SMALL or rank * FEW > side:
        return torch.linalg.eigh(gram).eigenvectors.flip(1)
    from scipy.sparse.linalg import eigsh

    start = torch.ones(side, dtype=torch.float64).numpy()  # the same for the same matrix
    vectors = eigsh(gram.numpy(), k=rank, which="LA", v0=start)[1]
    return torch.from_numpy(vectors[:, ::-1].copy())
