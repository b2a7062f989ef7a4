"""How fast a layer-range merge is: franken against mergekit's command and mergekit's API, on the
same two checkpoints.

    python benchmarks/merge.py --folder FOLDER --size 3b --layers 8 --repeats 5

Two checkpoints of Qwen2.5-VL's shapes (benchmarks/checkpoints.py), bf16, sharded. Each arm takes
the second half of the decoder from the donor, and the rest, final norm and head included, from the
base; then its files are flushed to the disk, which is counted. The arms alternate, and start with
another one in every round. For franken (start-up and verification included) and mergekit's command
(which verifies nothing) the whole process is timed; for mergekit's API its call alone, imports
excluded. In the first round mergekit's outputs are compared with franken's, tensor by tensor. Write
bandwidth is measured in every round: `write` puts as many bytes into new files of a shard's size
and flushes them, `copy` is `cp` of the base's shards, flushed.
"""

import json
import os
import shutil
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))
from benchmarks.checkpoints import parser_of, write
from benchmarks.processes import Cost, measure, setting

MERGEKIT_API = """
import sys, time, yaml
from mergekit.config import MergeConfiguration
from mergekit.merge import run_merge
from mergekit.options import MergeOptions
config = MergeConfiguration.model_validate(yaml.safe_load(open(sys.argv[1]).read()))
began = time.perf_counter()
run_merge(config, sys.argv[2], options=MergeOptions(quiet=True, copy_tokenizer=False))
open(sys.argv[3], "w").write(str(time.perf_counter() - began))
"""
MERGEKIT_CONFIG = """
merge_method: passthrough
modules:
  text_decoder:
    slices:
      - sources: [{{model: {base}, layer_range: [0, {half}]}}]
      - sources: [{{model: {donor}, layer_range: [{half}, {layers}]}}]
      - sources: [{{model: {base}, layer_range: [{layers}, {layers}]}}]
  vision_tower:
    models: [{{model: {base}}}]
  multi_modal_projector:
    models: [{{model: {base}}}]
"""
SHARD_BYTES = 1 << 30


def flush(folder: Path) -> float:
    """Have the disk hold all files of a folder. Returns the seconds it took."""
    began = time.perf_counter()
    for file in sorted(folder.glob("*")):
        descriptor = os.open(file, os.O_RDONLY)
        os.fsync(descriptor)
        os.close(descriptor)
    return time.perf_counter() - began


