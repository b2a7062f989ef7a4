"""What differs between model families, in one table: where the layers are and which tokens are
images.

Decoder layers are always `model.get_decoder().layers`; vision towers have other names in every
family. A new family is one entry here, or one in a plugin.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, cast

from franken import plugins
from franken.errors import UsageError, did_you_mean

if TYPE_CHECKING:
    import torch
    from torch import Tensor, nn
    from transformers import PreTrainedConfig, PreTrainedModel, PreTrainedTokenizerBase

MARKERS = (
    "<|image_pad|>",
    "<|video_pad|>",
    "<|image|>",
    "<|video|>",
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
    "image_start_token_id",
    "image_end_token_id",
    "video_start_token_id",
    "video_end_token_id",
    "boi_token_id",
    "boi_token_index",
    "eoi_token_id",
    "eoi_token_index",
    "audio_token_id",
    "boa_token_id",
    "eoa_token_id",
    "eoa_token_index",
)
FULL, SLIDING, LINEAR = "full_attention", "sliding_attention", "linear_attention"


@dataclass(frozen=True)
class Family:
    """One model family. `vision` and `projector` are where the tower's blocks and the projector are
    in the model; None for text-only models.

    Where the tokens of an image see each other (`attends_both_ways`, in the layers of the kinds
    `both_ways_in`), the model is told which they are by its input `image_types`. `attention` and
    `mlp` are the modules of a layer whose output is added to the residual stream, the first that
    the layer has: norms behind attention and MLP, where there are some. `caps_logits`: whether the
    model bounds the head's output by the configuration's `final_logit_softcapping`.
    """

    model_type: str
    vision: str | None = None
    projector: str | None = None
    attends_both_ways: bool = False
    both_ways_in: tuple[str, ...] = (FULL, SLIDING)
    image_types: str = "token_type_ids"
    attention: tuple[str, ...] = ("self_attn", "linear_attn")
    mlp: str = "mlp"
    caps_logits: bool = False

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

    def seeing(self, model: "PreTrainedModel") -> "Iterator[nn.Parameter]":
        """Every parameter that makes image features: tower, projector and what is beside them."""
        decoder = {id(p) for p in model.get_decoder().parameters()}
        head = model.get_output_embeddings()
        decoder |= set() if head is None else {id(p) for p in head.parameters()}
        return (p for p in model.parameters() if id(p) not in decoder)

    def adds(self, layer: "nn.Module") -> "dict[str, nn.Module]":
        """The modules of a decoder layer whose output is added to the residual stream."""
        attention = next(name for name in self.attention if hasattr(layer, name))
        return {"attention": getattr(layer, attention), "mlp": getattr(layer, self.mlp)}

    def both_ways(self, config: "PreTrainedConfig") -> tuple[str, ...]:
        """The kinds of layers in which an image's tokens see those behind them; none where the
        model is plainly causal.
        """
        stated = getattr(config.get_text_config(), "use_bidirectional_attention", None)
        if not self.attends_both_ways or (self.model_type == "gemma4" and stated != "vision"):
            return ()
        return self.both_ways_in

    def keyless(self, config: "PreTrainedConfig") -> str | None:
        """Why some of the model's layers have no keys and values of their own, in words; None where
        all have. Methods that put keys and values into layers are not defined there.
        """
        text: Any = config.get_text_config()
        kinds = getattr(text, "layer_types", None) or ()
        return keyless(kinds.count(LINEAR), getattr(text, "num_kv_shared_layers", None) or 0)

    def keep_last(self, config: "PreTrainedConfig", device: "torch.device") -> "int | Tensor":
        """`logits_to_keep` for the last token, in a pass whose layers are looked at: where layers
        read the keys of lower ones (Gemma 4), a number would make them skip the other tokens.
        """
        import torch

        shared = getattr(config.get_text_config(), "num_kv_shared_layers", None)
        return torch.tensor([-1], device=device) if shared else 1

    def logits(self, model: "PreTrainedModel", hidden: "Tensor") -> "Tensor":
        """What the model makes of the decoder's last hidden states `[..., hidden]`: logits `[...,
        vocabulary]`.
        """
        head: Any = model.get_output_embeddings()
        logits = head(hidden)
        cap = getattr(model.config.get_text_config(), "final_logit_softcapping", None)
        return cap * (logits / cap).tanh() if self.caps_logits and cap else logits

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
        size = config.get_text_config().vocab_size
        banned = {value for value in values if isinstance(value, int) and value < size}
        if tokenizer is not None:
            vocabulary = tokenizer.get_vocab()
            banned |= {vocabulary[marker] for marker in MARKERS if marker in vocabulary}
            return sorted(value for value in banned if value != tokenizer.eos_token_id)
        return sorted(banned)


def keyless(linear: int, shared: int) -> str | None:
    """What `Family.keyless` says of a model with so many layers of linear attention, and so many
    that read the keys and values of lower ones.
    """
    if linear:
        return (
            f"{linear} of its layers have linear attention, one state in place of keys and values"
        )
    if shared:
        return f"its {shared} upper layers read the keys and values of lower ones"
    return None


_QWEN = ("model.visual.blocks", "model.visual.merger")
_PROJECTOR = "model.multi_modal_projector"
_TOWER = ("model.vision_tower.encoder.layers", _PROJECTOR)
_IDEFICS = ("model.vision_model.encoder.layers", "model.connector")
_GLM = {"attention": ("post_self_attn_layernorm",), "mlp": "post_mlp_layernorm"}
_GEMMA = {"attention": ("post_attention_layernorm",), "mlp": "post_feedforward_layernorm"}
FAMILIES = {
    family.model_type: family
    for family in (
        Family("qwen2_vl", *_QWEN),
        Family("qwen2_5_vl", *_QWEN),
        Family("qwen3_vl", *_QWEN),
        Family("qwen3_vl_moe", *_QWEN),
        Family("qwen3_5_moe", *_QWEN),
        Family("qwen3_5", *_QWEN),
        Family("glm4v", *_QWEN, **_GLM),
        Family("glm46v", *_QWEN, **_GLM),
        Family("llava", *_TOWER),
        Family("llava_next", *_TOWER),
        Family("llava_onevision", *_TOWER),
        Family("mistral3", "model.vision_tower.transformer.layers", _PROJECTOR),
        Family("internvl", "model.vision_tower.encoder.layer", _PROJECTOR),
        Family("gemma3", *_TOWER, attends_both_ways=True, **_GEMMA),
        Family(
            "gemma4",
            "model.vision_tower.encoder.layers",
            "model.embed_vision",
            attends_both_ways=True,
            both_ways_in=(SLIDING,),
            image_types="mm_token_type_ids",
            caps_logits=True,
            **_GEMMA,
        ),
        Family("smolvlm", *_IDEFICS),
        Family("idefics3", *_IDEFICS),
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
