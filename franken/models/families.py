"""What differs between model families, in one table: where the layers are and which tokens are
images.

Decoder layers are always `model.get_decoder().layers`; vision towers have other names in every
family.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from franken import plugins
from franken.errors import UsageError, did_you_mean

MARKERS = (
    "<|image_pad|>",
    "<|video_pad|>",
    "<|vision_start|>",
    "<|vision_end|>",
    "<image>",
    "<video>",
    "<|im_start|>",
    "<|endoftext|>",
)


@dataclass(frozen=True)
class Family:
    """One model family. `vision_blocks` returns None for text-only models."""

    model_type: str
    vision_blocks: Callable[[Any], Any]
    projector: Callable[[Any], Any]
    attends_both_ways: bool = (
        False  # within an image; the model then needs `token_type_ids` to know where images are
    )

    def decoder_layers(self, model: Any) -> Any:
        """The decoder's ModuleList."""
        return model.get_decoder().layers

    def image_token_id(self, config: Any) -> int | None:
        """The id that stands for one visual token, None for text-only models."""
        return getattr(config, "image_token_id", getattr(config, "image_token_index", None))

    def banned_token_ids(self, config: Any, tokenizer: Any = None) -> list[int]:
        """Tokens that may never be sampled: image, video and vision markers, the start of a turn.

        A sampled image token makes every later forward fail, since there are no features for it.
        """
        names = (
            "image_token_id",
            "image_token_index",
            "video_token_id",
            "video_token_index",
            "vision_start_token_id",
            "vision_end_token_id",
        )
        banned = {value for name in names if isinstance(value := getattr(config, name, None), int)}
        if tokenizer is not None:
            vocabulary = tokenizer.get_vocab()
            banned |= {vocabulary[marker] for marker in MARKERS if marker in vocabulary}
            banned.discard(tokenizer.eos_token_id)
        return sorted(banned)


def _nothing(model: Any) -> None:
    return None


FAMILIES = {
    f.model_type: f
    for f in (
        Family("qwen2_vl", lambda m: m.model.visual.blocks, lambda m: m.model.visual.merger),
        Family("qwen2_5_vl", lambda m: m.model.visual.blocks, lambda m: m.model.visual.merger),
        Family("qwen3_vl", lambda m: m.model.visual.blocks, lambda m: m.model.visual.merger),
        Family(
            "llava_onevision",
            lambda m: m.model.vision_tower.encoder.layers,
            lambda m: m.model.multi_modal_projector,
        ),
        Family(
            "internvl",
            lambda m: m.model.vision_tower.encoder.layer,
            lambda m: m.model.multi_modal_projector,
        ),
        Family(
            "gemma3",
            lambda m: m.model.vision_tower.encoder.layers,
            lambda m: m.model.multi_modal_projector,
            True,
        ),
        Family(
            "smolvlm", lambda m: m.model.vision_model.encoder.layers, lambda m: m.model.connector
        ),
        Family("qwen2", _nothing, _nothing),
        Family("qwen3", _nothing, _nothing),
    )
}


def family_of(model_type: str) -> Family:
    """The family by `config.model_type`. Raises UsageError for one that is not known."""
    family = plugins.find("family", model_type, FAMILIES) or FAMILIES.get(model_type)
    if family is None:
        raise UsageError(
            f"the model family {model_type!r} is not supported",
            why=f"supported are {', '.join(FAMILIES)}",
            fix=did_you_mean(model_type, FAMILIES)
            or "add it to franken/models/families.py, or with a plugin",
        )
    return family
