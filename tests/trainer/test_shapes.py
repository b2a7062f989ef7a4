"""Shapes without weights: the published parameter counts, and the same as the models in memory."""

import pytest

from franken.errors import UsageError
from franken.models.tiny import save_tiny, tiny
from trainer.shapes import QWEN, shapes_of


@pytest.mark.parametrize(
    ("name", "bytes_published"),  # total_size of the published model.safetensors.index.json, bf16
    [
        ("Qwen/Qwen2.5-VL-3B-Instruct", 7_509_245_952),
        ("Qwen/Qwen2.5-VL-7B-Instruct", 16_584_333_312),
    ],
)
def test_published_models_have_their_published_size(name, bytes_published):
    assert 2 * shapes_of(name).parameters == bytes_published


def test_fine_tunes_have_the_shape_of_their_base():
    ours, base = shapes_of("AIcell/Frankenstein-IN"), shapes_of("Qwen/Qwen2.5-VL-3B-Instruct")
    assert ours.tensors == base.tensors
    assert ours.text.layers == QWEN["Qwen/Qwen2.5-VL-3B-Instruct"]["num_hidden_layers"]


@pytest.mark.parametrize("tied", [True, False])
@pytest.mark.parametrize(
    "model_type", ["qwen2_5_vl", "qwen2_vl", "qwen3_vl", "qwen3", "llava_onevision"]
)
def test_shapes_from_headers_are_those_in_memory(model_type, tied, tmp_path):
    folder = save_tiny(tmp_path / "model", model_type, tied=tied)
    model = tiny(model_type, tied=tied)
    found = shapes_of(str(folder))
    assert found.parameters == sum(p.numel() for p in model.parameters())
    assert found.text.layers == 3
    assert found.vocabulary == model.get_input_embeddings().weight.shape[0]
    assert (found.vision is not None) == (model_type != "qwen3")


def test_what_is_nowhere_is_refused():
    with pytest.raises(UsageError):
        shapes_of("somebody/nothing")
