"""The creature: a tiny but real Qwen2.5-VL with its own tokenizer and processor, made to be taken
apart on a laptop.

1.2 million parameters, 8 decoder layers, 84×84 images of 9 visual tokens. It loads with
`AutoModelForImageTextToText` and `AutoProcessor` from a local folder. Two checkpoints are shipped,
**base** (reads every cell of a grid) and **sft** (solves the puzzles by several strategies); RL is
run live. The recipes that made them are `trainer/recipes/creature-base.yaml` and
`creature-sft.yaml`.

The tokenizer is a Unigram model over the words of the tasks with a byte fallback: it encodes any
text, and the text comes back. The attention of a fresh model starts out looking for tokens like
itself and copying them (mimetic initialisation, Trockman & Kolter, arXiv 2305.09828), without which
so small a model needs far longer to learn to look at the image.
"""

from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from franken.errors import UsageError, did_you_mean

if TYPE_CHECKING:
    import torch
    from transformers import (
        PreTrainedTokenizerFast,
        Qwen2_5_VLConfig,
        Qwen2_5_VLForConditionalGeneration,
    )

STAGES = ("base", "sft")
WEIGHTS = Path(__file__).parent / "weights" / "creature"

SPECIAL = (
    "<|endoftext|>",
    "<|im_start|>",
    "<|im_end|>",
    "<|vision_start|>",
    "<|vision_end|>",
    "<|image_pad|>",
    "<|video_pad|>",
)
TAG_NAMES = ("think", "answer", "rethink", "visual", "image description")
TAGS = tuple(tag for name in TAG_NAMES for tag in (f"<{name}>", f"</{name}>"))
ROLE_WORDS = ("system", "user", "assistant")
LESSON_WORDS = ("Describe", "Tally", "At", "Color", "Shape", "Digit", "Add", "More", "at")
QUESTION_WORDS = (
    "What",
    "is",
    "color",
    "shape",
    "digit",
    "How",
    "many",
    "are",
    "plus",
    "Which",
    "more",
    "or",
)
CHAIN_WORDS = ("rows", "cols", "scan", "fwd", "back", "total", "so", "same", "=")
WORLD_WORDS = ("red", "green", "blue", "yellow", "circle", "square", "triangle", "empty")
NUMBERS = tuple(str(i) for i in range(19))
CELL_WORDS = tuple(f"r{i}c{j}" for i in (1, 2, 3) for j in (1, 2, 3))
LINE_WORDS = ("r1", "r2", "r3", "c1", "c2", "c3")
WORDS = (
    ROLE_WORDS
    + LESSON_WORDS
    + QUESTION_WORDS
    + CHAIN_WORDS
    + WORLD_WORDS
    + NUMBERS
    + CELL_WORDS
    + LINE_WORDS
)
BASE_NEVER_SEES = (
    TAGS + tuple(f"▁{w}" for w in QUESTION_WORDS + ("scan", "fwd", "back", "total")) + ("?", ",")
)

CHAT_TEMPLATE = (
    "{%- for message in messages -%}<|im_start|>{{ message.role }}"
    "{%- if message.content is string %} {{ message.content }}"
    "{%- else -%}{%- for part in message.content -%}"
    "{%- if part.type == 'image' -%}<|vision_start|><|image_pad|><|vision_end|>"
    "{%- elif part.type == 'text' %} {{ part.text }}{%- endif -%}"
    "{%- endfor -%}{%- endif -%}<|im_end|>"
    "{%- endfor -%}"
    "{%- if add_generation_prompt -%}<|im_start|>assistant{%- endif -%}"
)

HIDDEN, LAYERS, HEADS, HEAD_DIM = 96, 8, 3, 32
PATCH, MERGE, IMAGE_SIDE = 14, 2, 84


def creature_path(stage: str) -> Path:
    """The folder of a shipped checkpoint: `base` or `sft`. Raises UsageError for another name."""
    if stage not in STAGES:
        raise UsageError(
            f"the creature has no checkpoint {stage!r}",
            why=f"it is shipped as {' and '.join(STAGES)}; RL is run live",
            fix=did_you_mean(stage, STAGES) or "use creature:base or creature:sft",
        )
    return WEIGHTS / stage


