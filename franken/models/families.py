"""What differs between model families, in one table: where the layers are and which tokens are
images.

Decoder layers are always `model.get_decoder().layers`; vision towers have other names in every
family. A new family is one entry here, or one in a plugin.
"""

from dataclasses import dataclass
from typing import TYPE_CHECKING, cast

from franken import plugins
from franken.errors import UsageError, did_you_mean

if TYPE_CHECKING:
    from torch import nn
    from transformers import PreTrainedConfig, PreTrainedModel, PreTrainedTokenizerBase

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
CONFIGURED = (
    "image_token_id",
    "image_token_index",
    "video_token_id",
    "video_token_index",
    "vision_start_token_id",
    "vision_end_token_id",
)


@dataclass(frozen=True)
class Family:
    """One model family. `vision` and `projector` are where the tower's blocks and the projector are
    in the model; None for text-only models.

    Where the tokens of an image see each other, the model needs `token_type_ids` to know them:
    `attends_both_ways`.
    """

    model_type: str
    vision: str | None = None
    projector: str | None = None
    attends_both_ways: bool = False

    def vision_blocks(self, model: "PreTrainedModel") -> "nn.ModuleList | None":
        """The vision tower's ModuleList."""
        blocks = None if self.vision is None else model.get_submodule(self.vision)
        return cast("nn.ModuleList | None", blocks)

    def projector_of(self, model: "PreTrainedModel") -> "nn.Module | None":
        """What maps the tower's output into the decoder."""
        return None if self.projector is None else model.get_submodule(self.projector)

    def projector_modules(self, model: "PreTrainedModel") -> "list[nn.Module]":
        """The projector, and those beside it that hand on what lower blocks of the tower say
        (Qwen3-VL's deepstack).
        """
        projector = self.projector_of(model)
        if projector is None or self.vision is None:
            return []
        tower = model.get_submodule(self.vision.rpartition(".")[0])
        return [projector, *getattr(tower, "deepstack_merger_list", ())]

    def decoder_layers(self, model: "PreTrainedModel") -> "nn.ModuleList":
        """The decoder's ModuleList."""
        return cast("nn.ModuleList", model.get_decoder().layers)

    def image_token_id(self, config: "PreTrainedConfig") -> int | None:
        """The id that stands for one visual token, None for text-only models."""
        return getattr(config, "image_token_id", getattr(config, "image_token_index", None))

    def banned_token_ids(
        self, config: "PreTrainedConfig", tokenizer: "PreTrainedTokenizerBase | None" = None
    ) -> list[int]:
        """Tokens that may never be sampled: image, video and vision markers, the start of a turn.

        A sampled image token makes every later forward fail, since there are no features for it.
        """
        values = (getattr(config, name, None) for name in CONFIGURED)
        banned = {value for value in values if isinstance(value, int)}
        if tokenizer is not None:
            vocabulary = tokenizer.get_vocab()
            banned |= {vocabulary[marker] for marker in MARKERS if marker in vocabulary}
            return sorted(value for value in banned if value != tokenizer.eos_token_id)
        return sorted(banned)


_QWEN = ("model.visual.blocks", "model.visual.merger")
_PROJECTOR = "model.multi_modal_projector"
FAMILIES = {
    family.model_type: family
    for family in (
        Family("qwen2_vl", *_QWEN),
        Family("qwen2_5_vl", *_QWEN),
        Family("qwen3_vl", *_QWEN),
        Family("qwen3_vl_moe", *_QWEN),
        Family("qwen3_5_moe", *_QWEN),
        Family("llava_onevision", "model.vision_tower.encoder.layers", _PROJECTOR),
        Family("internvl", "model.vision_tower.encoder.layer", _PROJECTOR),
        Family("gemma3", "model.vision_tower.encoder.layers", _PROJECTOR, attends_both_ways=True),
        Family("smolvlm", "model.vision_model.encoder.layers", "model.connector"),
        Family("qwen2"),
        Family("qwen3"),
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
