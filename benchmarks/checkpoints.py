"""Checkpoints of real shapes for the benchmarks: Qwen2.5-VL's, sharded, bf16, written as a stream
without a model.

Their weights are random and their updates made up: `sft` moves every weight by about 2 %, `rl`
moves a tenth of the weights by about one bf16 step, which is how such updates look. Speed does not
depend on it.
"""

import argparse
import json
import struct
from collections.abc import Iterator
from pathlib import Path

import numpy as np

SHAPES = {
    "3b": {
        "hidden": 2048,
        "mlp": 11008,
        "kv": 256,
        "layers": 36,
        "vocabulary": 151936,
        "heads": 16,
        "tied": True,
    },
    "7b": {
        "hidden": 3584,
        "mlp": 18944,
        "kv": 512,
        "layers": 28,
        "vocabulary": 152064,
        "heads": 28,
        "tied": False,
    },
}
TOWER = {"hidden": 1280, "mlp": 3420, "layers": 32}
SHARD_BYTES = 4 << 30
STAGES = ("base", "sft", "rl")


def tensors(size: str, layers: int | None = None) -> Iterator[tuple[str, tuple[int, ...]]]:
    """Names, as published, and shapes of Qwen2.5-VL; `layers` keeps the first decoder layers
    only.
    """
    s = SHAPES[size]
    hidden, mlp = s["hidden"], s["mlp"]
    yield "model.embed_tokens.weight", (s["vocabulary"], hidden)
    for i in range(layers or s["layers"]):
        layer = f"model.layers.{i}"
        for name, rows in (("q", hidden), ("k", s["kv"]), ("v", s["kv"])):
            yield f"{layer}.self_attn.{name}_proj.weight", (rows, hidden)
            yield f"{layer}.self_attn.{name}_proj.bias", (rows,)
        yield f"{layer}.self_attn.o_proj.weight", (hidden, hidden)
        yield f"{layer}.mlp.gate_proj.weight", (mlp, hidden)
        yield f"{layer}.mlp.up_proj.weight", (mlp, hidden)
        yield f"{layer}.mlp.down_proj.weight", (hidden, mlp)
        yield f"{layer}.input_layernorm.weight", (hidden,)
        yield f"{layer}.post_attention_layernorm.weight", (hidden,)
    yield "model.norm.weight", (hidden,)
    if not s["tied"]:
        yield "lm_head.weight", (s["vocabulary"], hidden)
    wide, narrow = TOWER["hidden"], TOWER["mlp"]
    yield "visual.patch_embed.proj.weight", (wide, 3, 2, 14, 14)
    for i in range(TOWER["layers"]):
        block = f"visual.blocks.{i}"
        for name, shape in (
            ("attn.qkv", (3 * wide, wide)),
            ("attn.proj", (wide, wide)),
            ("mlp.gate_proj", (narrow, wide)),
            ("mlp.up_proj", (narrow, wide)),
            ("mlp.down_proj", (wide, narrow)),
        ):
            yield f"{block}.{name}.weight", shape
            yield f"{block}.{name}.bias", shape[:1]
        yield f"{block}.norm1.weight", (wide,)
        yield f"{block}.norm2.weight", (wide,)
    yield "visual.merger.ln_q.weight", (wide,)
    for name, shape in (("mlp.0", (4 * wide, 4 * wide)), ("mlp.2", (hidden, 4 * wide))):
        yield f"visual.merger.{name}.weight", shape
        yield f"visual.merger.{name}.bias", shape[:1]


