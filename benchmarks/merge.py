"""How fast a layer-range merge is: franken against mergekit's command and mergekit's API, on the same two checkpoints.

    python benchmarks/merge.py --scale 1b --rounds 3 --work /tmp/bench-merge [--out benchmarks/results]

Both checkpoints are a Qwen2.5-VL of the scale's shapes in bf16, sharded, with random weights. Each arm takes the second
half of the decoder from the donor and the rest, final norm and head included, from the base, and then has its files
reach the disk. The arms alternate; each is a process of its own, and its outputs are compared tensor by tensor with
franken's, once. What is timed: for franken and mergekit's command the whole process, verification included for
franken (mergekit has none); for mergekit's API only its call, imports excluded. Write bandwidth is measured in every
round: as many bytes written in 8 MiB pieces and flushed (`write`), and a plain copy of the base's shards, flushed (`copy`).
"""

import argparse
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import textwrap
import time
from collections.abc import Callable
from importlib import metadata
from pathlib import Path
from typing import Any

TEXT = {"vocab_size": 152064, "hidden_size": 3584, "intermediate_size": 18944, "num_hidden_layers": 28,
        "num_attention_heads": 28, "num_key_value_heads": 4}  # fmt: skip
VISION = {"depth": 32, "hidden_size": 1280, "intermediate_size": 3420, "out_hidden_size": 3584, "num_heads": 16}
SCALES: dict[str, tuple[dict[str, int], dict[str, int]]] = {
    "tiny": (TEXT | {"vocab_size": 2000, "hidden_size": 256, "intermediate_size": 512, "num_attention_heads": 4},
             VISION | {"depth": 4, "hidden_size": 128, "intermediate_size": 256, "out_hidden_size": 256}),
    "1b": (TEXT | {"vocab_size": 32000, "hidden_size": 1536, "intermediate_size": 5632, "num_attention_heads": 12,
                   "num_key_value_heads": 2}, VISION | {"depth": 4, "out_hidden_size": 1536}),
    "3b": (TEXT | {"vocab_size": 151936, "hidden_size": 2048, "intermediate_size": 11008, "num_hidden_layers": 36,
                   "num_attention_heads": 16, "num_key_value_heads": 2}, VISION | {"out_hidden_size": 2048}),
    "7b": (TEXT, VISION),
}  # fmt: skip
MERGEKIT_API = """
import json, sys, time, yaml
from mergekit.config import MergeConfiguration
from mergekit.merge import run_merge
from mergekit.options import MergeOptions
config = MergeConfiguration.model_validate(yaml.safe_load(open(sys.argv[1]).read()))
began = time.perf_counter()
run_merge(config, sys.argv[2], options=MergeOptions(quiet=True))
print(json.dumps({"seconds": time.perf_counter() - began}))
"""


