"""The real processor of every family that sees, small: the family's own classes and settings
(tiles, crops, merged patches, soft tokens) around a tokenizer in which the word w17 is the id 17.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import partial
from types import MappingProxyType
from typing import Any

import transformers as hf
from tokenizers import AddedToken, Tokenizer, models, pre_tokenizers, processors
from transformers.models.gemma4.video_processing_gemma4 import Gemma4VideoProcessor
from transformers.models.glm4v.video_processing_glm4v import Glm4vVideoProcessor
from transformers.models.glm46v.video_processing_glm46v import Glm46VVideoProcessor
from transformers.models.qwen2_vl.video_processing_qwen2_vl import Qwen2VLVideoProcessor
from transformers.models.smolvlm import processing_smolvlm
from transformers.models.smolvlm.video_processing_smolvlm import SmolVLMVideoProcessor

from franken.models.loading import Loaded, wrap
from franken.models.tiny import tiny
from franken.models.tiny_configs import IMAGE, TILES, VIDEO, VISION_END, VISION_START

SIDE = 28
SQUARE = {"height": SIDE, "width": SIDE}
GLM = {
    "<image>": "<|image|>",
    "<video>": "<|video|>",
    "w88": "<|begin_of_video|>",
    "w89": "<|end_of_video|>",
}
IDEFICS = {
    "<fake>": "<fake_token_around_image>",
    "<global>": "<global-img>",
    "w89": "<end_of_utterance>",
}
TEMPLATE = (
    "{%- for message in messages -%}{%- if message.role == 'assistant' %} w6 "
    "{%- for part in message.content %} {{ part.text }} {% endfor -%} </s>"
    "{%- else -%} w5 {% for part in message.content -%}"
    "{%- if part.type == 'image' -%} PLACEHOLDER w7 {% else %} {{ part.text }} {% endif -%}"
    "{%- endfor -%}{%- endif -%}{%- endfor -%}"
    "{%- if add_generation_prompt %} w6{% endif -%}"
)
BEGIN = "<s>"
BEGINS = {"gemma3": "template", "gemma4": "template", "llava": "tokenizer", "idefics3": "template"}
processing_smolvlm.num2words = str  # which only videos need


@dataclass(frozen=True)
class Case:
    """A model of a family, with what makes it another than the family's other ones: `text` changes
    its decoder's configuration, `processor` its processor's settings.
    """

    name: str  # as people call it
    model_type: str
    text: Mapping[str, Any] = field(default_factory=dict)
    processor: Mapping[str, Any] = field(default_factory=dict)


E2B = {"num_kv_shared_layers": 1, "use_bidirectional_attention": None, "num_hidden_layers": 4}
E2B["layer_types"] = ["sliding_attention", "full_attention"] * 2
GEMMA3 = {"sliding_window": 8}
GEMMA3 |= {"layer_types": ["sliding_attention", "full_attention", "sliding_attention"]}
SCAN = {"do_pan_and_scan": True, "pan_and_scan_min_crop_size": 14}
SCAN |= {"pan_and_scan_max_num_crops": 4, "pan_and_scan_min_ratio_to_activate": 1.2}
CASES = (
    Case("Qwen2-VL", "qwen2_vl"),
    Case("Qwen2.5-VL", "qwen2_5_vl"),
    Case("Qwen3-VL", "qwen3_vl"),
    Case("Qwen3.5", "qwen3_5"),
    Case("GLM-4.1V", "glm4v"),
    Case("GLM-4.6V", "glm46v"),
    Case("LLaVA 1.5", "llava"),
    Case("LLaVA-NeXT", "llava_next", {"sliding_window": 6}),
    Case("LLaVA-OneVision", "llava_onevision"),
    Case("Mistral 3", "mistral3"),
    Case("InternVL 3", "internvl"),
    Case("InternVL 3.5", "internvl", {"model_type": "qwen3", "head_dim": 16}),
    Case("Gemma 3", "gemma3", GEMMA3),
    Case("Gemma 3, pan and scan", "gemma3", GEMMA3, SCAN),
    Case("Gemma 4", "gemma4"),
    Case("Gemma 4, small", "gemma4", E2B),
    Case("SmolVLM", "smolvlm"),
    Case("Idefics3", "idefics3"),
)
CASE = {case.name: case for case in CASES}
FIRST = {case.model_type: case for case in reversed(CASES)}  # of every family


def tiny_tokenizer(
    placeholder: str, names: Mapping[str, str] = MappingProxyType({}), begins: str = ""
) -> hf.PreTrainedTokenizerFast:
    """96 tokens: padding, end, unknown, words, and the markers of images; `names` are those that
    the family has for some of them. Texts begin with a token of their own where the family's do;
    `begins` says who writes it, "template" or "tokenizer".
    """
    words = {"<pad>": 0, "</s>": 1, "<unk>": 2, BEGIN if begins else "w3": 3}
    words |= {f"w{i}": i for i in range(4, 90)}
    marks = {"<image>": IMAGE, "<video>": VIDEO, "<start>": VISION_START, "<end>": VISION_END}
    marks |= {"<fake>": 94, "<global>": 95}
    marks |= {word: words.pop(word) for word in names if word in words}
    marks = {names.get(name, name): number for name, number in marks.items()}
    tokenizer = Tokenizer(models.WordLevel(words | marks, unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    tokenizer.add_special_tokens([AddedToken(t, special=True, normalized=False) for t in marks])
    if begins:
        tokenizer.post_processor = processors.TemplateProcessing(
            single=f"{BEGIN}:0 $A:0", special_tokens=[(BEGIN, words[BEGIN])]
        )
    roles = {
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
    roles = {role: names.get(mark, mark) for role, mark in roles.items()}
    if "<video>" not in marks:  # Gemma 4's tokenizers have a token for sound
        roles |= {"audio_token": "w89", "boa_token": "w88", "eoa_token": "w87"}
    return hf.PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        eos_token="</s>",
        pad_token="<pad>",
        unk_token="<unk>",
        bos_token=BEGIN if begins else None,
        padding_side="left",
        extra_special_tokens=roles,
        chat_template=(f"{BEGIN} " if begins == "template" else "")
        + TEMPLATE.replace("PLACEHOLDER", placeholder),
    )


def _qwen(processor: Callable[..., Any], **given: Any) -> Any:
    sizes = {"size": {"shortest_edge": SIDE**2, "longest_edge": (6 * SIDE) ** 2}}
    sizes |= {"patch_size": 14, "merge_size": 2, "temporal_patch_size": 2}
    images, videos = hf.Qwen2VLImageProcessor(**sizes), Qwen2VLVideoProcessor(**sizes)
    return processor(image_processor=images, video_processor=videos, **given)


def _glm(
    processor: Callable[..., Any], images: Callable[..., Any], videos: Callable[..., Any]
) -> Callable[..., Any]:
    sizes = {"size": {"shortest_edge": 2 * SIDE**2, "longest_edge": 2 * (6 * SIDE) ** 2}}
    sizes |= {"patch_size": 14, "merge_size": 2, "temporal_patch_size": 2}
    return lambda **given: processor(
        image_processor=images(**sizes), video_processor=videos(**sizes), **given
    )


def _llava(**given: Any) -> Any:
    images = hf.CLIPImageProcessor(size={"shortest_edge": SIDE}, crop_size=SQUARE)
    return hf.LlavaProcessor(image_processor=images, **CLIP, **given)


def _llava_next(**given: Any) -> Any:
    images = hf.LlavaNextImageProcessor(
        size={"shortest_edge": SIDE}, crop_size=SQUARE, image_grid_pinpoints=TILES
    )
    return hf.LlavaNextProcessor(image_processor=images, **CLIP, **given)


def _onevision(**given: Any) -> Any:
    return hf.LlavaOnevisionProcessor(
        image_processor=hf.LlavaOnevisionImageProcessor(size=SQUARE, image_grid_pinpoints=TILES),
        video_processor=hf.LlavaOnevisionVideoProcessor(),
        num_image_tokens=4,
        vision_feature_select_strategy="full",
        **given,
    )


def _mistral(**given: Any) -> Any:
    images = hf.PixtralImageProcessor(size={"longest_edge": 4 * SIDE}, patch_size=SIDE)
    marks = {"image_token": "<image>", "image_break_token": "<fake>", "image_end_token": "<end>"}
    return hf.PixtralProcessor(
        image_processor=images, patch_size=14, spatial_merge_size=2, **marks, **given
    )


def _internvl(**given: Any) -> Any:
    return hf.InternVLProcessor(
        image_processor=hf.GotOcr2ImageProcessor(size=SQUARE, max_patches=4),
        video_processor=hf.InternVLVideoProcessor(),
        image_seq_length=1,
        **given,
    )


def _gemma3(**given: Any) -> Any:
    scan = {name: given.pop(name) for name in SCAN if name in given}
    images = hf.Gemma3ImageProcessor(size=SQUARE, **scan)
    made = hf.Gemma3Processor(image_processor=images, image_seq_length=4, **given)
    made.images_kwargs = {**made.images_kwargs, **scan}
    return made


def _gemma4(**given: Any) -> Any:
    sizes = {"patch_size": 14, "pooling_kernel_size": 2, "max_soft_tokens": 70}
    return hf.Gemma4Processor(
        feature_extractor=hf.Gemma4AudioFeatureExtractor(),
        image_processor=hf.Gemma4ImageProcessor(**sizes),
        video_processor=Gemma4VideoProcessor(**sizes),
        image_seq_length=70,
        **given,
    )


def _smolvlm(**given: Any) -> Any:
    images = hf.SmolVLMImageProcessor(
        size={"longest_edge": 2 * SIDE}, max_image_size={"longest_edge": SIDE}
    )
    videos = SmolVLMVideoProcessor()
    return hf.SmolVLMProcessor(
        image_processor=images, video_processor=videos, image_seq_len=1, **given
    )


def _idefics(**given: Any) -> Any:
    images = hf.Idefics3ImageProcessor(
        size={"longest_edge": 2 * SIDE}, max_image_size={"longest_edge": SIDE}
    )
    return hf.Idefics3Processor(image_processor=images, image_seq_len=1, **given)


CLIP = {"patch_size": 14, "num_additional_image_tokens": 1}
CLIP |= {"vision_feature_select_strategy": "default"}
QWEN = "<start><image><end>"
# how the processor is made, what its template writes for an image, its names for markers
PROCESSORS: Mapping[str, tuple[Callable[..., Any], str, Mapping[str, str]]] = {
    "qwen2_vl": (partial(_qwen, hf.Qwen2VLProcessor), QWEN, {}),
    "qwen2_5_vl": (partial(_qwen, hf.Qwen2_5_VLProcessor), QWEN, {}),
    "qwen3_vl": (partial(_qwen, hf.Qwen3VLProcessor), QWEN, {}),
    "qwen3_5": (partial(_qwen, hf.Qwen3VLProcessor), QWEN, {}),
    "qwen3_vl_moe": (partial(_qwen, hf.Qwen3VLProcessor), QWEN, {}),
    "qwen3_5_moe": (partial(_qwen, hf.Qwen3VLProcessor), QWEN, {}),
    "glm4v": (
        _glm(hf.Glm4vProcessor, hf.Glm4vImageProcessor, Glm4vVideoProcessor),
        "<start><|image|><end>",
        GLM,
    ),
    "glm46v": (
        _glm(hf.Glm46VProcessor, hf.Glm46VImageProcessor, Glm46VVideoProcessor),
        "<start><|image|><end>",
        GLM,
    ),
    "llava": (_llava, "<image>", {}),
    "llava_next": (_llava_next, "<image>", {}),
    "llava_onevision": (_onevision, "<image>", {}),
    "mistral3": (_mistral, "<image>", {}),
    "internvl": (_internvl, "<image>", {}),
    "gemma3": (_gemma3, "<start>", {}),
    "gemma4": (_gemma4, "<image>", {"<video>": "<|video|>"}),
    "smolvlm": (_smolvlm, "<image>", {}),
    "idefics3": (_idefics, "<image>", IDEFICS),
}


def tiny_processor(model_type: str, **settings: Any) -> hf.ProcessorMixin:
    """The family's own classes; images of 28 pixels a tile, patches of 14."""
    build, placeholder, names = PROCESSORS[model_type]
    tokenizer = tiny_tokenizer(placeholder, names, BEGINS.get(model_type, ""))
    return build(tokenizer=tokenizer, chat_template=tokenizer.chat_template, **settings)


def tiny_loaded(case: Case | str, layers: int = 3) -> Loaded:
    """A tiny random model that sees, with its processor; of a family, its first case."""
    case = FIRST.get(case, Case(case, case)) if isinstance(case, str) else case
    model = tiny(case.model_type, layers=layers, text=case.text)
    processor = tiny_processor(case.model_type, **case.processor)
    return wrap(model, processor, processor.tokenizer)
