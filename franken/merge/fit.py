"""Whether a donor's tensors can work in the base, from configurations, tokenizers and headers; no
weight is read.

Every difference has a kind (`recipe.DIFFERENCES`) and is refused unless the recipe allows that
kind. What cannot be put in at all, a tensor that is missing or has another shape, is of kind
`tensors` and cannot be allowed. Settings are compared where both checkpoints state them: a
configuration that leaves one out means its family's default, and shapes tell the rest. Older
spellings (flat text settings, `rope_scaling`) are read as the present ones.
"""

import json
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from franken.checkpoints import Checkpoint

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
_DECODERS = {
    "qwen2_vl": "qwen2",
    "qwen2_5_vl": "qwen2",
    "qwen3_vl": "qwen3",
}  # the decoder inside has this plain form
_TOWERS = ("vision", "projector")


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
    found = _tensors(base, donor, keys)
    ours, theirs = _text_side(base.config), _text_side(donor.config)
    towers = bool(parts & set(_TOWERS))
    kinds = (base.model_type, donor.model_type) if towers else (_decoder(base), _decoder(donor))
    if kinds[0] != kinds[1]:
        found.append(
            Difference(
                "architecture", f"model_type is {kinds[0]} in the base and {kinds[1]} in the donor"
            )
        )
    for part in sorted(parts):
        a, b = base.depths.get(part), donor.depths.get(part)
        if a != b and part != "projector":
            found.append(
                Difference("depth", f"the {part} has {a} layers in the base and {b} in the donor")
            )
    if "text" in parts:
        found += _settings("config", ours, theirs, _TEXT)
        found += _rope(ours, theirs)
        found += _settings("vocab", ours, theirs, ("vocab_size",))
    if {base.tensors[key].place.component for key in keys} & {"embed", "head"}:
        found += _settings("tied", _ties(base), _ties(donor), ("tie_word_embeddings",))
    if towers:
        found += _settings(
            "config",
            base.config.get("vision_config") or {},
            donor.config.get("vision_config") or {},
            _VISION,
            "vision ",
        )
    found += _tokenizer(base.folder, donor.folder)
    found += _processor(base.folder, donor.folder)
    return found


def _tensors(base: Checkpoint, donor: Checkpoint, keys: Collection[str]) -> list[Difference]:
    found = []
    types: dict[tuple[str, str], list[str]] = {}
    places = {
        (base.tensors[k].place.part, base.tensors[k].place.layer, base.tensors[k].place.component)
        for k in keys
    }
    for key in keys:
        entry, other = base.tensors[key], donor.tensors.get(key)
        if other is None:
            found.append(Difference(TENSORS, f"the donor has no {key}"))
        elif other.shape != entry.shape:
            text = f"{key} is {list(entry.shape)} in the base and {list(other.shape)} in the donor"
            found.append(Difference(TENSORS, text))
        elif other.dtype != entry.dtype:
            types.setdefault((entry.dtype, other.dtype), []).append(key)
    for key, other in donor.tensors.items():
        if (
            other.place.part,
            other.place.layer,
            other.place.component,
        ) in places and key not in base.tensors:
            found.append(Difference(TENSORS, f"the base has no {key}"))
    for (a, b), members in types.items():
        text = f"{members[0]} is {a} in the base and {b} in the donor"
        found.append(
            Difference(
                "dtype", text + (f", like {len(members) - 1} more" if len(members) > 1 else "")
            )
        )
    return found


def _text_side(config: dict[str, Any]) -> dict[str, Any]:
    flat = {key: value for key, value in config.items() if not key.endswith("_config")}
    flat |= config.get("text_config") or config.get("llm_config") or {}
    if flat.get("use_sliding_window") is False:  # Qwen states a window that it does not use
        flat.pop("sliding_window", None)
    return flat


def _decoder(checkpoint: Checkpoint) -> str:
    nested = checkpoint.config.get("text_config") or checkpoint.config.get("llm_config") or {}
    kind = str(nested.get("model_type") or checkpoint.model_type).removesuffix("_text")
    return _DECODERS.get(kind, kind)


