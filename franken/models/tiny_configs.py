"""Configurations of tiny models, one for every family whose checkpoints franken reads: 3 decoder
layers, 2 vision blocks.

The classes are the real ones, so that what is saved has the names and the layout of a real
checkpoint.
"""

from collections.abc import Callable
from typing import Any

import transformers as hf

from franken.errors import check_known

Text = dict[str, Any]  # fields of a configuration, as its JSON file has them
VOCABULARY = 96
IMAGE, VIDEO, VISION_START, VISION_END = 90, 91, 92, 93
TEXT: Text = {
    "vocab_size": VOCABULARY,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 3,
    "num_attention_heads": 2,
    "num_key_value_heads": 1,
    "max_position_embeddings": 256,
    "rms_norm_eps": 1e-6,
    "initializer_range": 0.1,
    "bos_token_id": None,
    "eos_token_id": 1,
    "pad_token_id": 0,
}
MROPE = {"rope_parameters": {"rope_type": "default", "rope_theta": 1e4, "mrope_section": [2, 3, 3]}}
TOKENS: Text = {
    "image_token_id": IMAGE,
    "video_token_id": VIDEO,
    "vision_start_token_id": VISION_START,
    "vision_end_token_id": VISION_END,
}


SIZES = {
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
}
TILES = [[28, 28], [28, 56], [56, 28], [56, 56]]  # of images that are cut up
TOWER: Text = {**SIZES, "image_size": 28, "patch_size": 14}
SIGLIP: Text = {**TOWER, "model_type": "siglip_vision_model"}
CLIP: Text = {**TOWER, "model_type": "clip_vision_model", "projection_dim": 32}
QWEN_TOWER: Text = {
    "depth": 2,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_heads": 2,
    "patch_size": 14,
    "spatial_merge_size": 2,
    "temporal_patch_size": 2,
}


def tiny_config(
    model_type: str, *, tied: bool = False, layers: int = 3, text: Text | None = None
) -> hf.PreTrainedConfig:
    """The configuration of a tiny model: `layers` decoder layers, 2 vision blocks, 14-pixel
    patches. `text` changes the decoder's: a family's models differ in it.

    Raises UsageError for a family that is not in `CONFIGS`.
    """
    check_known("tiny model", [model_type], CONFIGS)
    shape = {**TEXT, "num_hidden_layers": layers, "tie_word_embeddings": tied}
    return CONFIGS[model_type](shape | (text or {}))


def _qwen2_vl(text: Text) -> hf.PreTrainedConfig:
    vision = {**QWEN_TOWER, "embed_dim": 32}
    tied = text["tie_word_embeddings"]
    return hf.Qwen2VLConfig(
        text_config={**text, **MROPE}, vision_config=vision, tie_word_embeddings=tied, **TOKENS
    )


def _qwen2_5_vl(text: Text) -> hf.PreTrainedConfig:
    vision = {**QWEN_TOWER, "out_hidden_size": 32, "window_size": 112, "fullatt_block_indexes": [1]}
    tied = text["tie_word_embeddings"]
    return hf.Qwen2_5_VLConfig(
        text_config={**text, **MROPE}, vision_config=vision, tie_word_embeddings=tied, **TOKENS
    )


