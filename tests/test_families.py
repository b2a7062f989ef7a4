"""Every operation on every family, through its real processor (tests/family_matrix.py), and the
page that says so.
"""

from pathlib import Path

import pytest
import torch
from family_matrix import LINEAR, OPERATIONS, SHARED, Subject, asked, refusal, table
from tiny_processors import CASE, tiny_loaded

from franken.errors import UsageError
from franken.generate import encode_prompts
from franken.models.families import family_of
from franken.models.hooks import edit
from franken.models.tiny import TINY_FAMILIES, tiny, tiny_inputs
from franken.probe.plan import plan_probe
from trainer.towers import keeps_features

PAGE = Path(__file__).parents[1] / "docs" / "families.md"


@pytest.fixture(scope="module")
def loaded_of():
    """The tiny model of a case with its processor, made once."""
    made = {}
    return lambda name: made.setdefault(name, tiny_loaded(CASE[name]))


@pytest.mark.parametrize("operation", OPERATIONS)
@pytest.mark.parametrize("name", CASE)
def test_one_and_two_images_in_a_batch(loaded_of, name, operation):
    expected = refusal(CASE[name], operation)
    subject = Subject(CASE[name], loaded_of(name))
    if expected is None:
        OPERATIONS[operation](subject)
        return
    with pytest.raises(UsageError) as caught:
        OPERATIONS[operation](subject)
    assert expected in caught.value.why


@pytest.mark.slow
@pytest.mark.parametrize("images", [1, 2])
@pytest.mark.parametrize("operation", OPERATIONS)
@pytest.mark.parametrize("name", CASE)
def test_as_many_images_in_every_prompt(loaded_of, name, operation, images):
    if refusal(CASE[name], operation) is None:
        OPERATIONS[operation](Subject(CASE[name], loaded_of(name), images))


@pytest.mark.parametrize(
    ("name", "tiles"),
    [
        ("InternVL 3", 5),  # four tiles and the whole
        ("LLaVA-NeXT", 3),
        ("LLaVA-OneVision", 3),
        ("SmolVLM", 3),
        ("Idefics3", 3),
        ("Gemma 3, pan and scan", 5),
        ("Gemma 3", 1),
    ],
)
def test_a_tall_picture_is_cut_up(loaded_of, name, tiles):
    batch = encode_prompts(loaded_of(name), [asked("w10", [(28, 112)])])
    pixels = batch.images.pixel_values
    assert pixels.numel() // (3 * 28 * 28) == tiles


@pytest.mark.parametrize("family", TINY_FAMILIES)
@torch.no_grad()
def test_attention_and_mlp_are_all_that_a_layer_adds(family):
    """Behind the norms that some families have there: the mean of an MLP that a layer is given is
    the mean of what the stream was given.
    """
    model = tiny(family, text={"hidden_size_per_layer_input": 0} if family == "gemma4" else None)
    for layer in (block := model.get_decoder().layers):
        for norm in (m for name, m in layer.named_children() if "norm" in name):
            torch.nn.init.normal_(norm.weight)  # as trained ones are: not all alike
    parts = [family_of(family).adds(layer) for layer in block]
    added: dict[object, torch.Tensor] = {}

    def look(module, number):
        def keep(output, context):
            added[number] = output - context.input if module == "layer" else output
            return output

        return keep

    watched = {layer: look("layer", ("layer", n)) for n, layer in enumerate(block)}
    for n, part in enumerate(parts):
        watched |= {module: look(name, (name, n)) for name, module in part.items()}
    with edit(watched):
        model(**tiny_inputs(family), use_cache=False)
    for n in range(len(block)):
        both = added["attention", n] + added["mlp", n]
        assert torch.allclose(added["layer", n], both, atol=1e-4), n


def test_a_tower_of_which_anything_trains_is_not_frozen(loaded_of):
    loaded = loaded_of("LLaVA-NeXT")
    loaded.model.requires_grad_(False)
    assert keeps_features(loaded)
    for name in ("image_newline", "vision_tower.embeddings.patch_embedding.weight"):
        parameter = loaded.model.model.get_parameter(name)
        parameter.requires_grad_(True)
        assert not keeps_features(loaded)
        parameter.requires_grad_(False)
    loaded.model.requires_grad_(True)


@pytest.mark.parametrize(
    ("name", "method", "others"),
    [
        ("Qwen3.5", "swap-single", "attention,lens,patch,zero"),
        ("Qwen3.5", "patch-heads", "attention,lens,patch,zero"),
        ("Gemma 4, small", "patch-mlp", "attention,lens,zero"),
    ],
)
def test_a_plan_refuses_what_is_not_defined_and_says_what_is(
    loaded_of, tmp_path, name, method, others
):
    loaded_of(name).model.save_pretrained(tmp_path)
    with pytest.raises(UsageError, match=f"{method} is not defined") as caught:
        plan_probe(str(tmp_path), methods=[method], task_names=["read"], samples=1)
    assert LINEAR in caught.value.why or SHARED in caught.value.why
    assert caught.value.fix == f"use --method {others}"


def test_the_page_says_what_is_tested():
    assert table() in PAGE.read_text()