def _ties(checkpoint: Checkpoint) -> dict[str, Any]:
    said = _text_side(checkpoint.config) | checkpoint.config
    return (
        {"tie_word_embeddings": bool(said["tie_word_embeddings"])}
        if "tie_word_embeddings" in said
        else {}
    )


def _settings(
    kind: str,
    ours: dict[str, Any],
    theirs: dict[str, Any],
    names: Collection[str],
    prefix: str = "",
) -> list[Difference]:
    return [
        Difference(
            kind, f"{prefix}{name} is {ours[name]} in the base and {theirs[name]} in the donor"
        )
        for name in names
        if ours.get(name) is not None
        and theirs.get(name) is not None
        and ours[name] != theirs[name]
    ]


def _rope(ours: dict[str, Any], theirs: dict[str, Any]) -> list[Difference]:
    """Where both say something: a text model has no sections of M-RoPE, since its tokens have one
    position each.
    """
    a, b = _rope_settings(ours), _rope_settings(theirs)
    return _settings("rope", a, b, sorted(a.keys() & b.keys()), "rope's ")


def _rope_settings(text: dict[str, Any]) -> dict[str, Any]:
    """`rope_parameters` of transformers 5, or `rope_theta` and `rope_scaling` of before, in one
    spelling.
    """
    said = {**(text.get("rope_scaling") or {}), **(text.get("rope_parameters") or {})}
    if "rope_theta" not in said and text.get("rope_theta") is not None:
        said["rope_theta"] = text["rope_theta"]
    kind = said.pop("type", None)
    said["rope_type"] = said.get("rope_type") or kind or "default"
    if said["rope_type"] == "mrope":
        said["rope_type"] = "default"
    return {
        k: float(v) if isinstance(v, int) and not isinstance(v, bool) else v
        for k, v in said.items()
        if v is not None
    }


def _tokenizer(base: Path, donor: Path) -> list[Difference]:
    if _same_file(base, donor, "tokenizer.json"):
        return []
    ours, theirs = _vocabulary(base), _vocabulary(donor)
    if not (ours and theirs):  # a checkpoint without tokenizer says nothing about tokens
        return []
    odd = sorted(t for t in ours.keys() | theirs.keys() if ours.get(t) != theirs.get(t))
    if not odd:
        return []
    many = f"{len(odd)} tokens differ" if len(odd) > 1 else "1 token differs"
    text = f"{many}, for example {odd[0]!r}: {ours.get(odd[0])} in the base, {theirs.get(odd[0])} in the donor"
    return [Difference("tokenizer", text)]


def _vocabulary(folder: Path) -> dict[str, int]:
    whole = _json(folder / "tokenizer.json")
    if whole:
        listed = (whole.get("model") or {}).get("vocab") or {}
        if isinstance(listed, list):  # unigram models list (token, score)
            listed = {token: i for i, (token, _) in enumerate(listed)}
        return dict(listed) | {t["content"]: t["id"] for t in whole.get("added_tokens") or []}
    return _json(folder / "vocab.json") | _json(folder / "added_tokens.json")


def _processor(base: Path, donor: Path) -> list[Difference]:
    ours, theirs = _image_settings(base), _image_settings(donor)
    return _settings(
        "processor", ours, theirs, sorted(ours.keys() & theirs.keys()), "image processor's "
    )


def _image_settings(folder: Path) -> dict[str, Any]:
    said = _json(folder / "preprocessor_config.json") | (
        _json(folder / "processor_config.json").get("image_processor") or {}
    )
    names = (
        "processor_class",
        "image_processor_type",
        "feature_extractor_type",
        "auto_map",
        "data_format",
        "device",
    )
    return {
        key: value for key, value in said.items() if key not in names and not key.startswith("_")
    }


def _same_file(base: Path, donor: Path, name: str) -> bool:
    a, b = base / name, donor / name
    if not (a.exists() and b.exists()) or a.stat().st_size != b.stat().st_size:
        return False
    return a.samefile(b) or a.read_bytes() == b.read_bytes()


def _json(path: Path) -> dict[str, Any]:
    try:
        return json.loads(path.read_text())
    except (FileNotFoundError, json.JSONDecodeError):
        return {}
