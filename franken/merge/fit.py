"""Whether a donor's tensors can work in the base, from configurations, tokenizers and headers; no
weight is read.

Every difference has a kind (`recipe.DIFFERENCES`) and is refused unless the recipe allows that
kind. What cannot be put in at all, a tensor that is missing or has another shape, is of kind
`tensors` and cannot be allowed. Settings are compared where both checkpoints state them: a
configuration that leaves one out means its family's default, and shapes tell the rest. Older
spellings (flat text settings, `rope_scaling`) are read as the present ones.
"""

from collections.abc import Callable, Collection
from dataclasses import dataclass
from pathlib import Path

from franken.checkpoints import Checkpoint
from franken.companions import image_settings, same_file, vocabulary
from franken.configs import ModelConfig

TENSORS = "tensors"
_HEADS = (
    "hidden_size",
    "intermediate_size",
    "num_attention_heads",
    "num_key_value_heads",
    "head_dim",
)
_TEXT = (
    *_HEADS,
    "rms_norm_eps",
    "hidden_act",
    "hidden_activation",
    "attention_bias",
    "mlp_bias",
    "sliding_window",
)
_VISION = (
    "model_type",
    "hidden_size",
    "intermediate_size",
    "depth",
    "num_hidden_layers",
    "num_heads",
    "num_attention_heads",
    "hidden_act",
    "patch_size",
    "image_size",
    "spatial_merge_size",
    "temporal_patch_size",
    "out_hidden_size",
    "window_size",
    "fullatt_block_indexes",
    "deepstack_visual_indexes",
)
# The decoder inside has this plain form.
_DECODERS = {"qwen2_vl": "qwen2", "qwen2_5_vl": "qwen2", "qwen3_vl": "qwen3"}
_TOWERS = ("vision", "projector")
Setting = Callable[[str], object]  # the value that a checkpoint states under a name, or None


@dataclass(frozen=True)
class Difference:
    """One thing in which a donor differs from the base."""

    kind: str
    text: str


def differences(base: Checkpoint, donor: Checkpoint, keys: Collection[str]) -> list[Difference]:
    """All that stands against tensors `keys` (canonical names of the base's) of the donor working
    in the base.
    """
    parts = {base.tensors[key].place.part for key in keys}
    components = {base.tensors[key].place.component for key in keys}
    ours, theirs = _text_settings(base.settings), _text_settings(donor.settings)
    towers = bool(parts & set(_TOWERS))
    kinds = (base.model_type, donor.model_type) if towers else (_decoder(base), _decoder(donor))
    against = _tensors(base, donor, keys)
    if kinds[0] != kinds[1]:
        text = f"model_type is {kinds[0]} in the base and {kinds[1]} in the donor"
        against.append(Difference("architecture", text))
    for part in sorted(parts - {"projector"}):
        one, other = base.depths.get(part), donor.depths.get(part)
        if one != other:
            text = f"the {part} has {one} layers in the base and {other} in the donor"
            against.append(Difference("depth", text))
    if "text" in parts:
        against += _compare("config", ours, theirs, _TEXT)
        against += _rope(ours, theirs)
        against += _compare("vocab", ours, theirs, ("vocab_size",))
    if components & {"embed", "head"}:
        tie = ("tie_word_embeddings",)
        against += _compare("tied", _whole(base.settings), _whole(donor.settings), tie)
    if towers:
        a, b = _vision_settings(base.settings), _vision_settings(donor.settings)
        against += _compare("config", a, b, _VISION, "vision ")
    against += _tokenizer(base.folder, donor.folder)
    against += _processor(base.folder, donor.folder)
    return against


