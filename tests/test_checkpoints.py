"""Checkpoints on disk: every family's names, both spellings, shards, and everything that can be broken."""

import json
import struct

import numpy as np
import pytest
import torch

from franken.checkpoints import canonical, fingerprint, open_checkpoint, place, read_array
from franken.errors import FrankenError, UsageError
from franken.models.tiny import TINY_FAMILIES, save_tiny, tiny


@pytest.mark.parametrize("model_type", TINY_FAMILIES)
def test_both_spellings_and_shards_give_the_same_tensors(tmp_path, model_type):
    model = tiny(model_type)
    opened = [
        open_checkpoint(save_tiny(tmp_path / "old", model_type)),
        open_checkpoint(save_tiny(tmp_path / "new", model_type, original_names=False)),
        open_checkpoint(save_tiny(tmp_path / "shards", model_type, max_shard_size="60KB")),
    ]
    assert len({e.file for e in opened[2].tensors.values()}) > 2
    in_memory = {canonical(n, model_type): p for n, p in model.named_parameters()}
    for checkpoint in opened:
        assert set(checkpoint.tensors) == set(in_memory)
        assert checkpoint.depths["text"] == len(model.get_decoder().layers)
        for key, entry in checkpoint.tensors.items():
            assert np.array_equal(read_array(entry), in_memory[key].detach().numpy())
    assert fingerprint(opened[0]) == fingerprint(open_checkpoint(tmp_path / "old"))


def test_tied_embeddings_have_no_head(tmp_path):
    tensors = open_checkpoint(save_tiny(tmp_path, "qwen2_5_vl", tied=True)).tensors
    assert "text.embed_tokens.weight" in tensors
    assert not [t for t in tensors if "lm_head" in t]


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float32])
def test_values_are_exact_in_every_type(tmp_path, dtype):
    model = tiny("qwen2").to(dtype)
    model.save_pretrained(tmp_path)
    for name, parameter in model.named_parameters():
        entry = open_checkpoint(tmp_path).tensors[canonical(name, "qwen2")]
        assert np.array_equal(read_array(entry), parameter.detach().float().numpy())


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("model.layers.3.self_attn.q_proj.weight", ("text", 3, "attn")),
        ("model.language_model.layers.27.mlp.up_proj.weight", ("text", 27, "mlp")),
        ("visual.blocks.31.norm2.weight", ("vision", 31, "norm")),
        ("model.visual.merger.mlp.0.weight", ("projector", None, "mlp")),
        ("visual.patch_embed.proj.weight", ("vision", None, "patch")),
        ("lm_head.weight", ("text", None, "head")),
        ("model.norm.weight", ("text", None, "norm")),
        ("model.embed_tokens.weight", ("text", None, "embed")),
    ],
)
def test_places_of_qwen25_vl(name, expected):
    spot = place(name, "qwen2_5_vl")
    assert (spot.part, spot.layer, spot.component) == expected


def test_unknown_names_are_refused_loudly():
    with pytest.raises(FrankenError, match="unknown tensor"):
        place("model.layers.0.adapter.weight", "qwen2_5_vl")
    with pytest.raises(UsageError) as caught:
        place("x", "qwen2_5_v")
    assert "qwen2_5_vl" in caught.value.fix


def test_broken_files_say_so(tmp_path):
    folder = save_tiny(tmp_path / "m", "qwen2", max_shard_size="30KB")
    index = json.loads((folder / "model.safetensors.index.json").read_text())
    shard = folder / sorted(set(index["weight_map"].values()))[0]
    whole = shard.read_bytes()
    for cut in (len(whole) - 1, 200, 4, 0):
        shard.write_bytes(whole[:cut])
        with pytest.raises(FrankenError, match="truncated"):
            open_checkpoint(folder)
    header = b'{"model.norm.weight": {"dtype": "F32", "shape": [9], "data_offsets": [0, 4]}}'
    shard.write_bytes(struct.pack("<Q", len(header)) + header + b"\0" * 4)
    with pytest.raises(FrankenError, match="truncated"):
        open_checkpoint(folder)
    shard.unlink()
    with pytest.raises(FrankenError, match="missing"):
        open_checkpoint(folder)


def test_an_index_may_not_leave_its_folder(tmp_path):
    folder = save_tiny(tmp_path / "m", "qwen2", max_shard_size="30KB")
    file = folder / "model.safetensors.index.json"
    index = json.loads(file.read_text())
    index["weight_map"] = dict.fromkeys(index["weight_map"], "../secret.safetensors")
    file.write_text(json.dumps(index))
    (tmp_path / "secret.safetensors").write_bytes(b"x")
    with pytest.raises(FrankenError, match="outside"):
        open_checkpoint(folder)


def test_what_is_no_checkpoint(tmp_path):
    with pytest.raises(UsageError, match="no checkpoint"):
        open_checkpoint(tmp_path / "nowhere")
    with pytest.raises(UsageError, match="config.json"):
        open_checkpoint(tmp_path)
    (tmp_path / "config.json").write_text('{"model_type": "qwen2"}')
    with pytest.raises(FrankenError, match="no weights"):
        open_checkpoint(tmp_path)
    (tmp_path / "pytorch_model.bin").write_bytes(b"x")
    with pytest.raises(FrankenError, match="pickled"):
        open_checkpoint(tmp_path)
    with pytest.raises(UsageError, match="not in the local cache"):
        open_checkpoint("someone/some-model")
    with pytest.raises(UsageError, match="no checkpoint 'rl'"):
        open_checkpoint("creature:rl")