EXPERTS: Text = {"num_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 24}


def _qwen3_vl(
    text: Text, config: Callable[..., hf.PreTrainedConfig] = hf.Qwen3VLConfig, **more: object
) -> hf.PreTrainedConfig:
    vision = {
        **QWEN_TOWER,
        "out_hidden_size": 32,
        "num_position_embeddings": 16,
        "deepstack_visual_indexes": [0, 1],
    }
    rope = {**MROPE["rope_parameters"], "mrope_interleaved": True}
    tied = text["tie_word_embeddings"]
    text = {**text, "head_dim": 16, "rope_parameters": rope, **more}
    return config(text_config=text, vision_config=vision, tie_word_embeddings=tied, **TOKENS)


def _qwen3_5(
    text: Text, config: Callable[..., hf.PreTrainedConfig] = hf.Qwen3_5Config, **more: object
) -> hf.PreTrainedConfig:
    """Every third layer has attention, the others a state."""
    vision = {**QWEN_TOWER, "out_hidden_size": 32, "num_position_embeddings": 16}
    layers = range(1, text["num_hidden_layers"] + 1)
    rope = {"rope_type": "default", "rope_theta": 1e4, "partial_rotary_factor": 0.5}
    shape = {
        "head_dim": 16,
        "layer_types": ["linear_attention" if i % 3 else "full_attention" for i in layers],
        "linear_key_head_dim": 8,
        "linear_value_head_dim": 8,
        "linear_num_key_heads": 2,
        "linear_num_value_heads": 4,
        "rope_parameters": {**rope, "mrope_section": [2, 1, 1], "mrope_interleaved": True},
    }
    return config(
        text_config=shape | text | more,
        vision_config=vision,
        tie_word_embeddings=text["tie_word_embeddings"],
        **TOKENS,
    )


def _glm(config: Callable[..., hf.PreTrainedConfig]) -> Callable[[Text], hf.PreTrainedConfig]:
    def build(text: Text) -> hf.PreTrainedConfig:
        rope = {
            **MROPE["rope_parameters"],
            "partial_rotary_factor": 0.5,
            "mrope_section": [2, 1, 1],
        }
        vision = {**QWEN_TOWER, "out_hidden_size": 32, "image_size": 28}
        return config(
            text_config={"model_type": "glm4v_text", "rope_parameters": rope, **text},
            vision_config={"model_type": "glm4v_vision", **vision},
            tie_word_embeddings=text["tie_word_embeddings"],
            image_token_id=IMAGE,
            video_token_id=VIDEO,
            image_start_token_id=VISION_START,
            image_end_token_id=VISION_END,
            video_start_token_id=88,
            video_end_token_id=89,
        )

    return build


def _gemma4(text: Text) -> hf.PreTrainedConfig:
    """Every third layer attends to all tokens, the others to the last eight; images see themselves
    both ways, as in the larger models of the family, and layers have inputs of their own, as in the
    smaller ones.
    """
    layers = range(1, text["num_hidden_layers"] + 1)
    shape = {
        "head_dim": 16,
        "global_head_dim": 32,
        "layer_types": ["sliding_attention" if i % 3 else "full_attention" for i in layers],
        "sliding_window": 8,
        "use_bidirectional_attention": "vision",
        "hidden_size_per_layer_input": 8,
        "vocab_size_per_layer_input": VOCABULARY,
        "final_logit_softcapping": 8.0,
    }
    vision = {**SIZES, "num_key_value_heads": 2, "head_dim": 16, "patch_size": 14}
    return hf.Gemma4Config(
        text_config=shape | text,
        vision_config={**vision, "pooling_kernel_size": 2, "position_embedding_size": 256},
        tie_word_embeddings=text["tie_word_embeddings"],
        image_token_id=IMAGE,
        video_token_id=VIDEO,
        boi_token_id=VISION_START,
        eoi_token_id=VISION_END,
        audio_token_id=89,
    )


def _llava_family(
    config: Callable[..., hf.PreTrainedConfig], text_type: str, tower: Text, **more: object
) -> Callable[[Text], hf.PreTrainedConfig]:
    def build(text: Text) -> hf.PreTrainedConfig:
        head = {"head_dim": 16} if text_type in ("mistral", "gemma", "gemma3_text") else {}
        return config(
            text_config={"model_type": text_type, **text, **head},
            vision_config=dict(tower),
            tie_word_embeddings=text["tie_word_embeddings"],
            **more,
        )

    return build


CONFIGS: dict[str, Callable[[Text], hf.PreTrainedConfig]] = {
    "qwen2_vl": _qwen2_vl,
    "qwen2_5_vl": _qwen2_5_vl,
    "qwen3_vl": _qwen3_vl,
    "qwen3_5": _qwen3_5,
    # the first layer has an MLP, the others experts
    "qwen3_vl_moe": lambda text: _qwen3_vl(
        text, hf.Qwen3VLMoeConfig, mlp_only_layers=[0], **EXPERTS
    ),
    "qwen3_5_moe": lambda text: _qwen3_5(
        text, hf.Qwen3_5MoeConfig, shared_expert_intermediate_size=24, **EXPERTS
    ),
    "glm4v": _glm(hf.Glm4vConfig),
    "glm46v": _glm(hf.Glm46VConfig),
    "llava": _llava_family(hf.LlavaConfig, "llama", CLIP, image_token_index=IMAGE),
    "llava_next": _llava_family(
        hf.LlavaNextConfig,
        "mistral",
        CLIP,
        image_token_index=IMAGE,
        image_grid_pinpoints=TILES,
    ),
    "llava_onevision": _llava_family(
        hf.LlavaOnevisionConfig,
        "qwen2",
        {**SIGLIP, "vision_use_head": False},
        image_token_index=IMAGE,
        video_token_index=VIDEO,
        image_grid_pinpoints=TILES,
    ),
    "internvl": _llava_family(
        hf.InternVLConfig,
        "qwen2",
        {**SIZES, "image_size": [28, 28], "patch_size": [14, 14]},
        image_token_id=IMAGE,
    ),
    "gemma3": _llava_family(
        hf.Gemma3Config, "gemma3_text", SIGLIP, image_token_index=IMAGE, mm_tokens_per_image=4
    ),
    "gemma4": _gemma4,
    "mistral3": _llava_family(
        hf.Mistral3Config, "mistral", {**TOWER, "model_type": "pixtral"}, image_token_index=IMAGE
    ),
    "paligemma": _llava_family(
        hf.PaliGemmaConfig,
        "gemma",
        {**SIGLIP, "projection_dim": 32},
        image_token_index=IMAGE,
        projection_dim=32,
    ),
    "idefics3": _llava_family(
        hf.Idefics3Config,
        "llama",
        {**TOWER, "model_type": "idefics3_vision"},
        image_token_id=IMAGE,
        scale_factor=2,
    ),
    "smolvlm": _llava_family(
        hf.SmolVLMConfig,
        "llama",
        {**TOWER, "model_type": "smolvlm_vision"},
        image_token_id=IMAGE,
        scale_factor=2,
    ),
    "qwen2": lambda text: hf.Qwen2Config(**text),
    "qwen3": lambda text: hf.Qwen3Config(**{**text, "head_dim": 16}),
    "llama": lambda text: hf.LlamaConfig(**text),
    "mistral": lambda text: hf.MistralConfig(**text),
    "gemma3_text": lambda text: hf.Gemma3TextConfig(**{**text, "head_dim": 16}),
}
