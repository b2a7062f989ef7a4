"""A processor for the tiny model of every family that sees: words w2 … w89 are their own ids."""

from unittest import mock

import transformers as hf
from tokenizers import AddedToken, Tokenizer, models, pre_tokenizers
from transformers.models.qwen2_vl.video_processing_qwen2_vl import Qwen2VLVideoProcessor
from transformers.models.smolvlm import processing_smolvlm
from transformers.models.smolvlm.video_processing_smolvlm import SmolVLMVideoProcessor

from franken.models.loading import Loaded, wrap
from franken.models.tiny import tiny
from franken.models.tiny_configs import IMAGE, VIDEO, VISION_END, VISION_START

SIDE = 28
MARKS = {"<image>": IMAGE, "<video>": VIDEO, "<start>": VISION_START, "<end>": VISION_END}
MARKS |= {"<fake>": 94, "<global>": 95}
ROLES = {
    "image_token": "<image>",
    "context_image_token": "<image>",
    "video_token": "<video>",
    "start_image_token": "<start>",
    "end_image_token": "<end>",
    "boi_token": "<start>",
    "eoi_token": "<end>",
    "fake_image_token": "<fake>",
    "global_image_token": "<global>",
}
PLACEHOLDERS = {"gemma3": "<start>", "qwen": "<start><image><end>"}
TEMPLATE = (
    "{%- for message in messages -%} w5 {% for part in message.content -%}"
    "{%- if part.type == 'image' -%} PLACEHOLDER w7 {% else %} {{ part.text }} {% endif -%}"
    "{%- endfor -%}{%- endfor -%} w6"
)


def tiny_tokenizer(placeholder: str) -> hf.PreTrainedTokenizerFast:
    """96 tokens: padding, end, unknown, words, and the markers of images where the models have
    them.
    """
    words = {"<pad>": 0, "</s>": 1, "<unk>": 2} | {f"w{i}": i for i in range(3, 90)}
    tokenizer = Tokenizer(models.WordLevel(words | MARKS, unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    tokenizer.add_special_tokens([AddedToken(t, special=True, normalized=False) for t in MARKS])
    return hf.PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        eos_token="</s>",
        pad_token="<pad>",
        unk_token="<unk>",
        padding_side="left",
        extra_special_tokens=ROLES,
        chat_template=TEMPLATE.replace("PLACEHOLDER", placeholder),
    )


def tiny_processor(model_type: str) -> hf.ProcessorMixin:
    """The family's own classes, small; images of 28 pixels a tile, patches of 14."""
    key = "qwen" if model_type.startswith("qwen") else model_type
    tokenizer = tiny_tokenizer(PLACEHOLDERS.get(key, "<image>"))
    square = {"height": SIDE, "width": SIDE}
    given = {"tokenizer": tokenizer, "chat_template": tokenizer.chat_template}
    if key == "qwen":
        sizes = {"size": {"shortest_edge": SIDE**2, "longest_edge": (6 * SIDE) ** 2}}
        sizes |= {"patch_size": 14, "merge_size": 2, "temporal_patch_size": 2}
        made = {"qwen2_vl": hf.Qwen2VLProcessor, "qwen2_5_vl": hf.Qwen2_5_VLProcessor}
        return made.get(model_type, hf.Qwen3VLProcessor)(
            image_processor=hf.Qwen2VLImageProcessor(**sizes),
            video_processor=Qwen2VLVideoProcessor(**sizes),
            **given,
        )
    if key == "llava_onevision":
        images = hf.LlavaOnevisionImageProcessor(size=square, image_grid_pinpoints=[[SIDE, SIDE]])
        return hf.LlavaOnevisionProcessor(
            image_processor=images,
            video_processor=hf.LlavaOnevisionVideoProcessor(),
            num_image_tokens=4,
            vision_feature_select_strategy="full",
            **given,
        )
    if key == "internvl":
        return hf.InternVLProcessor(
            image_processor=hf.GotOcr2ImageProcessor(size=square, max_patches=4),
            video_processor=hf.InternVLVideoProcessor(),
            image_seq_length=1,
            **given,
        )
    if key == "gemma3":
        images = hf.Gemma3ImageProcessor(size=square)
        return hf.Gemma3Processor(image_processor=images, image_seq_length=4, **given)
    assert key == "smolvlm"
    images = hf.SmolVLMImageProcessor(
        size={"longest_edge": 2 * SIDE}, max_image_size={"longest_edge": SIDE}
    )
    with mock.patch.object(processing_smolvlm, "num2words", str):  # which only videos need
        return hf.SmolVLMProcessor(
            image_processor=images,
            video_processor=SmolVLMVideoProcessor(),
            image_seq_len=1,
            **given,
        )


def tiny_loaded(model_type: str) -> Loaded:
    """A tiny random model that sees, with its processor."""
    processor = tiny_processor(model_type)
    return wrap(tiny(model_type), processor, processor.tokenizer)
