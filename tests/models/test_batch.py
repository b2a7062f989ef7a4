"""Rows of a batch against the processor's output for these rows alone, on every family that sees;
with none, one and two images a row.
"""

from dataclasses import replace

import numpy as np
import pytest
import torch
from family_matrix import own_inputs
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from tiny_processors import tiny_loaded

from franken.errors import FrankenError
from franken.generate import Prompt, Sampling, encode_prompts, generate
from franken.generate.engine import raw_ids
from franken.models.batch import IMAGES, TOKENS, ModelBatch, join
from franken.models.tiny import TINY_VISION, tiny, tiny_batch, tiny_inputs
from trainer.towers import with_features

M_ROPE = ("qwen2_vl", "qwen3_vl", "glm4v")
# One for every way of laying out pixels and tokens.
LAYOUTS = [
    name
    for name in TINY_VISION
    if name not in ("qwen2_5_vl", "qwen3_5", "glm46v", "llava_next", "idefics3")
]
every_family = pytest.mark.parametrize("family", LAYOUTS)


def picture(width, height, seed):
    rng = np.random.default_rng(seed)
    return Image.fromarray(rng.integers(0, 255, (height, width, 3), dtype=np.uint8))


PROMPTS = [
    Prompt("w10 w11", (), "none"),
    Prompt("w12", (picture(56, 28, 0),), "wide"),
    Prompt("w13 w14 w15", (picture(28, 56, 1), picture(84, 28, 2)), "two"),
    Prompt("w16", (picture(28, 28, 3),), "small"),
    Prompt("w17 w18 w19 w20", (), "none again"),
    Prompt("w21 w22", (picture(84, 28, 4), picture(28, 28, 5)), "two again"),
]


@pytest.fixture(scope="module")
def loaded_of():
    """The tiny model of a family, made once."""
    made = {}
    return lambda family: made.setdefault(family, tiny_loaded(family))


def without_padding(values):
    """Crops `[images, most, …]` have zeros behind them, more in larger batches; so have pictures of
    unequal size (Mistral 3).
    """
    if values.ndim < 4:
        return values
    if values.ndim == 5:
        return values[:, : int(values.flatten(2).any(-1).any(0).sum())]
    high, wide = (values.flatten(0, 1).any(0).any(axis).sum() for axis in (1, 0))
    return values[..., : int(high), : int(wide)]


def assert_same(ours, theirs):
    """Every tensor, and every count."""
    assert list(ours.keys()) == list(theirs.keys())
    for name in TOKENS + IMAGES:
        if name in theirs:
            assert torch.equal(*map(without_padding, (ours[name], theirs[name]))), name
    assert (ours.images.counts, ours.images.entries) == (
        theirs.images.counts,
        theirs.images.entries,
    )


@every_family
@settings(max_examples=15, deadline=None)
@given(rows=st.lists(st.integers(0, len(PROMPTS) - 1), min_size=1, max_size=4))
def test_rows_are_what_the_processor_makes_of_them_alone(loaded_of, family, rows):
    loaded = loaded_of(family)
    batch = encode_prompts(loaded, PROMPTS)
    assert batch.images.counts == (0, 1, 2, 1, 0, 2)
    assert_same(batch.slice(rows).trim(), encode_prompts(loaded, [PROMPTS[row] for row in rows]))


@every_family
def test_rows_without_any_image_have_no_pixels(loaded_of, family):
    batch = encode_prompts(loaded_of(family), PROMPTS).slice([4, 0])
    assert not batch.images.tensors()
    assert_same(batch.trim(), encode_prompts(loaded_of(family), [PROMPTS[4], PROMPTS[0]]))


@every_family
@torch.no_grad()
def test_the_model_says_of_a_row_what_it_says_of_it_alone(loaded_of, family):
    """Alone: as the processor returns it, with the model's own positions, and without padding."""
    loaded = loaded_of(family)
    together = loaded.model(**encode_prompts(loaded, PROMPTS)).logits[:, -1]
    for row, prompt in enumerate(PROMPTS):
        alone = own_inputs(loaded, prompt)
        if family in M_ROPE:
            loaded.model.model.rope_deltas = None
        logits = loaded.model(**alone).logits[0, -1]
        assert torch.allclose(together[row], logits, atol=1e-4), prompt.key


@every_family
def test_appended_tokens_are_those_of_longer_prompts(loaded_of, family):
    """The chat template ends in w6: what is behind it here is part of the text there."""
    loaded = loaded_of(family)
    longer = [replace(p, text=p.text + " w6 w30 w31 w32") for p in PROMPTS]
    expected = encode_prompts(loaded, longer)
    expected = expected.prefix(expected.tokens - 1)
    batch = encode_prompts(loaded, PROMPTS)
    assert_same(batch.append([30, 31, 32]), expected)
    rows = torch.tensor([[30, 31, 32]]).repeat(len(PROMPTS), 1)
    assert_same(batch.append(rows[:, :1]).append(rows[:, 1:]), expected)
    assert_same(batch.append([]), batch)