def _tensors(base: Checkpoint, donor: Checkpoint, keys: Collection[str]) -> list[Difference]:
    against = []
    types: dict[tuple[str, str], list[str]] = {}
    places = {base.tensors[k].place for k in keys}
    for key in keys:
        entry, other = base.tensors[key], donor.tensors.get(key)
        if other is None:
            against.append(Difference(TENSORS, f"the donor has no {key}"))
        elif other.shape != entry.shape:
            text = f"{key} is {list(entry.shape)} in the base and {list(other.shape)} in the donor"
            against.append(Difference(TENSORS, text))
        elif other.dtype != entry.dtype:
            types.setdefault((entry.dtype, other.dtype), []).append(key)
    for key, other in donor.tensors.items():
        if other.place in places and key not in base.tensors:
            against.append(Difference(TENSORS, f"the base has no {key}"))
    for (a, b), members in types.items():
        text = f"{members[0]} is {a} in the base and {b} in the donor"
        against.append(
            Difference(
                "dtype", text + (f", like {len(members) - 1} more" if len(members) > 1 else "")
            )
        )
    return against


def _text_settings(config: ModelConfig) -> Setting:
    """What the decoder's section says, or the flat settings of older configurations."""

    def setting(name: str) -> object:
        # Qwen states a window that it does not use
        if name == "sliding_window" and setting("use_sliding_window") is False:
            return None
        value = getattr(config.text, name, None)
        return getattr(config, name, None) if value is None else value

    return setting


def _whole(config: ModelConfig) -> Setting:
    """What the configuration says at its top, or for the decoder."""
    text = _text_settings(config)
    return lambda name: text(name) if getattr(config, name, None) is None else getattr(config, name)


def _vision_settings(config: ModelConfig) -> Setting:
    return lambda name: getattr(config.vision_config, name, None)


def _decoder(checkpoint: Checkpoint) -> str:
    section = checkpoint.settings.text.model_type or checkpoint.model_type
    kind = section.removesuffix("_text")
    return _DECODERS.get(kind, kind)


def _compare(
    kind: str, ours: Setting, theirs: Setting, names: Collection[str], prefix: str = ""
) -> list[Difference]:
    """The settings that both state, and state differently."""
    pairs = ((name, ours(name), theirs(name)) for name in names)
    return [
        Difference(kind, f"{prefix}{name} is {a} in the base and {b} in the donor")
        for name, a, b in pairs
        if a is not None and b is not None and a != b
    ]


def _rope(ours: Setting, theirs: Setting) -> list[Difference]:
    """Where both say something: a text model has no sections of M-RoPE, since its tokens have one
    position each.
    """
    a, b = dict(_rope_settings(ours)), dict(_rope_settings(theirs))
    return _compare("rope", a.get, b.get, sorted(a.keys() & b.keys()), "rope's ")


def _rope_settings(text: Setting) -> list[tuple[str, object]]:
    """`rope_parameters` of transformers 5, or `rope_theta` and `rope_scaling` of before, in one
    spelling.
    """
    said: dict[str, object] = {}
    for name in ("rope_scaling", "rope_parameters"):
        section = text(name)
        said |= section if isinstance(section, dict) else {}
    said.setdefault("rope_theta", text("rope_theta"))
    kind = said.pop("type", None)
    said["rope_type"] = said.get("rope_type") or kind or "default"
    if said["rope_type"] == "mrope":
        said["rope_type"] = "default"
    return [
        (k, float(v) if isinstance(v, int) and not isinstance(v, bool) else v)
        for k, v in said.items()
        if v is not None
    ]


def _tokenizer(base: Path, donor: Path) -> list[Difference]:
    if same_file(base, donor, "tokenizer.json"):
        return []
    ours, theirs = vocabulary(base), vocabulary(donor)
    odd = sorted({token for token, _ in ours ^ theirs})
    if not (ours and theirs and odd):  # a checkpoint without tokenizer says nothing about tokens
        return []
    many = f"{len(odd)} tokens differ" if len(odd) > 1 else "1 token differs"
    a, b = dict(ours).get(odd[0]), dict(theirs).get(odd[0])
    text = f"{many}, for example {odd[0]!r}: {a} in the base, {b} in the donor"
    return [Difference("tokenizer", text)]


def _processor(base: Path, donor: Path) -> list[Difference]:
    ours, theirs = dict(image_settings(base)), dict(image_settings(donor))
    names = sorted(ours.keys() & theirs.keys())
    return _compare("processor", ours.get, theirs.get, names, "image processor's ")
