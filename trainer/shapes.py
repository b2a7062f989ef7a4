"""What a model is made of, without its weights: names, shapes and widths.

From the headers of a checkpoint on disk, or, for the published models that recipes name and that
need not be here, from their config (the numbers of `config.json` at
huggingface.co/Qwen/Qwen2.5-VL-3B-Instruct and -7B-Instruct) through the model class without
storage.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

from franken.checkpoints import open_checkpoint
from franken.errors import UsageError
from franken.names import Place, Places, canonical, place

QWEN: dict[str, Any] = {
    "Qwen/Qwen2.5-VL-3B-Instruct": {
        "hidden_size": 2048,
        "intermediate_size": 11008,
        "num_hidden_layers": 36,
        "num_attention_heads": 16,
        "num_key_value_heads": 2,
        "vocab_size": 151936,
        "tie_word_embeddings": True,
    },
    "Qwen/Qwen2.5-VL-7B-Instruct": {
        "hidden_size": 3584,
        "intermediate_size": 18944,
        "num_hidden_layers": 28,
        "num_attention_heads": 28,
        "num_key_value_heads": 4,
        "vocab_size": 152064,
        "tie_word_embeddings": False,
    },
}
TOWER = {
    "depth": 32,
    "hidden_size": 1280,
    "intermediate_size": 3420,
    "num_heads": 16,
    "patch_size": 14,
    "spatial_merge_size": 2,
    "temporal_patch_size": 2,
    "window_size": 112,
    "fullatt_block_indexes": [7, 15, 23, 31],
}
LIKE: Mapping[str, str] = {  # fine-tunes of the same shape
    "AIcell/Frankenstein-IN": "Qwen/Qwen2.5-VL-3B-Instruct",
    "AIcell/Frankenstein-RL": "Qwen/Qwen2.5-VL-3B-Instruct",
    "AIcell/Frankenstein-RL-Frozen-Mid": "Qwen/Qwen2.5-VL-3B-Instruct",
    "OpenMMReasoner/OpenMMReasoner-ColdStart": "Qwen/Qwen2.5-VL-7B-Instruct",
    "OpenMMReasoner/OpenMMReasoner-RL": "Qwen/Qwen2.5-VL-7B-Instruct",
}


@dataclass(frozen=True)
class Widths:
    """The widths of a stack of transformer layers. `keys` is that of all key heads together."""

    layers: int
    hidden: int
    inner: int
    queries: int
    keys: int
    heads: int


@dataclass(frozen=True)
class Shapes:
    """A model's tensors by canonical name, `(shape, place)`, tied ones once; the widths of decoder
    and vision tower.
    """

    source: str
    folder: Path | None
    tensors: dict[str, tuple[tuple[int, ...], Place]]
    text: Widths
    vision: Widths | None
    vocabulary: int
    pixels_a_token: int

    @property
    def places(self) -> Places:
        """What each tensor is."""
        return {name: spot for name, (_, spot) in self.tensors.items()}

    @property
    def parameters(self) -> int:
        """How many numbers the model has."""
        return sum(numel(shape) for shape, _ in self.tensors.values())


def numel(shape: tuple[int, ...]) -> int:
    """Elements of a tensor of this shape."""
    return math.prod(shape)


@lru_cache(maxsize=8)
def shapes_of(model: str) -> Shapes:
    """The shapes of a checkpoint on disk or in the cache, else of a published model that is known
    here.

    Reads headers and config; loads and fetches nothing. Raises UsageError where neither is there.
    """
    known = "creature:base" if model == "creature:new" else model
    try:
        checkpoint = open_checkpoint(known)
    except UsageError:
        published = LIKE.get(model, model)
        if published not in QWEN:
            raise
        return _published(model, published)
    tied = checkpoint.config.get("tie_word_embeddings") or _text(checkpoint.config).get(
        "tie_word_embeddings"
    )
    tensors = {
        key: (entry.shape, entry.place)
        for key, entry in checkpoint.tensors.items()
        if not (tied and entry.place.component == "head" and entry.place.part == "text")
    }
    return _describe(model, checkpoint.folder, tensors, checkpoint.config)


def published_config(published: str, **changes: Any) -> Any:
    """The transformers config of a published model; `changes` are other keys of its top level
    (token ids).
    """
    from transformers import Qwen2_5_VLConfig

    text: dict[str, Any] = QWEN[published]
    rope = {"rope_type": "default", "rope_theta": 1e6, "mrope_section": [16, 24, 24]}
    return Qwen2_5_VLConfig(
        text_config={**text, "rope_parameters": rope},
        vision_config={**TOWER, "out_hidden_size": text["hidden_size"]},
        tie_word_embeddings=text["tie_word_embeddings"],
        **changes,
    )


def _published(model: str, published: str) -> Shapes:
    import torch
    from transformers import Qwen2_5_VLForConditionalGeneration

    config = published_config(published)
    with torch.device("meta"):
        built = Qwen2_5_VLForConditionalGeneration(config)
    tensors = {
        canonical(name, "qwen2_5_vl"): (tuple(p.shape), place(name, "qwen2_5_vl"))
        for name, p in built.named_parameters()
    }
    return _describe(model, None, tensors, config.to_dict())


def _describe(
    model: str,
    folder: Path | None,
    tensors: dict[str, tuple[tuple[int, ...], Place]],
    config: dict[str, Any],
) -> Shapes:
    text, vision = _text(config), config.get("vision_config")
    vocabulary = next(
        shape[0] for shape, p in tensors.values() if p.part == "text" and p.component == "embed"
    )
    tower, pixels = None, 28 * 28
    if isinstance(vision, dict):
        wide = (
            int(vision.get("embed_dim") or vision["hidden_size"])
            if "depth" in vision
            else int(vision["hidden_size"])
        )
        heads = int(vision.get("num_heads") or vision.get("num_attention_heads") or 1)
        depth = int(vision.get("depth") or vision.get("num_hidden_layers") or 0)
        tower = Widths(
            depth, wide, int(vision.get("intermediate_size") or 4 * wide), wide, wide, heads
        )
        pixels = (int(vision.get("patch_size", 14)) * int(vision.get("spatial_merge_size", 1))) ** 2
    hidden, heads = int(text["hidden_size"]), int(text["num_attention_heads"])
    width = int(text.get("head_dim") or hidden // heads)
    keys = width * int(text.get("num_key_value_heads") or heads)
    decoder = Widths(
        int(text["num_hidden_layers"]),
        hidden,
        int(text["intermediate_size"]),
        width * heads,
        keys,
        heads,
    )
    return Shapes(model, folder, tensors, decoder, tower, vocabulary, pixels)


def _text(config: dict[str, Any]) -> dict[str, Any]:
    """The decoder's part of a config; older ones have it at the top."""
    return config.get("text_config") or config