@pytest.mark.parametrize("family", M_ROPE)
def test_positions_go_on_behind_an_image(family):
    """The next position is one more than the largest of the image's three axes."""
    model = tiny(family)
    inputs = tiny_inputs(family)
    inputs["image_grid_thw"] = torch.tensor([[1, 8, 2]])  # four rows of one visual token
    whole = ModelBatch.of(model, inputs, [1])
    image_end = int(whole.is_image[0].nonzero()[-1]) + 1
    appended = whole.prefix(image_end).append(whole.input_ids[:, image_end:])
    assert torch.equal(appended.position_ids, whole.position_ids)


def test_appended_padding_is_masked():
    batch = tiny_batch(tiny("gemma3"), 2).append(
        torch.tensor([[7, 8], [9, 0]]), torch.tensor([[True, True], [True, False]])
    )
    assert batch.attention_mask[:, -2:].tolist() == [[1, 1], [1, 0]]
    assert batch.token_type_ids[:, -2:].tolist() == [[0, 0], [0, 0]]
    assert batch.trim().tokens == batch.tokens


@every_family
def test_repeated_rows_are_repeated_prompts(loaded_of, family):
    loaded = loaded_of(family)
    ours = encode_prompts(loaded, PROMPTS).repeat(3)
    assert_same(ours, encode_prompts(loaded, [p for p in PROMPTS for _ in range(3)]))


@every_family
def test_joined_rows_are_the_batch(loaded_of, family):
    batch = encode_prompts(loaded_of(family), PROMPTS)
    parts = [batch.slice(rows) for rows in ([0], [1, 2], [3, 4, 5])]
    assert_same(join(parts), batch)
    assert_same(join(parts[:1]), parts[0])


@every_family
def test_ids_with_placeholders_are_expanded_as_text_is(loaded_of, family):
    loaded = loaded_of(family)
    as_ids = [
        Prompt("", p.images, p.key, tuple(raw_ids(loaded.processor, loaded.tokenizer, p)))
        for p in PROMPTS
    ]
    assert_same(encode_prompts(loaded, as_ids), encode_prompts(loaded, PROMPTS))


@every_family
def test_answers_do_not_depend_on_the_batch(loaded_of, family):
    loaded = loaded_of(family)
    sampling = Sampling(2, 1.0, 5)
    together = generate(loaded, PROMPTS, sampling)
    alone = [generate(loaded, [prompt], sampling)[0] for prompt in PROMPTS]
    assert [[r.ids for r in row] for row in together] == [[r.ids for r in row] for row in alone]


@every_family
@pytest.mark.parametrize("at_once", [0, 1, 4])
@torch.no_grad()
def test_image_features_go_with_their_rows(loaded_of, family, at_once):
    loaded = loaded_of(family)
    loaded.model.requires_grad_(False)
    batch = encode_prompts(loaded, PROMPTS)
    known = with_features(loaded, batch, at_once)
    assert known.images.pixel_values is None
    for rows in ([2, 0, 5], [4], [3, 3]):
        seen, given = (loaded.model(**b.slice(rows)).logits for b in (batch, known))
        assert torch.allclose(seen, given, atol=1e-5)
    both = join([known.slice([5, 1]), known.slice([0, 2])])
    seen = loaded.model(**batch.slice([5, 1, 0, 2])).logits
    assert torch.allclose(loaded.model(**both).logits, seen, atol=1e-5)
    assert {v.device.type for v in known.to("meta").images.features.pooler_output} == {"meta"}


@every_family
def test_a_batch_moves_as_a_whole(loaded_of, family):
    batch = encode_prompts(loaded_of(family), PROMPTS)
    moved = batch.to("meta")
    assert {moved[name].device.type for name in moved} == {"meta"}
    assert [moved[name].shape for name in moved] == [batch[name].shape for name in batch]
    assert moved.images.counts == batch.images.counts


@every_family
def test_pixels_that_are_not_those_of_the_images_are_refused(family):
    model, inputs = tiny(family), tiny_inputs(family, 2)
    for wrong in (inputs["pixel_values"][1:], torch.cat([inputs["pixel_values"]] * 2)):
        if family in ("gemma3", "llava") and len(wrong) == 4:
            continue  # as many tokens would be a smaller image's
        with pytest.raises(FrankenError, match="pixels"):
            ModelBatch.of(model, {**inputs, "pixel_values": wrong}, [1, 1])
    no_image = torch.full_like(inputs["input_ids"], 7)
    with pytest.raises(FrankenError, match="0 image tokens"):
        ModelBatch.of(model, {**inputs, "input_ids": no_image}, [1, 1])
