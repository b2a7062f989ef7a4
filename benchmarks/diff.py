"""How fast `franken diff` is, against a plain torch script and the Frankenstein paper's way of
computing energies.

Three checkpoints of Qwen2.5-VL's shapes (benchmarks/checkpoints.py), bf16, sharded. Whole processes
in alternating runs:

- `plain`: every tensor loaded by safetensors into torch, subtracted in float32, one norm per
  update;
- `reference`: the algorithm of the paper's characterisation_energy.py: all models whole, as fp16,
  matrices only, fp16
  subtraction, one norm and one relative norm;
- `franken`: everything `franken diff` measures in its one pass, with its run folder.

With `--reference FOLDER` the paper's own script runs as a fourth arm (it needs the transformers of
its time). `--spectra` compares the Gram route with float32 and float64 SVDs, shape by shape. Only
ratios mean something on a shared machine.
"""

import argparse
import json
import os
import shutil
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).parents[1]))
from benchmarks.checkpoints import STAGES, parser_of, write
from benchmarks.processes import alternate, ratio_table, setting

PAIRS = (("base", "sft"), ("sft", "rl"), ("base", "rl"))


def plain(folders: dict[str, Path]) -> None:
    """‖Δ‖ of every tensor, loaded one by one."""
    from safetensors import safe_open

    for earlier, later in PAIRS:
        for file in sorted(folders[earlier].glob("*.safetensors")):
            with safe_open(file, "pt") as a, safe_open(folders[later] / file.name, "pt") as b:
                for name in a.keys():  # noqa: SIM118 - not a mapping
                    (b.get_tensor(name).float() - a.get_tensor(name).float()).norm().item()


def reference(folders: dict[str, Path]) -> None:
    """The reference's algorithm, on its two updates."""
    import torch
    from safetensors.torch import load_file

    def whole(stage: str) -> dict[str, torch.Tensor]:
        files = sorted(folders[stage].glob("*.safetensors"))
        return {name: tensor.half() for file in files for name, tensor in load_file(file).items()}

    sft = whole("sft")
    deltas = {}
    for stage, sign in (("base", 1), ("rl", -1)):
        other = whole(stage)
        for name, tensor in sft.items():
            if "weight" in name and "norm" not in name and name in other:
                deltas[stage, name] = sign * (tensor - other[name])
        del other
    for (_, name), delta in deltas.items():
        energy = delta.float().norm().item()
        energy / (sft[name].float().norm().item() + 1e-8)


def read_bandwidth(files: list[Path], threads: int) -> float:
    """GB/s of reading the files into one small buffer a thread: as fast as anything that reads them
    can be.
    """

    def read(file: Path) -> int:
        buffer, done = bytearray(1 << 18), 0
        descriptor = os.open(file, os.O_RDONLY)
        while got := os.preadv(descriptor, [buffer], done):
            done += got
        os.close(descriptor)
        return done

    with ThreadPoolExecutor(threads) as pool:
        began = time.perf_counter()
        nbytes = sum(pool.map(read, files))
    return nbytes / (time.perf_counter() - began) / 1e9


def one_pass(folders: dict[str, Path], threads: int) -> float:
    """GB/s of the measuring alone: no imports, no run folder."""
    from functools import partial

    from franken.diff.plan import plan_diff
    from franken.diff.run import DiffOptions, _measured, tensor_rows

    plan = plan_diff(list(folders.values()))
    measure = partial(tensor_rows, plan, options=DiffOptions())
    list(_measured(plan.tensors[-5:], measure, threads))
    began = time.perf_counter()
    list(_measured(plan.tensors, measure, threads))
    return plan.total_bytes / (time.perf_counter() - began) / 1e9


def forget(folders: dict[str, Path]) -> None:
    """Ask the system to drop the files from memory."""
    for folder in folders.values():
        for file in folder.glob("*.safetensors"):
            descriptor = os.open(file, os.O_RDONLY)
            os.fsync(descriptor)
            os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)
            os.close(descriptor)


