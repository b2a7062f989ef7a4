"""Every family's names: all spellings, the places they mean, and what is refused."""

import pytest

from franken.errors import FrankenError, UsageError
from franken.models.tiny import tiny
from franken.models.tiny_configs import CONFIGS
from franken.names import canonical, place

LAYER_COMPONENTS = {"attn", "mlp", "router", "norm"}


@pytest.mark.parametrize("model_type", CONFIGS)
def test_every_tensor_of_every_family_has_the_place_of_its_module(model_type):
    """The module tree, not a rule on names, says what belongs to the decoder, the tower, the
    rest.
    """
    model = tiny(model_type)
    tower = next(
        (
            m
            for n, m in model.named_modules()
            if n.rsplit(".")[-1] in ("visual", "vision_tower", "vision_model")
        ),
        None,
    )
    mergers = [
        m
        for n, m in model.named_modules()
        if ("merger" in n or "downsample" in n) and tower is not None and "patch_merger" not in n
    ]
    parts = {id(p): "text" for p in model.get_decoder().parameters()}
    parts |= {id(p): "text" for p in model.get_output_embeddings().parameters()}
    parts |= {id(p): "vision" for p in (tower.parameters() if tower is not None else ())}
    parts |= {id(p): "projector" for m in mergers for p in m.parameters()}
    layers = {
        id(p): i for i, layer in enumerate(model.get_decoder().layers) for p in layer.parameters()
    }
    keys = set()
    for name, parameter in model.named_parameters():
        spot = place(name, model_type)
        keys.add(canonical(name, model_type))
        assert spot.part == parts.get(id(parameter), "projector"), name
        assert canonical(name, model_type).startswith(f"{spot.part}.")
        if spot.part == "text":
            assert spot.layer == layers.get(id(parameter)), name
        if spot.layer is not None:
            assert spot.component in LAYER_COMPONENTS, name
    assert len(keys) == len(list(model.named_parameters()))
    depths = {
        s.layer
        for s in (place(n, model_type) for n, _ in model.named_parameters())
        if s.part == "vision"
    } - {None}
    assert depths == (set() if tower is None else {0, 1})


@pytest.mark.parametrize(
    ("model_type", "spellings"),
    [
        (
            "qwen2_5_vl",
            ["visual.blocks.3.attn.qkv.weight", "model.visual.blocks.3.attn.qkv.weight"],
        ),
        (
            "qwen2_5_vl",
            [
                "model.layers.3.mlp.up_proj.weight",
                "model.language_model.layers.3.mlp.up_proj.weight",
            ],
        ),
        ("llava", ["language_model.lm_head.weight", "lm_head.weight"]),
        (
            "llava_next",
            [
                "vision_tower.vision_model.encoder.layers.3.mlp.fc1.weight",
                "model.vision_tower.vision_model.encoder.layers.3.mlp.fc1.weight",
                "model.vision_tower.encoder.layers.3.mlp.fc1.weight",
                "vision_tower.encoder.layers.3.mlp.fc1.weight",
            ],
        ),
        ("llava_next", ["image_newline", "model.image_newline"]),
        ("gemma3", ["language_model.model.norm.weight", "model.language_model.norm.weight"]),
    ],
)
def test_all_spellings_are_one_tensor(model_type, spellings):
    assert len({canonical(name, model_type) for name in spellings}) == 1
    assert len({place(name, model_type) for name in spellings}) == 1


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("vision_model.encoder.layers.3.attn.qkv.weight", ("vision", 3, "attn")),
        ("vision_model.encoder.layers.3.ls2", ("vision", 3, "mlp")),
        ("vision_model.embeddings.class_embedding", ("vision", None, "patch")),
        ("mlp1.0.weight", ("projector", None, "mlp")),
        ("language_model.model.layers.2.mlp.up_proj.weight", ("text", 2, "mlp")),
        ("language_model.lm_head.weight", ("text", None, "head")),
    ],
)
def test_places_of_internvl_as_its_authors_publish_it(name, expected):
    spot = place(name, "internvl_chat")
    assert (spot.part, spot.layer, spot.component) == expected


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


@pytest.mark.parametrize(
    ("model_type", "name", "expected"),
    [
        (
            "qwen3_5",
            "model.language_model.layers.3.linear_attn.conv1d.weight",
            ("text", 3, "attn"),
        ),
        ("qwen3_5", "model.language_model.layers.3.linear_attn.A_log", ("text", 3, "attn")),
        ("qwen3_5", "mtp.layers.0.self_attn.q_proj.weight", ("text", None, "head")),
        ("glm4v", "model.visual.downsample.weight", ("projector", None, "mlp")),
        (
            "gemma4",
            "model.language_model.per_layer_projection_norm.weight",
            ("text", None, "embed"),
        ),
        ("glm46v", "model.visual.post_conv_layernorm.weight", ("vision", None, "norm")),
        ("gemma4", "model.language_model.layers.7.layer_scalar", ("text", 7, "norm")),
        ("gemma4", "model.vision_tower.std_bias", ("vision", None, "norm")),
        (
            "gemma4",
            "model.vision_tower.encoder.layers.2.mlp.up_proj.input_max",
            ("vision", 2, "mlp"),
        ),
        ("gemma4", "model.audio_tower.layers.2.self_attn.q_proj.weight", ("vision", None, "patch")),
        ("gemma4", "model.embed_audio.embedding_projection.weight", ("projector", None, "mlp")),
    ],
)
def test_places_that_no_tiny_model_has(model_type, name, expected):
    """What real checkpoints hold beside it: towers for sound, scales, extra heads."""
    spot = place(name, model_type)
    assert (spot.part, spot.layer, spot.component) == expected


def test_unknown_names_are_refused_loudly():
    with pytest.raises(FrankenError, match="unknown tensor"):
        place("model.layers.0.adapter.weight", "qwen2_5_vl")
    with pytest.raises(UsageError) as caught:
        place("x", "qwen2_5_v")
    assert "qwen2_5_vl" in caught.value.fix
