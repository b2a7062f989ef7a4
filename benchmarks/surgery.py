"""Hybrids by rank: directions from one Gram matrix for all of them, against a whole SVD for every
hybrid.

    OMP_NUM_THREADS=1 python benchmarks/surgery.py

Both sides make `keep` and `drop` at every rank of one matrix, and the results are compared.
"""

import time

import torch

from franken.merge.parts import Part
from franken.merge.surgery import operated

SHAPES = ((1024, 1024), (1024, 2816))
RANKS = (1, 2, 4, 8, 16)


def main() -> None:
    """Print a row a shape: seconds of either side, the ratio, and how far they differ."""
    print("| shape | one Gram matrix, s | an SVD each, s | ratio | largest difference |")
    print("|---|---|---|---|---|")
    for shape in SHAPES:
        generator = torch.Generator().manual_seed(0)
        base = torch.randn(shape, generator=generator)
        donor = base + 0.01 * torch.randn(shape, generator=generator)
        began = time.perf_counter()
        known: dict[str, torch.Tensor] = {}
        ours = [
            operated(base, donor, Part("rank", rank), keep=keep, seed=0, known=known, key="x")
            for rank in RANKS
            for keep in (True, False)
        ]
        own = time.perf_counter() - began
        began = time.perf_counter()
        naive = [whole(base, donor, rank, keep) for rank in RANKS for keep in (True, False)]
        other = time.perf_counter() - began
        apart = max(float((a - b).abs().max()) for a, b in zip(ours, naive, strict=True))
        ratio = f"{other / own:.1f}×"
        print(f"| {shape[0]}×{shape[1]} | {own:.2f} | {other:.2f} | {ratio} | {apart:.1e} |")


def whole(base: torch.Tensor, donor: torch.Tensor, rank: int, keep: bool) -> torch.Tensor:
    """The same hybrid by a whole SVD in float64."""
    delta = donor.double() - base.double()
    u, s, vt = torch.linalg.svd(delta, full_matrices=False)
    own = (u[:, :rank] * s[:rank]) @ vt[:rank]
    return (base.double() + (own if keep else delta - own)).float()


if __name__ == "__main__":
    main()
