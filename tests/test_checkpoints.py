"""Checkpoints on disk: every family's names, both spellings, shards, and everything that can be
broken.
"""

import json
import struct

import numpy as np
import pytest
import torch

from franken.checkpoints import fingerprint, name_of, open_checkpoint, read_array
from franken.errors import FrankenError, UsageError
from franken.experts import slot_of
from franken.models.loading import saved_tensors
from franken.models.tiny import save_tiny, tiny
from franken.models.tiny_configs import CONFIGS
from franken.names import canonical


@pytest.mark.parametrize("model_type", CONFIGS)
def test_both_spellings_and_shards_give_the_same_tensors(tmp_path, model_type):
    model = tiny(model_type)
    opened = [
        open_checkpoint(save_tiny(tmp_path / "old", model_type)),
        open_checkpoint(save_tiny(tmp_path / "new", model_type, original_names=False)),
        open_checkpoint(save_tiny(tmp_path / "shards", model_type, max_shard_size="60KB")),
    ]
    assert len({e.file for e in opened[2].tensors.values()}) > 1
    in_memory = {canonical(n, model_type): p for n, p in saved_tensors(model)}
    for checkpoint in opened:
        slots = {key: slot_of(key) for key in checkpoint.tensors}  # where experts are split on disk
        assert {s.fused if s else key for key, s in slots.items()} == set(in_memory)
        assert checkpoint.depths["text"] == len(model.get_decoder().layers)
        for key, entry in checkpoint.tensors.items():
            slot = slots[key]
            held = slot.of(in_memory[slot.fused]) if slot else in_memory[key]
            assert np.array_equal(read_array(entry), held.detach().numpy())
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


def test_a_hub_id_is_read_from_the_local_cache_only(tmp_path, monkeypatch):
    """The cache's own layout, refs and snapshots; the network is reached by `download` alone."""
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path))
    snapshot = tmp_path / "models--someone--tiny-qwen" / "snapshots" / "0123456789abcdef"
    save_tiny(snapshot, "qwen2")
    refs = snapshot.parents[1] / "refs"
    refs.mkdir()
    (refs / "main").write_text(snapshot.name)
    assert open_checkpoint("someone/tiny-qwen").folder == snapshot
    with pytest.raises(UsageError) as caught:
        open_checkpoint("someone/else")
    assert "--download" in caught.value.fix


@pytest.mark.parametrize(
    ("folder", "name"),
    [
        ("/data/my-model", "my-model"),
        ("runs/rl/final", "rl"),
        ("final", "final"),
        ("weights/creature/sft", "creature-sft"),
        ("hub/models--Qwen--Qwen2.5-VL-3B-Instruct/snapshots/0a1b2c", "Qwen2.5-VL-3B-Instruct"),
    ],
)
def test_names_are_those_that_people_use(folder, name):
    assert name_of(folder) == name
