"""Tiny random models of every family, for tests and `franken doctor`; and real-size ones on the
meta device.
"""

from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
import transformers as hf
from transformers import AutoModelForCausalLM, AutoModelForImageTextToText

from franken.errors import UsageError
from franken.models.batch import ModelBatch
from franken.models.tiny_configs import IMAGE, Text, tiny_config

if TYPE_CHECKING:
    from transformers import PreTrainedModel

# Those that `tiny_inputs` can feed; `tiny_configs.CONFIGS` has more, to save and to read.
TINY_VISION = (
    "qwen2_vl",
    "qwen2_5_vl",
    "qwen3_vl",
    "qwen3_vl_moe",
    "qwen3_5",
    "glm4v",
    "glm46v",
    "llava",
    "llava_next",
    "llava_onevision",
    "mistral3",
    "internvl",
    "gemma3",
    "gemma4",
    "smolvlm",
    "idefics3",
)
TINY_FAMILIES = (*TINY_VISION, "qwen2", "qwen3")


# Projections that start at zero or nearly: every image would look the same.
FAINT = ("mm_input_projection_weight", "embed_vision.embedding_projection.weight")


def tiny(
    model_type: str,
    seed: int = 0,
    *,
    tied: bool = False,
    layers: int = 3,
    text: Text | None = None,
) -> "PreTrainedModel":
    """A tiny random model in fp32, the same for the same seed; `text` changes its decoder's
    configuration.
    """
    config = tiny_config(model_type, tied=tied, layers=layers, text=text)
    auto = AutoModelForImageTextToText if hasattr(config, "vision_config") else AutoModelForCausalLM
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = auto.from_config(config).float().eval()
        for name, parameter in model.named_parameters():
            if name.endswith(FAINT):
                torch.nn.init.normal_(parameter)
    return model


def constant(model: "PreTrainedModel", value: float) -> "PreTrainedModel":
    """Set every weight to one value: then a merged tensor says where it came from."""
    with torch.no_grad():
        for weight in model.state_dict().values():
            weight.fill_(value)
    return model


def save_tiny(
    folder: Path,
    model_type: str,
    seed: int = 0,
    *,
    value: float | None = None,
    original_names: bool = True,
    **kwargs: Any,
) -> Path:
    """Save a tiny model; `value` makes it constant, `original_names=False` writes the names it has
    in memory.

    Extra arguments go to `save_pretrained` (`max_shard_size`) or `tiny` (`tied`, `layers`).
    """
    shape = {k: kwargs.pop(k) for k in ("tied", "layers") if k in kwargs}
    model = tiny(model_type, seed, **shape)
    if value is not None:
        constant(model, value)
    model.save_pretrained(folder, save_original_format=original_names, **kwargs)
    return folder