def spectra_table(large: bool) -> str:
    """Markdown: seconds, one thread, of the three routes to the singular values of a float32
    update, and their errors.
    """
    import torch
    from threadpoolctl import threadpool_limits

    from franken.diff.spectra import roots

    torch.set_num_threads(1)
    rng = np.random.default_rng(0)
    lines = [
        "| shape | Gram fp64 s | SVD fp32 s | times Gram | error of Gram | error of SVD fp32 | "
        "condition |",
        "|---|---|---|---|---|---|---|",
    ]
    shapes = [
        (512, 2048),
        (1280, 1280),
        (1536, 1536),
        (2048, 2048),
        (512, 3584),
        (1536, 8960),
        (2048, 11008),
        (3584, 3584),
    ]
    for rows, columns in [*shapes, *([(3584, 18944)] if large else [])]:
        low_rank = rng.normal(size=(rows, 32)) @ rng.normal(size=(32, columns))
        delta = (1e-3 * low_rank + 1e-3 * rng.normal(size=(rows, columns))).astype(np.float32)
        with threadpool_limits(1):
            began = time.perf_counter()
            wide = delta.astype(np.float64)
            gram = roots(np.linalg.eigvalsh(wide @ wide.T if rows <= columns else wide.T @ wide))
            ours = time.perf_counter() - began
            began = time.perf_counter()
            single = torch.linalg.svdvals(torch.from_numpy(delta)).numpy()
            theirs = time.perf_counter() - began
            exact = torch.linalg.svdvals(torch.from_numpy(wide)).numpy() if rows <= 2048 else None
        errors = [
            f"{np.max(np.abs(s / exact - 1)):.0e}" if exact is not None else "-"
            for s in (gram, single)
        ]
        lines.append(
            f"| {rows}×{columns} | {ours:.2f} | {theirs:.2f} | {theirs / ours:.1f} | {errors[0]} "
            f"| {errors[1]} | {gram[0] / gram[-1]:.0e} |"
        )
        print(lines[-1], file=sys.stderr, flush=True)
    return "\n".join(lines)


def main() -> None:
    parser = parser_of(__doc__, "where the checkpoints are made and kept", repeats=3)
    parser.add_argument("--reference", type=Path, help="a checkout of the paper's repository")
    parser.add_argument(
        "--ours-only", action="store_true", help="for sizes that the others' memory cannot hold"
    )
    parser.add_argument("--spectra", action="store_true")
    parser.add_argument("--large", action="store_true", help="with --spectra: 3584×18944 too")
    parser.add_argument("--arm", choices=("plain", "reference"), help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    folders = {
        stage: write(arguments.folder, stage, arguments.size, arguments.layers) for stage in STAGES
    }
    if arguments.arm:
        {"plain": plain, "reference": reference}[arguments.arm](folders)
        return
    runs = Path(tempfile.mkdtemp(dir=arguments.folder))
    again = [sys.executable, __file__, "--folder", str(arguments.folder), "--size", arguments.size]
    again += ["--layers", str(arguments.layers)] if arguments.layers else []
    ours = [
        sys.executable,
        "-m",
        "franken.cli",
        "diff",
        *map(str, folders.values()),
        "--no-figures",
        "--json",
        "--out",
        str(runs),
    ]
    arms = (
        {}
        if arguments.ours_only
        else {arm: [*again, "--arm", arm] for arm in ("plain", "reference")}
    )
    if arguments.reference:
        script = arguments.reference / "scripts" / "characterisation_energy.py"
        stages = [part for stage in STAGES for part in (f"--{stage}", str(folders[stage]))]
        arms["the paper's script"] = [
            sys.executable,
            str(script),
            *stages,
            "--output",
            str(runs / "energy.json"),
        ]
    arms["franken"] = ours
    files = [file for folder in folders.values() for file in folder.glob("*.safetensors")]
    nbytes = sum(file.stat().st_size for file in files)
    threads = len(os.sched_getaffinity(0))
    print(f"{setting('franken', 'torch', 'numba', 'numpy', 'safetensors')}\n")
    print(
        f"Qwen2.5-VL-{arguments.size.upper()} shapes, {arguments.layers or 'all'} decoder layers: "
        f"3 × {nbytes / 3e9:.1f} GB\n"
    )
    costs = alternate(
        arms, arguments.repeats, lambda: shutil.rmtree(runs / "diff", ignore_errors=True)
    )
    print(ratio_table(costs, "franken"))
    read_bandwidth(files, threads)
    bandwidth, speed = read_bandwidth(files, threads), one_pass(folders, threads)
    print(
        f"\nwarm, {threads} threads: reading {bandwidth:.1f} GB/s; measuring {speed:.1f} GB/s, "
        f"{speed / bandwidth:.0%} of it"
    )
    for number in (
        1,
        2,
    ):  # the host of a virtual machine may cache the disk: only the second round is like for like
        forget(folders)
        disk = read_bandwidth(files, threads)
        forget(folders)
        cold = one_pass(folders, threads)
        print(
            f"dropped before, round {number}: reading {disk:.1f} GB/s; measuring {cold:.1f} GB/s, "
            f"{cold / disk:.0%} of it"
        )
    shutil.rmtree(runs)
    if arguments.spectra:
        print("\n" + spectra_table(arguments.large))
    print(
        "\n"
        + json.dumps({"command": sys.argv[1:]})
        .replace(str(arguments.folder), "DIR")
        .replace(str(arguments.reference), "CHECKOUT")
    )


if __name__ == "__main__":
    main()
