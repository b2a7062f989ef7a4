"""Hybrids of constant-weight models: every weight 1 in the base, 2 in the donor."""

import json

import numpy as np
import pytest
import torch

from franken.checkpoints import open_checkpoint, read_array, read_bytes
from franken.errors import FrankenError, UsageError, VerificationError
from franken.layers import LayerRange
from franken.merge import run as merge_run
from franken.merge.graft import graft
from franken.merge.plan import plan_merge, spans
from franken.merge.run import run_merge
from franken.models.tiny import TINY_FAMILIES, save_tiny, tiny

MIDDLE = (LayerRange("text", 1, 2),)


def pair(tmp_path, model_type="qwen2_5_vl", **kwargs):
    base = open_checkpoint(save_tiny(tmp_path / "base", model_type, value=1.0, **kwargs))
    kwargs.pop("max_shard_size", None)
    donor = open_checkpoint(save_tiny(tmp_path / "donor", model_type, value=2.0, original_names=False, **kwargs))
    return base, donor


@pytest.mark.parametrize("model_type", TINY_FAMILIES)
@pytest.mark.parametrize("shards", [None, "60KB"])
def test_exactly_the_named_layers_come_from_the_donor(tmp_path, model_type, shards):
    base, donor = pair(tmp_path, model_type, **({"max_shard_size": shards} if shards else {}))
    out = run_merge(base, donor, MIDDLE, tmp_path / "hybrid")
    result = open_checkpoint(out)
    assert set(result.tensors) == set(base.tensors)
    for entry in result.tensors.values():
        expected = 2.0 if (entry.place.part, entry.place.layer) == ("text", 1) else 1.0
        assert (read_array(entry) == expected).all(), entry.name


def test_vision_layers_can_be_named(tmp_path):
    base, donor = pair(tmp_path, "llava_onevision")
    out = run_merge(base, donor, (LayerRange("vision", 0, 1),), tmp_path / "hybrid")
    for entry in open_checkpoint(out).tensors.values():
        expected = 2.0 if (entry.place.part, entry.place.layer) == ("vision", 0) else 1.0
        assert (read_array(entry) == expected).all(), entry.name


@pytest.mark.parametrize("tied", [False, True])
def test_transplants_are_bit_exact_and_load(tmp_path, tied):
    base = open_checkpoint(save_tiny(tmp_path / "base", "qwen2_5_vl", 0, tied=tied))
    donor = open_checkpoint(save_tiny(tmp_path / "donor", "qwen2_5_vl", 1, tied=tied))
    out = run_merge(base, donor, (LayerRange("text", 0, 1), LayerRange("text", 2, 3)), tmp_path / "hybrid")
    result = open_checkpoint(out)
    for key, entry in result.tensors.items():
        source = donor if entry.place.part == "text" and entry.place.layer in (0, 2) else base
        assert read_bytes(entry) == read_bytes(source.tensors[key])
    record = json.loads((out / "franken_merge.json").read_text())
    assert len(record["tensors"]) == len(base.tensors)
    from transformers import Qwen2_5_VLForConditionalGeneration

    _, report = Qwen2_5_VLForConditionalGeneration.from_pretrained(out, output_loading_info=True)
    assert not report["missing_keys"]
    assert not report["unexpected_keys"]


def test_interpolation_is_mergekits_linear(tmp_path):
    base = open_checkpoint(save_tiny(tmp_path / "base", "qwen2", 0))
    donor = open_checkpoint(save_tiny(tmp_path / "donor", "qwen2", 1))
    result = open_checkpoint(run_merge(base, donor, MIDDLE, tmp_path / "hybrid", alpha=0.25))
    for key, entry in result.tensors.items():
        a, b = read_array(base.tensors[key]), read_array(donor.tensors[key])
        expected = 0.75 * a + 0.25 * b if entry.place.layer == 1 else a
        assert np.allclose(read_array(entry), expected, atol=1e-6)


