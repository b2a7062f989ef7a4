"""Trajectories at the disk's speed: `franken diff --along` against plainly reading the same files.

    python -P benchmarks/along.py [--checkpoints 12] [--mib 256] [--repeats 5] [--dtype bf16]

Writes a start and checkpoints of one bf16 or fp32 model of a few matrices, then runs in turn (A B A
B): reading all files to their end in 4 MiB pieces, and the whole trajectory, one thread each. Files
are in the page cache for both, so that the ratio is of computing to reading memory.
"""

import argparse
import json
import shutil
import statistics
import tempfile
import time
from pathlib import Path

import torch
from safetensors.torch import save_file

from franken.diff.along_plan import plan_along
from franken.diff.along_run import run_along

SIDE = 2048


def write(folder: Path, tensors: dict[str, torch.Tensor]) -> None:
    """A checkpoint of one decoder layer's matrices."""
    folder.mkdir(parents=True)
    (folder / "config.json").write_text(json.dumps({"model_type": "qwen2"}))
    save_file(tensors, folder / "model.safetensors", {"format": "pt"})


def read(files: list[Path]) -> float:
    """Seconds to read files to their end."""
    began, piece = time.perf_counter(), bytearray(4 << 20)
    for file in files:
        with file.open("rb", buffering=0) as opened:
            while opened.readinto(piece):
                pass
    return time.perf_counter() - began


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--checkpoints", type=int, default=12)
    parser.add_argument("--mib", type=int, default=128)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--dtype", choices=("bf16", "fp32"), default="bf16")
    options = parser.parse_args()
    dtype = {"bf16": torch.bfloat16, "fp32": torch.float32}[options.dtype]
    rows = options.mib * 2**20 // (SIDE * dtype.itemsize)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        weights = torch.randn(rows, SIDE) * 0.02
        for n in range(options.checkpoints + 1):
            stored = {"model.layers.0.mlp.up_proj.weight": weights.to(dtype)}
            write(folder / ("start" if n == 0 else f"run/step-{10 * n}"), stored)
            weights += torch.randn(rows, SIDE) * 1e-4
        plan = plan_along(folder / "start", [folder / "run"])
        files = sorted(folder.rglob("*.safetensors"))
        gigabytes = plan.tensors.total_bytes / 1e9
        pairs = []
        for _ in range(options.repeats + 1):
            plain, began = read(files), time.perf_counter()
            run_along(plan, out=folder / "out", jobs=1)
            pairs.append((plain, time.perf_counter() - began))
            shutil.rmtree(folder / "out")
        plain, along = zip(*pairs[1:], strict=True)  # the first run imports and warms
        ratio = statistics.median(b / a for a, b in pairs[1:])
        print(
            f"| {options.dtype} | {options.checkpoints} | {gigabytes:.2f} | "
            f"{statistics.median(plain) / gigabytes:.2f} | "
            f"{statistics.median(along) / gigabytes:.2f} | {ratio:.2f} "
            f"({min(b / a for a, b in pairs[1:]):.2f} to {max(b / a for a, b in pairs[1:]):.2f}) |"
        )


if __name__ == "__main__":
    main()
