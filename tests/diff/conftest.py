"""Checkpoints with one tensor, and three real tiny ones whose updates are known."""

import json
from contextlib import ExitStack

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from franken.checkpoints import open_checkpoint
from franken.diff.values import opened
from franken.models.tiny import tiny

KEY = "text.layers.0.mlp.up_proj.weight"


@pytest.fixture
def stored(tmp_path):
    """Write arrays as one-tensor checkpoints and open their values; None as dtype keeps float32."""
    stack = ExitStack()

    def write(*arrays, dtype=torch.float32):
        values = []
        dtypes = dtype if isinstance(dtype, tuple) else (dtype,) * len(arrays)
        for number, (array, kind) in enumerate(zip(arrays, dtypes, strict=True)):
            folder = tmp_path / f"stored-{len(list(tmp_path.iterdir()))}-{number}"
            folder.mkdir()
            (folder / "config.json").write_text(json.dumps({"model_type": "qwen2"}))
            tensor = torch.as_tensor(np.asarray(array)).to(kind).contiguous()
            save_file({"model.layers.0.mlp.up_proj.weight": tensor}, folder / "model.safetensors")
            values.append(stack.enter_context(opened(open_checkpoint(folder).tensors[KEY])))
        return values

    with stack:
        yield write


@pytest.fixture
def triple(tmp_path):
    """base, sft (moved everywhere), rl (layer 1 of sft moved): the models and their folders."""
    models = {
        "base": tiny("qwen2_5_vl", 0),
        "sft": tiny("qwen2_5_vl", 1),
        "rl": tiny("qwen2_5_vl", 1),
    }
    with torch.no_grad():
        for parameter in models["rl"].get_decoder().layers[1].parameters():
            parameter.add_(0.25)
    for stage, model in models.items():
        model.requires_grad_(False).save_pretrained(
            tmp_path / stage, save_original_format=stage != "rl"
        )
    return models, [tmp_path / stage for stage in models]
