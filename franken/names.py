"""What a tensor's name says: one spelling for all that are in use, and the part, layer and
component it belongs to.

The same weight has several names. transformers 5 writes some families as they were first published
(`model.layers.N`, `visual.*`, `language_model.model.*`) and others as they are in memory
(`model.language_model.layers.N`, `model.visual.*`); towers were once nested in a `vision_model`.
`canonical` maps every spelling to one: `text.…`, `vision.…`, `projector.…`. `place` reads part,
layer and component from that. A name that no rule knows is refused: a differ or a merge that
overlooked a tensor would be wrong in silence.

An audio tower counts to `vision` outside of its layers, since nothing here probes it; the blocks
that predict several tokens at once (Qwen3.5's `mtp`) count to the head.

Left out: video-only towers.
"""

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from franken import plugins
from franken.errors import FrankenError, unknown


@dataclass(frozen=True)
class Place:
    """What a tensor is: its part, its 0-based layer inside that part (None outside of layers), its
    component; and of one expert's matrix the 0-based expert.
    """

    part: str
    layer: int | None
    component: str
    expert: int | None = None


Places = Mapping[str, Place]  # canonical name → what the tensor is
Rules = tuple[tuple[str, str], ...]

# (pattern of a name's beginning, canonical beginning); the first that matches wins.
_QWEN_VL: Rules = (  # and GLM-V's
    (r"(?:model\.)?visual\.(deepstack_)?merger", r"projector.\1merger"),
    (r"(?:model\.)?visual\.downsample", "projector.downsample"),
    (r"(?:model\.)?visual\.", "vision."),
    (r"model\.language_model\.", "text."),
    (r"(?:model\.)?lm_head\.", "text.lm_head."),
    (r"mtp\.", "text.mtp."),
    (r"model\.", "text."),
)
_LLAVA: Rules = (
    (r"(?:model\.)?vision_tower\.(?:vision_model\.)?", "vision."),
    (r"(?:model\.)?multi_modal_projector\.", "projector."),
    (r"(?:model\.)?image_newline$", "projector.image_newline"),
    (r"(?:language_model\.)?lm_head\.", "text.lm_head."),
    (r"language_model\.model\.", "text."),
    (r"model\.language_model\.", "text."),
)
_IDEFICS: Rules = (
    (r"model\.vision_model\.", "vision."),
    (r"model\.connector\.", "projector."),
    (r"model\.text_model\.", "text."),
    (r"lm_head\.", "text.lm_head."),
)
_GEMMA4: Rules = (
    (r"model\.vision_tower\.", "vision."),
    (r"model\.audio_tower\.", "vision.audio."),
    (r"model\.embed_(vision|audio)\.", r"projector.\1."),
    (r"model\.language_model\.", "text."),
    (r"lm_head\.", "text.lm_head."),
)
_INTERNVL_CHAT: Rules = (  # as published by its authors, before transformers had it
    (r"vision_model\.", "vision."),
    (r"mlp1\.", "projector."),
    (r"language_model\.lm_head\.", "text.lm_head."),
    (r"language_model\.model\.", "text."),
)
_TEXT: Rules = ((r"lm_head\.", "text.lm_head."), (r"model\.", "text."))
FAMILIES: Mapping[str, Rules] = {
    "qwen2_vl": _QWEN_VL,
    "qwen2_5_vl": _QWEN_VL,
    "qwen3_vl": _QWEN_VL,
    "qwen3_5": _QWEN_VL,
    "qwen3_vl_moe": _QWEN_VL,
    "qwen3_5_moe": _QWEN_VL,
    "glm4v": _QWEN_VL,
    "glm46v": _QWEN_VL,
    "llava": _LLAVA,
    "llava_next": _LLAVA,
    "llava_onevision": _LLAVA,
    "internvl": _LLAVA,
    "internvl_chat": _INTERNVL_CHAT,
    "gemma3": _LLAVA,
    "gemma4": _GEMMA4,
    "mistral3": _LLAVA,
    "paligemma": _LLAVA,
    "idefics3": _IDEFICS,
    "smolvlm": _IDEFICS,
    "qwen2": _TEXT,
    "qwen3": _TEXT,
    "llama": _TEXT,
    "mistral": _TEXT,
    "gemma": _TEXT,
    "gemma2": _TEXT,
    "gemma3_text": _TEXT,
}