def build_tokenizer() -> "PreTrainedTokenizerFast":
    """Words of the tasks as single tokens, every other text as bytes; `decode(encode(text)) ==
    text` for spaced words.
    """
    from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    bytes_ = [f"<0x{b:02X}>" for b in range(256)]
    pieces = ["<unk>", "▁", "?", ","] + [f"▁{word}" for word in WORDS]
    vocabulary = [*SPECIAL, *TAGS, *bytes_, *pieces]
    vocabulary += [f"<extra_{i}>" for i in range(-len(vocabulary) % 8)]
    scores = [0.0 if token in SPECIAL + TAGS else -1.0 for token in vocabulary]
    scores = [
        -10.0 if token in bytes_ else score for token, score in zip(vocabulary, scores, strict=True)
    ]
    unigram = models.Unigram(
        list(zip(vocabulary, scores, strict=True)),
        unk_id=vocabulary.index("<unk>"),
        byte_fallback=True,
    )
    tokenizer = Tokenizer(unigram)
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace(replacement="▁", prepend_scheme="always")
    tokenizer.decoder = decoders.Sequence(
        [decoders.ByteFallback(), decoders.Metaspace(prepend_scheme="always")]
    )
    tokenizer.add_special_tokens([AddedToken(t, special=True, normalized=False) for t in SPECIAL])
    tokenizer.add_tokens([AddedToken(t, lstrip=True, rstrip=True, normalized=False) for t in TAGS])
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        eos_token="<|im_end|>",
        pad_token="<|endoftext|>",
        unk_token="<unk>",
        padding_side="left",
        clean_up_tokenization_spaces=False,
        model_max_length=512,
        extra_special_tokens={
            "image_token": "<|image_pad|>",
            "video_token": "<|video_pad|>",
            "vision_bos_token": "<|vision_start|>",
            "vision_eos_token": "<|vision_end|>",
        },
        chat_template=CHAT_TEMPLATE,
    )


def build_processor() -> Any:
    """Tokenizer and image processor in one. Images of 84 pixels pass unscaled; larger ones shrink
    to at most 252.
    """
    from transformers import Qwen2_5_VLProcessor, Qwen2VLImageProcessor
    from transformers.models.qwen2_vl.video_processing_qwen2_vl import Qwen2VLVideoProcessor

    sizes = {"shortest_edge": (2 * PATCH) ** 2, "longest_edge": (3 * IMAGE_SIDE) ** 2}
    images = Qwen2VLImageProcessor(
        patch_size=PATCH, merge_size=MERGE, temporal_patch_size=2, size=sizes
    )
    videos = Qwen2VLVideoProcessor(
        patch_size=PATCH, merge_size=MERGE, temporal_patch_size=2, size=sizes
    )
    return Qwen2_5_VLProcessor(images, build_tokenizer(), videos, chat_template=CHAT_TEMPLATE)


def build_config(tokenizer: "PreTrainedTokenizerFast") -> "Qwen2_5_VLConfig":
    """The creature's dimensions. Rotary base 1000 and sections [4, 6, 6] suit a head of 32 and
    short rows.
    """
    from transformers import Qwen2_5_VLConfig

    def token(text: str) -> int:
        found = tokenizer.convert_tokens_to_ids(text)
        assert isinstance(found, int)
        return found

    return Qwen2_5_VLConfig(
        text_config={
            "vocab_size": len(tokenizer),
            "hidden_size": HIDDEN,
            "intermediate_size": 3 * HIDDEN,
            "num_hidden_layers": LAYERS,
            "num_attention_heads": HEADS,
            "num_key_value_heads": HEADS,
            "max_position_embeddings": 512,
            "initializer_range": 0.05,
            "rms_norm_eps": 1e-6,
            "tie_word_embeddings": True,
            "rope_parameters": {
                "rope_type": "default",
                "rope_theta": 1000.0,
                "mrope_section": [4, 6, 6],
            },
            "bos_token_id": None,
            "eos_token_id": tokenizer.eos_token_id,
            "pad_token_id": tokenizer.pad_token_id,
        },
        vision_config={
            "depth": 2,
            "hidden_size": 64,
            "intermediate_size": 128,
            "num_heads": 2,
            "patch_size": PATCH,
            "spatial_merge_size": MERGE,
            "temporal_patch_size": 2,
            "out_hidden_size": HIDDEN,
            "window_size": 112,
            "fullatt_block_indexes": [0, 1],
            "initializer_range": 0.05,
            "rope_parameters": {"rope_type": "axial", "rope_theta": 100.0},
        },
        image_token_id=token("<|image_pad|>"),
        video_token_id=token("<|video_pad|>"),
        vision_start_token_id=token("<|vision_start|>"),
        vision_end_token_id=token("<|vision_end|>"),
        tie_word_embeddings=True,
    )