def tiny_inputs(
    model_type: str, batch: int = 1, seed: int = 0, images: int = 1
) -> dict[str, torch.Tensor]:
    """Hand-built ids and pixels: a system token, `images` images with a token after each but the
    last, a question of three.
    """
    generator = torch.Generator().manual_seed(seed)
    question = torch.randint(2, 60, (batch, 3), generator=generator)
    lead = torch.full((batch, 1), 5)
    if model_type in ("qwen2", "qwen3"):
        ids = torch.cat([lead, question], 1)
        return {"input_ids": ids, "attention_mask": torch.ones_like(ids)}
    one = torch.tensor([IMAGE] * VISUAL_TOKENS[model_type] + [7])
    ids = torch.cat([lead, one.repeat(images)[:-1].expand(batch, -1), question], 1)
    inputs = {"input_ids": ids, "attention_mask": torch.ones_like(ids)}
    count, side = batch * images, (3, 28, 28)

    def random(*shape: int) -> torch.Tensor:
        return torch.randn(*shape, generator=generator)

    if model_type.startswith(("qwen", "glm")):
        inputs["pixel_values"] = random(count * 16, 3 * 2 * 14 * 14)
        inputs["image_grid_thw"] = torch.tensor([[1, 4, 4]] * count)
        inputs["mm_token_type_ids"] = (ids == IMAGE).int()
    elif model_type in ("llava_next", "llava_onevision"):  # the whole image, and its one crop
        inputs["pixel_values"] = random(count, 2, *side)
        inputs["image_sizes"] = torch.tensor([[28, 28]] * count)
    elif model_type == "mistral3":
        inputs["pixel_values"] = random(count, 3, 56, 56)
        inputs["image_sizes"] = torch.tensor([[56, 56]] * count)
    elif model_type == "internvl":  # two tiles
        inputs["pixel_values"] = random(2 * count, *side)
    elif model_type in ("smolvlm", "idefics3"):
        inputs["pixel_values"] = random(batch, images, *side)
    elif model_type == "gemma4":  # four by four patches
        inputs["pixel_values"] = torch.rand(count, 16, 3 * 14 * 14, generator=generator)
        at = torch.cartesian_prod(torch.arange(4), torch.arange(4)).flip(-1)
        inputs["image_position_ids"] = at.expand(count, -1, -1)
        inputs["mm_token_type_ids"] = (ids == IMAGE).int()
    else:
        inputs["pixel_values"] = random(count, *side)
        if model_type == "gemma3":
            inputs["token_type_ids"] = (ids == IMAGE).int()
    return inputs


def tiny_batch(
    model: "PreTrainedModel", rows: int = 1, seed: int = 0, images: int = 1
) -> ModelBatch:
    """`tiny_inputs` of the model's family as a batch."""
    inputs = tiny_inputs(model.config.model_type, rows, seed, images)
    return ModelBatch.of(model, inputs, [images if "pixel_values" in inputs else 0] * rows)


# Of a 28-pixel image (Gemma 4 and Mistral 3: 56). LLaVA-NeXT and -OneVision: 2×2 patches of the
# whole, 2×2 of its one crop, a newline token a row.
VISUAL_TOKENS = {name: 4 for name in (*TINY_VISION, "qwen3_5_moe")} | {
    "llava_next": 10,
    "llava_onevision": 10,
    "internvl": 2,
    "smolvlm": 1,
    "idefics3": 1,
}


def real_size(model_type: str) -> "PreTrainedModel":
    """A model of real dimensions without memory, on the meta device: 7B for the VLMs' and Qwen2's
    shapes, 8B for Qwen3's.
    """
    text: Text = {
        "vocab_size": 152064,
        "hidden_size": 3584,
        "intermediate_size": 18944,
        "num_hidden_layers": 28,
        "num_attention_heads": 28,
        "num_key_value_heads": 4,
    }
    wide: Text = {
        "vocab_size": 151936,
        "hidden_size": 4096,
        "intermediate_size": 12288,
        "num_hidden_layers": 36,
        "num_attention_heads": 32,
        "num_key_value_heads": 8,
        "head_dim": 128,
    }
    configs = {
        "qwen2_5_vl": lambda: hf.Qwen2_5_VLConfig(
            text_config=text, vision_config={"hidden_size": 1280, "out_hidden_size": 3584}
        ),
        "qwen3_vl": lambda: hf.Qwen3VLConfig(
            text_config=wide, vision_config={"out_hidden_size": 4096}
        ),
        "llava_onevision": lambda: hf.LlavaOnevisionConfig(
            text_config={"model_type": "qwen2", **text}
        ),
        "qwen2": lambda: hf.Qwen2Config(**text),
        "qwen3": lambda: hf.Qwen3Config(**wide),
    }
    if model_type not in configs:
        raise UsageError(f"no real-size {model_type!r}", why=f"there are {', '.join(configs)}")
    config = configs[model_type]()
    auto = (
        hf.AutoModelForImageTextToText
        if hasattr(config, "vision_config")
        else hf.AutoModelForCausalLM
    )
    with torch.device("meta"):
        return auto.from_config(config)