_OTHER_DIGITS = re.compile(r"\.0[0-9]")  # 03 would be a second layer 3
# Canonical name → component, a group called `layer` being the layer; the part is the name's first
# word.
_LAYER = r"(?:encoder\.|transformer\.)?(?:blocks|layers?)\.(?P<layer>0|[1-9][0-9]{0,3})\."
_PLACES = tuple(
    (re.compile(pattern + r"(?:\.|$)", re.ASCII), component)
    for pattern, component in (
        (r"text\.layers\.(?P<layer>0|[1-9][0-9]{0,3})\.(?:self_attn|linear_attn)", "attn"),
        (
            r"text\.layers\.(?P<layer>0|[1-9][0-9]{0,3})\.mlp\.(?:gate|shared_expert_gate)",
            "router",
        ),
        (
            r"text\.layers\.(?P<layer>0|[1-9][0-9]{0,3})\.mlp\.experts\."
            r"(?P<expert>0|[1-9][0-9]{0,3})",
            "mlp",
        ),
        (r"text\.layers\.(?P<layer>0|[1-9][0-9]{0,3})\.mlp", "mlp"),
        (r"text\.layers\.(?P<layer>0|[1-9][0-9]{0,3})\.\w*(?:layernorm|_norm)", "norm"),
        (r"text\.layers\.(?P<layer>0|[1-9][0-9]{0,3})\.layer_scalar", "norm"),
        (r"text\.layers\.(?P<layer>0|[1-9][0-9]{0,3})\.per_layer_\w+", "mlp"),  # Gemma 4
        (r"text\.(?:embed_tokens(?:_per_layer)?|per_layer_\w+)", "embed"),
        (r"text\.norm", "norm"),
        (r"text\.(?:lm_head|mtp)", "head"),
        (rf"vision\.{_LAYER}(?:attn|self_attn|attention)", "attn"),
        (rf"vision\.{_LAYER}(?:mlp|feed_forward)", "mlp"),
        (
            rf"vision\.{_LAYER}(?:norm\d|layer_norm\d|layernorm_(?:before|after)|attention_norm|ffn_norm)",
            "norm",
        ),
        (rf"vision\.{_LAYER}\w+layernorm", "norm"),
        (
            rf"vision\.{_LAYER}(?:ls1|lambda_1)",
            "attn",
        ),  # InternVL scales what attention and MLP add
        (rf"vision\.{_LAYER}(?:ls2|lambda_2)", "mlp"),
        (r"vision\.(?:patch_embed(?:der)?|pos_embed|embeddings|patch_conv)", "patch"),
        (r"vision\.(?:pre_layrnorm|post_(?:conv_)?layernorm|layernorm|ln_pre|std_\w+)", "norm"),
        (r"vision\.audio", "patch"),
        (r"vision\.head", "head"),
        (r"projector\.image_newline", "embed"),
        (r"projector\.(?:deepstack_)?merger(?:_list\.\d+)?\.(?:ln_q|norm)", "norm"),
        (r"projector\.merger\.post_projection_norm", "norm"),
        (r"projector\.(?:layer_norm|norm|mm_soft_emb_norm)", "norm"),
        (r"projector\.\w+", "mlp"),
    )
)


def canonical(name: str, model_type: str) -> str:
    """One name for all spellings of a tensor: `text.layers.3.mlp.up_proj.weight`.

    Raises UsageError for a family that is not known, FrankenError for a name that the family's
    rules do not cover.
    """
    rules = plugins.find("names", model_type, FAMILIES) or FAMILIES.get(model_type)
    if rules is None:
        fix = "add its names to franken/names.py, or with a plugin"
        raise unknown("model family", model_type, FAMILIES, fix=fix)
    for pattern, beginning in rules:
        match = re.match(pattern, name)
        if match and not _OTHER_DIGITS.search(name):
            return match.expand(beginning) + name[match.end() :]
    raise _unknown(name, model_type)


def place(name: str, model_type: str) -> Place:
    """Part, layer and component of a tensor by its name on disk or in memory."""
    key = canonical(name, model_type)
    part = key.partition(".")[0]
    for pattern, component in _PLACES:
        match = pattern.match(key)
        if match:
            layer, expert = (match.groupdict().get(name) for name in ("layer", "expert"))
            return Place(part, _number(layer), component, _number(expert))
    raise _unknown(name, model_type)


def _number(digits: str | None) -> int | None:
    return None if digits is None else int(digits)


def depths_of(places: Iterable[Place]) -> dict[str, int]:
    """Number of layers by part."""
    depths: dict[str, int] = {}
    for spot in places:
        if spot.layer is not None:
            depths[spot.part] = max(depths.get(spot.part, 0), spot.layer + 1)
    return depths


def _unknown(name: str, model_type: str) -> FrankenError:
    return FrankenError(
        f"unknown tensor {name!r} in a {model_type} checkpoint",
        why="no rule says which part of the model it is, and nothing may be overlooked",
        fix="add a rule to franken/names.py",
    )
