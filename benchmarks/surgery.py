"""Hybrids by rank: directions from one Gram matrix for all of them, against a whole SVD for every
hybrid.

    OMP_NUM_THREADS=1 python benchmarks/surgery.py

Both sides make `keep` and `drop` at every rank of one matrix, and the results are compared. Then
the memory that one tensor of a 7B model takes: a merge holds one at a time, so this is its own.
"""

import multiprocessing
import resource
import time
from pathlib import Path

import torch

from franken.merge.parts import Part
from franken.merge.surgery import operated

SHAPES = ((1024, 1024), (1024, 2816))
RANKS = (1, 2, 4, 8, 16)
LARGE = (18944, 3584)  # gate, up and down of Qwen2.5-VL-7B
PARTS = (("rank", 8.0), ("top", 0.01), ("random", 0.01), ("sign", 0.0))


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
    print(f"\n| part of one {LARGE[0]}×{LARGE[1]} tensor | s | peak, MiB |")
    print("|---|---|---|")
    for kind, size in PARTS:
        with multiprocessing.get_context("spawn").Pool(1) as pool:
            seconds, more = pool.apply(one_tensor, (kind, size))
        print(f"| {Part(kind, size)} | {seconds:.1f} | {more / 1024:.0f} |")


def one_tensor(kind: str, size: float) -> tuple[float, int]:
    """Seconds of one tensor's hybrid, and KiB of peak memory beyond the imports, the two inputs in
    fp32 among them.
    """
    resident = int(Path("/proc/self/statm").read_text().split()[1])
    before = resident * resource.getpagesize() // 1024
    base, donor = (torch.randn(LARGE) for _ in range(2))
    donor.mul_(0.01).add_(base)
    began = time.perf_counter()
    operated(base, donor, Part(kind, size), keep=True, seed=0, known={}, key="x")
    after = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return time.perf_counter() - began, after - before


def whole(base: torch.Tensor, donor: torch.Tensor, rank: int, keep: bool) -> torch.Tensor:
    """The same hybrid by a whole SVD in float64."""
    delta = donor.double() - base.double()
    u, s, vt = torch.linalg.svd(delta, full_matrices=False)
    own = (u[:, :rank] * s[:rank]) @ vt[:rank]
    return (base.double() + (own if keep else delta - own)).float()


if __name__ == "__main__":
    main()