def make_checkpoint(folder: Path, scale: str, seed: int, shard_bytes: int) -> None:
    """A checkpoint of the scale's shapes: real names and configuration, random bf16 values, written shard by shard."""
    import numpy as np
    import torch
    import transformers as hf

    from franken.models.creature import creature_path

    text, vision = SCALES[scale]
    config = hf.Qwen2_5_VLConfig(text_config=text, vision_config=vision, tie_word_embeddings=False)
    config.architectures, config.dtype = ["Qwen2_5_VLForConditionalGeneration"], "bfloat16"
    with torch.device("meta"):
        model = hf.Qwen2_5_VLForConditionalGeneration(config)
    folder.mkdir(parents=True)
    config.save_pretrained(folder)
    for file in ("tokenizer.json", "tokenizer_config.json", "processor_config.json", "chat_template.jinja"):
        shutil.copy(creature_path("base") / file, folder / file)
    shapes = {
        name.replace("model.language_model.", "model.").replace("model.visual.", "visual."): list(tensor.shape)
        for name, tensor in model.state_dict().items()
    }
    shards: list[dict[str, list[int]]] = [{}]
    size = 0
    for name, shape in sorted(shapes.items()):
        nbytes = 2 * int(np.prod(shape))
        if size and size + nbytes > shard_bytes:
            shards.append({})
            size = 0
        shards[-1][name] = shape
        size += nbytes
    random = np.random.default_rng(seed)
    index: dict[str, str] = {}
    for number, shard in enumerate(shards, start=1):
        file = f"model-{number:05d}-of-{len(shards):05d}.safetensors"
        header, at = {}, 0
        for name, shape in shard.items():
            nbytes = 2 * int(np.prod(shape))
            header[name] = {"dtype": "BF16", "shape": shape, "data_offsets": [at, at + nbytes]}
            at += nbytes
            index[name] = file
        text_header = json.dumps(header).encode()
        text_header += b" " * (-len(text_header) % 8)
        with (folder / file).open("wb") as sink:
            sink.write(len(text_header).to_bytes(8, "little") + text_header)
            for start in range(0, at, 64 << 20):
                bits = random.integers(0, 1 << 16, min(64 << 20, at - start) // 2, np.uint16)
                sink.write(((bits & 0x807F) | 0x3C00).tobytes())  # ± 0.0078 to 0.0156
    atomic = {
        "metadata": {"total_size": sum(f.stat().st_size for f in folder.glob("*.safetensors"))},
        "weight_map": index,
    }
    (folder / "model.safetensors.index.json").write_text(json.dumps(atomic))


def mergekit_config(base: Path, donor: Path, layers: int) -> str:
    """Layers [layers/2, layers) from the donor. The empty last slice keeps norm and head with the base."""
    half = layers // 2
    return textwrap.dedent(f"""\
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
        """)


def measured(command: list[str], out: Path | None) -> dict[str, float]:
    """Run a process; wall and CPU seconds, and the peak of its memory as the kernel keeps it. Flushes `out` at the end."""
    environment = os.environ | {"HF_HUB_OFFLINE": "1", "PYTHONWARNINGS": "ignore"}
    began = time.perf_counter()
    printed = tempfile.TemporaryFile("w+")  # noqa: SIM115 - a pipe could fill up while nobody reads
    process = subprocess.Popen(command, stdout=printed, stderr=subprocess.DEVNULL, env=environment)
    peak, own = 0, 0
    while process.poll() is None:
        try:
            status = Path(f"/proc/{process.pid}/status").read_text()
        except (FileNotFoundError, ProcessLookupError):
            break
        for line in status.splitlines():
            if line.startswith("VmHWM"):
                peak = max(peak, int(line.split()[1]))
            elif line.startswith("RssAnon"):
                own = max(own, int(line.split()[1]))
        time.sleep(0.01)
    process.wait()
    printed.seek(0)
    text = printed.read().strip()
    if process.returncode:
        raise SystemExit(f"{' '.join(command[:6])} … failed with {process.returncode}: run it by hand")
    ended = time.perf_counter()
    flush(out)
    flushing = time.perf_counter() - ended
    found: dict[str, float] = {"seconds": ended - began + flushing, "peak_mib": peak / 1024, "own_mib": own / 1024}
    last = text.splitlines()[-1] if text else ""
    if last.startswith('{"seconds"'):
        found["seconds"] = json.loads(last)["seconds"] + flushing
    return found


def flush(folder: Path | None) -> None:
    """Have the disk hold all files of a folder."""
    for file in sorted(folder.glob("*")) if folder and folder.exists() else []:
        descriptor = os.open(file, os.O_RDONLY)
        os.fsync(descriptor)
        os.close(descriptor)


def bandwidth_of_write(path: Path, count: int) -> float:
    """Seconds to write `count` bytes to a new file in 8 MiB pieces, flushed."""
    piece = os.urandom(8 << 20)
    began = time.perf_counter()
    with path.open("wb", buffering=0) as sink:
        for _ in range(count // len(piece)):
            sink.write(piece)
        os.fsync(sink.fileno())
    seconds = time.perf_counter() - began
    path.unlink()
    return seconds


def bandwidth_of_copy(source: Path, folder: Path) -> float:
    """Seconds that `cp` needs for the shards, flushed: what copying alone costs."""
    folder.mkdir()
    began = time.perf_counter()
    subprocess.run(["cp", *map(str, sorted(source.glob("*.safetensors"))), str(folder)], check=True)
    flush(folder)
    seconds = time.perf_counter() - began
    shutil.rmtree(folder)
    return seconds


def same_tensors(a: Path, b: Path) -> int:
    """How many tensors two checkpoints share bit for bit; stops the benchmark if any differs."""
    from franken.checkpoints import open_checkpoint, read_bytes

    one, two = open_checkpoint(a), open_checkpoint(b)
    odd = [key for key in {*one.tensors, *two.tensors} if key not in one.tensors or key not in two.tensors]
    odd = odd or [key for key, entry in one.tensors.items() if read_bytes(entry) != read_bytes(two.tensors[key])]
    if odd:
        raise SystemExit(f"{len(odd)} tensors differ, e.g. {odd[0]}")
    return len(one.tensors)


def benchmark(scale: str, rounds: int, work: Path, shard_bytes: int) -> dict[str, Any]:
    """Make the checkpoints if they are not there, and run the arms in turn, starting with another one every round."""
    base, donor, out = work / f"{scale}-a", work / f"{scale}-b", work / "out"
    for seed, folder in enumerate((base, donor)):
        if not (folder / "model.safetensors.index.json").exists():
            shutil.rmtree(folder, ignore_errors=True)
            code = (
                f"import sys; sys.path.insert(0, {str(Path(__file__).parent)!r}); import merge; from pathlib import Path;"
                f"merge.make_checkpoint(Path({str(folder)!r}), {scale!r}, {seed}, {shard_bytes})"
            )
            subprocess.run([sys.executable, "-c", code], check=True)
    nbytes = sum(f.stat().st_size for f in base.glob("*.safetensors"))
    layers = SCALES[scale][0]["num_hidden_layers"]
    config = work / "mergekit.yaml"
    config.write_text(mergekit_config(base, donor, layers))
    api = work / "api.py"
    api.write_text(MERGEKIT_API)
    cli = str(Path(sys.executable).with_name("mergekit-yaml"))
    span = f"{layers // 2}-{layers}"
    franken = [sys.executable, "-m", "franken.cli", "merge", str(base), str(donor), "--layers", span]
    arms: dict[str, Callable[[], dict[str, float]]] = {
        "franken": lambda: measured([*franken, "--out", str(out), "--json"], out),
        "franken dry run": lambda: measured([*franken, "--dry-run", "--json"], None),
        "mergekit command": lambda: measured([cli, str(config), str(out)], out),
        "mergekit API": lambda: measured([sys.executable, str(api), str(config), str(out)], out),
        "write": lambda: {"seconds": bandwidth_of_write(work / "bandwidth", nbytes)},
        "copy": lambda: {"seconds": bandwidth_of_copy(base, work / "copied")},
    }
    reference = work / "reference"
    shutil.rmtree(reference, ignore_errors=True)
    runs: list[dict[str, Any]] = []
    compared = 0
    names = list(arms)
    for number in range(rounds):
        for name in names[number % len(names) :] + names[: number % len(names)]:
            shutil.rmtree(out, ignore_errors=True)
            os.sync()
            load = os.getloadavg()[0]
            found = arms[name]()
            runs.append({"round": number, "arm": name, "load": round(load, 2), **found})
            print(number, name, {k: round(v, 2) for k, v in found.items()}, file=sys.stderr, flush=True)
            if number == 0 and name == "franken":
                out.rename(reference)
            elif number == 0 and name.startswith("mergekit"):
                compared += same_tensors(reference, out)
    for folder in (out, reference):
        shutil.rmtree(folder, ignore_errors=True)
    return {"scale": scale, "bytes": nbytes, "layers": span, "tensors_compared": compared, "runs": runs}


def summary(result: dict[str, Any]) -> str:
    """The results as Markdown: medians, ratios within rounds, shares of the measured bandwidth."""

    def of(arm: str, key: str = "seconds") -> list[float]:
        return [r[key] for r in result["runs"] if r["arm"] == arm and key in r]

    def ratio(a: str, b: str) -> str:
        each = [x / y for x, y in zip(of(a), of(b), strict=True)]
        return f"{statistics.median(each):.2f} ({min(each):.2f} to {max(each):.2f})"

    gigabytes = result["bytes"] / 1e9
    lines = [
        f"## {result['scale']}: {gigabytes:.2f} GB a checkpoint, layers {result['layers']} from the donor\n",
        f"{result['tensors_compared']} tensors of mergekit's outputs compared with franken's: bit-identical.\n",
        "| | wall s, median (range) | GB/s | peak MiB | of it its own |\n|---|---|---|---|---|",
    ]
    for arm in ("franken", "mergekit command", "mergekit API", "franken dry run", "write", "copy"):
        seconds = of(arm)
        rate = "" if arm == "franken dry run" else f"{gigabytes / statistics.median(seconds):.2f}"
        memory = [f"{max(of(arm, key)):.0f}" if of(arm, key) else "" for key in ("peak_mib", "own_mib")]
        spread = f"{statistics.median(seconds):.2f} ({min(seconds):.2f} to {max(seconds):.2f})"
        lines.append(f"| {arm} | {spread} | {rate} | {memory[0]} | {memory[1]} |")
    lines += [
        "",
        "| ratio of wall times within a round | median (range) |\n|---|---|",
        f"| mergekit command / franken | {ratio('mergekit command', 'franken')} |",
        f"| mergekit API / franken (its imports not counted, ours counted) | {ratio('mergekit API', 'franken')} |",
        f"| write / franken: share of the write bandwidth that franken reaches | {ratio('write', 'franken')} |",
        f"| copy / franken: share of the speed of `cp` | {ratio('copy', 'franken')} |",
    ]
    return "\n".join(lines) + "\n"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--scale", choices=SCALES, default="1b")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--work", type=Path, required=True, help="scratch folder; needs five times a checkpoint")
    parser.add_argument("--shard-mib", type=int, default=480)
    parser.add_argument("--hardware", default=f"{os.cpu_count()} cores")
    parser.add_argument("--out", type=Path, help="where merge.json and merge.md go")
    options = parser.parse_args()
    options.work.mkdir(parents=True, exist_ok=True)
    result = benchmark(options.scale, options.rounds, options.work, options.shard_mib << 20)
    versions = {
        name: metadata.version(name) for name in ("franken", "mergekit", "torch", "transformers", "safetensors")
    }
    result |= {"hardware": options.hardware, "date": time.strftime("%Y-%m-%d"), "versions": versions}
    said = ", ".join(f"{name} {version}" for name, version in versions.items())
    text = f"# Merge: franken against mergekit\n\n{options.hardware}; {said}; {result['date']}.\n"
    text += "`benchmarks/merge.py` says what is timed.\n\n" + summary(result)
    print(text)
    if options.out:
        options.out.mkdir(parents=True, exist_ok=True)
        (options.out / "merge.json").write_text(json.dumps(result, indent=1) + "\n")
        (options.out / "merge.md").write_text(text)


if __name__ == "__main__":
    main()