def plain_write(folder: Path, count: int) -> Cost:
    """`count` random bytes into new files of a shard's size, in 8 MiB pieces, flushed."""
    piece = os.urandom(8 << 20)
    folder.mkdir()
    began = time.perf_counter()
    for start in range(0, count, SHARD_BYTES):
        with (folder / str(start)).open("wb", buffering=0) as sink:
            for _ in range(min(SHARD_BYTES, count - start) // len(piece)):
                sink.write(piece)
    flush(folder)
    wall = time.perf_counter() - began
    shutil.rmtree(folder)
    return Cost(wall, 0, 0)


def plain_copy(source: Path, folder: Path) -> Cost:
    """`cp` of the shards, flushed: what copying alone costs."""
    folder.mkdir()
    began = time.perf_counter()
    subprocess.run(["cp", *map(str, sorted(source.glob("*.safetensors"))), str(folder)], check=True)
    flush(folder)
    wall = time.perf_counter() - began
    shutil.rmtree(folder)
    return Cost(wall, 0, 0)


def same_tensors(a: Path, b: Path) -> int:
    """How many tensors two checkpoints share bit for bit; stops the benchmark if any differs."""
    from franken.checkpoints import open_checkpoint
    from franken.merge.verify import compare

    one, two = open_checkpoint(a).tensors, open_checkpoint(b).tensors
    if one.keys() != two.keys():
        raise SystemExit(f"mergekit's tensors are others: {sorted(one.keys() ^ two.keys())[:3]}")
    for key, entry in one.items():
        compare(entry, two[key])
    return len(one)


def run(
    base: Path, donor: Path, layers: int, repeats: int, work: Path
) -> tuple[dict[str, list[Cost]], int]:
    """All arms, `repeats` times. Returns their costs and how many tensors were compared with
    mergekit's.
    """
    out, half, files = (
        work / "out",
        layers // 2,
        (work / "mergekit.yaml", work / "api.py", work / "seconds"),
    )
    files[0].write_text(MERGEKIT_CONFIG.format(base=base, donor=donor, half=half, layers=layers))
    files[1].write_text(MERGEKIT_API)
    franken = [
        sys.executable,
        "-m",
        "franken.cli",
        "merge",
        str(base),
        str(donor),
        "--layers",
        f"{half}-{layers}",
    ]
    command = [
        str(Path(sys.executable).with_name("mergekit-yaml")),
        str(files[0]),
        str(out),
        "--no-copy-tokenizer",
    ]
    nbytes = sum(file.stat().st_size for file in base.glob("*.safetensors"))

    def whole(arguments: list[str]) -> Cost:
        cost = measure(arguments)
        return Cost(cost.wall + flush(out), cost.cpu, cost.peak)

    def api() -> Cost:
        cost = measure([sys.executable, str(files[1]), str(files[0]), str(out), str(files[2])])
        return Cost(float(files[2].read_text()) + flush(out), float("nan"), cost.peak)

    arms: dict[str, Callable[[], Cost]] = {
        "franken": lambda: whole([*franken, "--out", str(out), "--json"]),
        "mergekit's command": lambda: whole(command),
        "mergekit's API": api,
        "franken, plan only": lambda: measure([*franken, "--dry-run", "--json"]),
        "write": lambda: plain_write(work / "bandwidth", nbytes),
        "copy": lambda: plain_copy(base, work / "copied"),
    }
    costs: dict[str, list[Cost]] = {name: [] for name in arms}
    reference, compared, names = work / "reference", 0, list(arms)
    for number in range(repeats):
        for name in names[number % len(names) :] + names[: number % len(names)]:
            shutil.rmtree(out, ignore_errors=True)
            os.sync()
            costs[name].append(arms[name]())
            print(f"round {number + 1}, {name}: {costs[name][-1]}", file=sys.stderr, flush=True)
            if number == 0 and name == "franken":
                out.rename(reference)
            elif number == 0 and name.startswith("mergekit"):
                compared += same_tensors(reference, out)
    return costs, compared


def tables(costs: dict[str, list[Cost]], nbytes: int) -> str:
    """Markdown: medians and ranges of each arm, and of the ratios to franken within a round."""
    lines = ["| | wall s (range) | GB/s | CPU s | peak MiB |", "|---|---|---|---|---|"]
    for name, found in costs.items():
        wall = [cost.wall for cost in found]
        middle = [
            statistics.median(getattr(cost, field) for cost in found)
            for field in ("wall", "cpu", "peak")
        ]
        rate = "" if "plan" in name else f"{nbytes / 1e9 / middle[0]:.2f}"
        cpu, peak = (
            f"{middle[1]:.1f}" if middle[1] > 0 else "",
            f"{middle[2]:.0f}" if middle[2] else "",
        )
        lines.append(
            f"| {name} | {middle[0]:.2f} ({min(wall):.2f}-{max(wall):.2f}) | {rate} | {cpu} | "
            f"{peak} |"
        )
    lines += ["", "| wall time, times franken's | median (range) |", "|---|---|"]
    for name in ("mergekit's command", "mergekit's API", "write", "copy"):
        each = [
            cost.wall / own.wall for cost, own in zip(costs[name], costs["franken"], strict=True)
        ]
        lines.append(
            f"| {name} | {statistics.median(each):.2f} ({min(each):.2f}-{max(each):.2f}) |"
        )
    return "\n".join(lines)


def main() -> None:
    options = parser_of(__doc__, "scratch; needs six times a checkpoint", repeats=5).parse_args()
    base, donor = (
        write(options.folder, stage, options.size, options.layers, SHARD_BYTES)
        for stage in ("base", "sft")
    )
    layers = json.loads((base / "config.json").read_text())["num_hidden_layers"]
    nbytes = sum(file.stat().st_size for file in base.glob("*.safetensors"))
    costs, compared = run(base, donor, layers, options.repeats, options.folder)
    print(setting("torch", "transformers", "mergekit", "safetensors"))
    print(
        f"\n{options.size}, {layers} decoder layers, {nbytes / 1e9:.2f} GB a checkpoint, warm, n "
        f"= {options.repeats}\n"
    )
    print(tables(costs, nbytes))
    print(f"\n{compared} tensors of mergekit's outputs compared with franken's: bit-identical.")
    for folder in ("out", "reference"):
        shutil.rmtree(options.folder / folder, ignore_errors=True)


if __name__ == "__main__":
    main()
