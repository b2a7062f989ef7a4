"""Hooks against hand-written forwards and nnsight; token spans; loading."""

import shutil

import pytest
import torch
from safetensors.torch import load_file, save_file

from franken.errors import FrankenError, UsageError
from franken.models.creature import WEIGHTS
from franken.models.families import FAMILIES, family_of
from franken.models.hooks import edit, identity_layer
from franken.models.loading import load, pick_device
from franken.models.positions import position_ids
from franken.models.tiny import TINY_FAMILIES, save_tiny, tiny, tiny_inputs
from franken.models.tiny_configs import IMAGE, tiny_config
from franken.models.tokens import only_image, token_map


# Where layers are of several kinds, one that is cut out makes the others of another kind.
@pytest.mark.parametrize("model_type", sorted({*TINY_FAMILIES} - {"qwen3_5", "gemma4"}))
@torch.no_grad()
def test_skipping_a_layer_equals_a_model_without_it(model_type):
    model, inputs = tiny(model_type), tiny_inputs(model_type, 2)
    before = {n: p.clone() for n, p in model.state_dict().items()}
    plain = model(**inputs).logits
    layers = model.get_decoder().layers
    with edit({layers[2]: identity_layer}):
        skipped = model(**inputs).logits
    assert not torch.equal(skipped, plain)
    kept = layers[2]
    del layers[2]
    model.config.get_text_config().num_hidden_layers = 2
    model.get_decoder().config.num_hidden_layers = 2
    assert torch.equal(model(**inputs).logits, skipped)
    layers.append(kept)
    model.get_decoder().config.num_hidden_layers = 3
    assert torch.equal(model(**inputs).logits, plain)
    assert all(torch.equal(before[n], p) for n, p in model.state_dict().items())


@torch.no_grad()
def test_hooks_come_off_after_an_exception_and_phases_are_kept_apart():
    model, inputs = tiny("qwen2_5_vl"), tiny_inputs("qwen2_5_vl")
    plain = model(**inputs).logits
    layer = model.get_decoder().layers[0]
    with pytest.raises(RuntimeError, match="mine"), edit({layer: lambda h, c: h * 0}):
        raise RuntimeError("mine")
    assert torch.equal(model(**inputs).logits, plain)
    seen = []
    with edit({layer: lambda h, c: seen.append(c.phase) or h}, phase="decode"):
        model(**inputs)
        assert seen == []
        model(input_ids=torch.tensor([[7]]))
    assert seen == ["decode"]
    with edit({layer.self_attn: lambda h, c: h * 0}, phase="prefill"):
        assert not torch.equal(model(**inputs).logits, plain)


@torch.no_grad()
def test_a_hook_equals_nnsight():
    from nnsight import NNsight

    model, inputs = tiny("qwen2_5_vl"), tiny_inputs("qwen2_5_vl")
    model.model.rope_deltas = None
    with edit({model.get_decoder().layers[1]: lambda h, c: h * 0.5}):
        ours = model(**inputs).logits
    traced = NNsight(model)
    with traced.trace(**inputs):
        traced.model.language_model.layers[1].output[:] = (
            traced.model.language_model.layers[1].output * 0.5
        )
        theirs = traced.output.logits.save()
    assert torch.equal(ours, theirs)


def test_token_spans_with_several_images_and_padding():
    config = tiny_config("qwen2_5_vl")
    row = [0, 0, 5, IMAGE, IMAGE, 6, IMAGE, 7, 8]
    mask = torch.tensor([[0, 0, 1, 1, 1, 1, 1, 1, 1]])
    spans = token_map(torch.tensor([row]), config, attention_mask=mask, answer_start=8)[0]
    assert (spans.padding, spans.system) == (slice(0, 2), slice(2, 3))
    assert spans.images == (slice(3, 5), slice(6, 7))
    assert (spans.question, spans.answer) == (slice(7, 8), slice(8, 9))
    with pytest.raises(FrankenError, match="2 images"):
        only_image(spans)
    text = token_map(torch.tensor([[5, 6, 7]]), tiny_config("qwen2"))[0]
    assert (text.images, text.question) == ((), slice(0, 3))


@pytest.mark.parametrize("model_type", ["qwen2_5_vl", "qwen3_vl"])
@torch.no_grad()
def test_positions_equal_the_models_own(model_type):
    model, inputs = tiny(model_type), tiny_inputs(model_type, 2)
    own = model(**inputs).logits
    inputs["position_ids"] = position_ids(
        model, inputs["input_ids"], inputs["attention_mask"], inputs["image_grid_thw"]
    )
    del inputs["mm_token_type_ids"]
    model.model.rope_deltas = None
    assert torch.equal(model(**inputs).logits, own)


def test_vision_tokens_are_banned_and_the_end_is_not(fresh_creature):
    banned = fresh_creature.family.banned_token_ids(
        fresh_creature.model.config, fresh_creature.tokenizer
    )
    names = set(fresh_creature.tokenizer.convert_ids_to_tokens(banned))
    assert {
        "<|image_pad|>",
        "<|video_pad|>",
        "<|vision_start|>",
        "<|vision_end|>",
        "<|im_start|>",
    } <= names
    assert fresh_creature.tokenizer.eos_token_id not in banned


@pytest.mark.parametrize("model_type", TINY_FAMILIES)
def test_every_family_shows_its_parts(model_type):
    model, family = tiny(model_type), family_of(model_type)
    assert len(family.decoder_layers(model)) == 3
    blocks = family.vision_blocks(model)
    assert (blocks is None) == (model_type in ("qwen2", "qwen3"))
    assert blocks is None or (len(blocks) == 2 and list(family.projector_of(model).parameters()))


def test_unknown_families_and_devices():
    with pytest.raises(UsageError) as caught:
        family_of("qwen2_5_lv")
    assert "qwen2_5_vl" in caught.value.fix
    assert set(TINY_FAMILIES) <= set(FAMILIES)
    with pytest.raises(UsageError):
        pick_device("tpu9000")


def test_a_checkpoint_with_a_missing_weight_does_not_load(tmp_path):
    folder = save_tiny(tmp_path / "m", "qwen2")
    tensors = load_file(folder / "model.safetensors")
    del tensors["model.norm.weight"]
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    for name in ("tokenizer.json", "tokenizer_config.json"):
        shutil.copy(WEIGHTS / "sft" / name, folder)
    with pytest.raises(FrankenError, match="does not load completely"):
        load(folder)
