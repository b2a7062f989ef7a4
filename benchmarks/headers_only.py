"""Checkpoints of a published model's shapes without its weights: what the planners read, on a disk
that could not hold them.

    python benchmarks/headers_only.py Qwen/Qwen2.5-VL-7B-Instruct base sft rl

Each folder gets a config and one safetensors file whose header is real and whose data is a hole:
16.6 GB by its size, kilobytes on disk. `--dry-run` and `--plan` read headers only; nothing that
computes would say anything sensible about the zeros.
"""

import json
import sys
from pathlib import Path

import torch
from transformers import Qwen2_5_VLConfig, Qwen2_5_VLForConditionalGeneration

from trainer.shapes import QWEN, TOWER


def write_headers(model: str, folder: Path) -> int:
    """A checkpoint of `model`'s shapes in `folder`. Returns its size in bytes."""
    text = QWEN[model]
    rope = {"rope_type": "default", "rope_theta": 1e6, "mrope_section": [16, 24, 24]}
    config = Qwen2_5_VLConfig(
        text_config={**text, "rope_parameters": rope},
        vision_config={**TOWER, "out_hidden_size": text["hidden_size"]},
        tie_word_embeddings=text["tie_word_embeddings"],
        dtype="bfloat16",
    )
    with torch.device("meta"):
        built = Qwen2_5_VLForConditionalGeneration(config)
    folder.mkdir(parents=True)
    content = {**config.to_dict(), "architectures": ["Qwen2_5_VLForConditionalGeneration"]}
    (folder / "config.json").write_text(json.dumps(content, indent=1, default=str))
    header, end = {}, 0
    for name, tensor in built.named_parameters():
        start, end = end, end + 2 * tensor.numel()
        header[name] = {"dtype": "BF16", "shape": list(tensor.shape), "data_offsets": [start, end]}
    coded = json.dumps(header).encode()
    coded += b" " * (-len(coded) % 8)
    with (folder / "model.safetensors").open("wb") as file:
        file.write(len(coded).to_bytes(8, "little") + coded)
        file.truncate(8 + len(coded) + end)
    return 8 + len(coded) + end


if __name__ == "__main__":
    for place in sys.argv[2:]:
        print(
            f"{place}: {write_headers(sys.argv[1], Path(place)) / 1e9:.1f} GB, none of them stored"
        )