def test_the_shipped_creature_brings_its_processor_along(tmp_path):
    base, donor = open_checkpoint("creature:base"), open_checkpoint("creature:sft")
    out = run_merge(base, donor, (LayerRange("text", 2, 4),), tmp_path / "hybrid", verify_load=True)
    for name in ("tokenizer.json", "processor_config.json", "chat_template.jinja", "generation_config.json"):
        assert (out / name).exists() == (base.folder / name).exists()
    again = run_merge(base, donor, (LayerRange("text", 2, 4),), out)
    assert again == out
    with pytest.raises(UsageError, match="something else"):
        run_merge(base, donor, (LayerRange("text", 2, 5),), out)


def test_models_that_do_not_fit_are_refused(tmp_path):
    base = open_checkpoint(save_tiny(tmp_path / "base", "qwen2", layers=3))
    other = open_checkpoint(save_tiny(tmp_path / "other", "qwen3", layers=3))
    deeper = open_checkpoint(save_tiny(tmp_path / "deeper", "qwen2", layers=4))
    for donor, word in ((other, "model_type"), (deeper, "num_hidden_layers")):
        with pytest.raises(UsageError) as caught:
            plan_merge(base, donor, MIDDLE)
        assert word in caught.value.why
    with pytest.raises(UsageError, match="alpha"):
        plan_merge(base, base, MIDDLE, alpha=1.5)


@pytest.mark.parametrize("error", [KeyboardInterrupt(), OSError(28, "No space left on device")])
def test_an_interrupt_or_a_full_disk_leaves_nothing(tmp_path, error):
    base, donor = pair(tmp_path, max_shard_size="60KB")
    seen = []

    def stop(n):
        seen.append(n)
        if len(seen) == 20:
            raise error

    with pytest.raises((KeyboardInterrupt, FrankenError)):
        run_merge(base, donor, MIDDLE, tmp_path / "hybrid", progress=stop)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["base", "donor"]


def test_a_wrong_byte_is_found(tmp_path, monkeypatch):
    base, donor = pair(tmp_path)
    write = merge_run._write

    def corrupt(*args):
        write(*args)
        file = args[2] / "model.safetensors"
        data = bytearray(file.read_bytes())
        data[-1] ^= 1
        file.write_bytes(data)

    monkeypatch.setattr(merge_run, "_write", corrupt)
    with pytest.raises(VerificationError):
        run_merge(base, donor, MIDDLE, tmp_path / "hybrid")
    assert not (tmp_path / "hybrid").exists()
    assert (tmp_path / "hybrid.FAILED").exists()


def test_a_folder_with_other_things_is_refused(tmp_path):
    base, donor = pair(tmp_path)
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "thesis.tex").write_text("x")
    with pytest.raises(UsageError, match="something else"):
        run_merge(base, donor, MIDDLE, tmp_path / "full")


@pytest.mark.parametrize("model_type", TINY_FAMILIES)
def test_graft_swaps_and_restores_bit_for_bit(tmp_path, model_type):
    donor = open_checkpoint(save_tiny(tmp_path / "donor", model_type, seed=1))
    expected = tiny(model_type, 1).get_decoder().layers
    model = tiny(model_type, 0)
    before = {n: p.clone() for n, p in model.state_dict().items()}
    with pytest.raises(RuntimeError, match="inside"), graft(model, donor, MIDDLE):
        for a, b in zip(model.get_decoder().layers[1].parameters(), expected[1].parameters(), strict=True):
            assert torch.equal(a, b)
        untouched = model.get_decoder().layers[0].state_dict()
        assert not torch.equal(untouched["mlp.up_proj.weight"], expected[0].mlp.up_proj.weight)
        raise RuntimeError("inside")
    assert all(torch.equal(before[n], p) for n, p in model.state_dict().items())


def test_spans():
    assert spans([0, 1, 2, 5, 7, 8]) == "0..2, 5, 7..8"
    assert spans([]) == ""