def build_model(seed: int = 0) -> "Qwen2_5_VLForConditionalGeneration":
    """A fresh creature in fp32 with mimetic attention."""
    import torch
    from transformers import GenerationConfig, Qwen2_5_VLForConditionalGeneration

    tokenizer = build_tokenizer()
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = Qwen2_5_VLForConditionalGeneration(build_config(tokenizer))
    start_mimetic(model, seed)
    model.generation_config = GenerationConfig(
        eos_token_id=tokenizer.eos_token_id, pad_token_id=tokenizer.pad_token_id, max_new_tokens=64
    )
    return model.eval()


def start_mimetic(
    model: "Qwen2_5_VLForConditionalGeneration", seed: int, noise: float = 0.3
) -> None:
    """Set keys ≈ queries and outputs ≈ valuesᵀ in every decoder layer: attend to alike tokens and
    copy them.

    Per head, queries and keys are the same matrix of orthonormal rows `[head_dim, hidden]` plus a
    little noise, and the output projection is the transpose of the value projection.
    """
    import torch

    generator = torch.Generator().manual_seed(seed)

    def orthonormal() -> "torch.Tensor":
        return torch.linalg.qr(torch.randn(HIDDEN, HEAD_DIM, generator=generator))[0].T

    def jitter() -> "torch.Tensor":
        return noise * torch.randn(HEAD_DIM, HIDDEN, generator=generator) / HIDDEN**0.5

    with torch.no_grad():
        layers: Any = model.get_decoder().layers
        for layer in layers:
            attention = layer.self_attn
            for head in range(HEADS):
                rows = slice(head * HEAD_DIM, (head + 1) * HEAD_DIM)
                shared, values = orthonormal(), orthonormal()
                attention.q_proj.weight[rows] = shared + jitter()
                attention.k_proj.weight[rows] = shared + jitter()
                attention.v_proj.weight[rows] = values
                attention.o_proj.weight[:, rows] = values.T
            for projection in (attention.q_proj, attention.k_proj, attention.v_proj):
                projection.bias.zero_()


def restart_unseen_tokens(model: "Qwen2_5_VLForConditionalGeneration", seed: int = 0) -> None:
    """Give the tokens that Base never saw the mean embedding of the seen ones (plus half their
    spread).

    Training pushes never-seen tokens far away; this is what `resize_token_embeddings` does for
    newly added ones, and it is the last step of making Base.
    """
    import torch

    tokenizer = build_tokenizer()
    seen_tokens = {f"▁{word}" for word in WORDS} - set(BASE_NEVER_SEES)
    seen = torch.tensor(sorted(tokenizer.convert_tokens_to_ids(t) for t in seen_tokens))
    never = torch.tensor(
        [i for i in range(len(tokenizer)) if i not in set(seen.tolist()) and i >= len(SPECIAL)]
    )
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        embedding = cast("torch.Tensor", model.get_input_embeddings().weight)
        spread = torch.randn(len(never), HIDDEN, generator=generator)
        embedding[never] = embedding[seen].mean(0) + 0.5 * embedding[seen].std(0) * spread


def save(model: "Qwen2_5_VLForConditionalGeneration", folder: Path) -> None:
    """Write model, tokenizer and processor as any Hugging Face checkpoint."""
    folder.mkdir(parents=True, exist_ok=True)
    model.save_pretrained(folder)
    build_processor().save_pretrained(folder)