def parser_of(doc: str | None, folder: str, repeats: int) -> argparse.ArgumentParser:
    """The options of a benchmark over synthetic checkpoints; `folder` says what it is for."""
    parser = argparse.ArgumentParser(
        description=doc, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--folder", type=Path, required=True, help=folder)
    parser.add_argument("--size", choices=SHAPES, default="3b")
    parser.add_argument("--layers", type=int, help="decoder layers to keep; all by default")
    parser.add_argument("--repeats", type=int, default=repeats)
    return parser


def write(
    folder: Path, stage: str, size: str, layers: int | None = None, shard_bytes: int = SHARD_BYTES
) -> Path:
    """Write one stage's checkpoint, config, shards and index, unless it is there. Returns its
    folder.
    """
    place = folder / f"{size}-{layers or 'all'}-{stage}"
    if (place / "model.safetensors.index.json").exists():
        return place
    place.mkdir(parents=True, exist_ok=True)
    shards: list[list[tuple[str, tuple[int, ...]]]] = [[]]
    filled = 0
    for name, shape in tensors(size, layers):
        nbytes = 2 * int(np.prod(shape))
        if filled and filled + nbytes > shard_bytes:
            shards.append([])
            filled = 0
        shards[-1].append((name, shape))
        filled += nbytes
    files = {}
    for number, members in enumerate(shards, 1):
        file = f"model-{number:05d}-of-{len(shards):05d}.safetensors"
        _write_shard(place / file, members, stage)
        files |= {name: file for name, _ in members}
    (place / "config.json").write_text(json.dumps(config(size, layers)))
    (place / "model.safetensors.index.json").write_text(
        json.dumps({"metadata": {}, "weight_map": files})
    )
    return place


def config(size: str, layers: int | None = None) -> dict:
    """The parts of the config that say what the shapes are."""
    s = SHAPES[size]
    return {
        "model_type": "qwen2_5_vl",
        "architectures": ["Qwen2_5_VLForConditionalGeneration"],
        "torch_dtype": "bfloat16",
        "hidden_size": s["hidden"],
        "intermediate_size": s["mlp"],
        "num_hidden_layers": layers or s["layers"],
        "num_attention_heads": s["heads"],
        "num_key_value_heads": s["kv"] // 128,
        "vocab_size": s["vocabulary"],
        "tie_word_embeddings": s["tied"],
        "rms_norm_eps": 1e-6,
        "rope_theta": 1e6,
        "max_position_embeddings": 128000,
        "rope_scaling": {"type": "mrope", "mrope_section": [16, 24, 24]},
        "vision_config": {
            "depth": TOWER["layers"],
            "hidden_size": TOWER["hidden"],
            "intermediate_size": TOWER["mlp"],
            "out_hidden_size": s["hidden"],
            "num_heads": 16,
        },
    }


def _write_shard(path: Path, members: list[tuple[str, tuple[int, ...]]], stage: str) -> None:
    header, at = {}, 0
    for name, shape in members:
        stop = at + 2 * int(np.prod(shape))
        header[name] = {"dtype": "BF16", "shape": list(shape), "data_offsets": [at, stop]}
        at = stop
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    with path.open("wb") as file:
        file.write(struct.pack("<Q", len(text)))
        file.write(text)
        for seed, (_, shape) in enumerate(members):
            left = int(np.prod(shape))
            block = _block(stage, seed)
            while left:
                file.write(block[:left].tobytes())
                left -= min(left, block.size)


def _block(stage: str, seed: int) -> np.ndarray:
    """A million weights as bf16 bits, the same base for every stage."""
    rng = np.random.default_rng(seed)
    values = rng.normal(size=1 << 20).astype(np.float32) * 0.02
    if stage != "base":
        values *= 1 + 0.02 * rng.normal(size=values.size).astype(np.float32)
    bits = ((values.view(np.uint32) + 0x8000) >> 16).astype(np.uint16)
    if stage == "rl":
        bits += rng.random(bits.size) < 0.1
    return bits


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--size", choices=SHAPES, default="3b")
    parser.add_argument("--layers", type=int)
    parser.add_argument("--stages", nargs="+", default=STAGES, choices=STAGES)
    arguments = parser.parse_args()
    for each in arguments.stages:
        print(write(arguments.folder, each, arguments.size, arguments.layers))
