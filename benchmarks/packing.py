"""A training step of one packed group against G padded rows: time, peak memory, and the same
gradients.

A Qwen2.5-VL of 24 M parameters with random weights: the real class, wide enough that matrices and
not attention take most of the time, as at 7B; the vision tower is frozen and its features are
computed once for both. The step is the forward and backward of the group's log-probabilities. Every
arm runs in a process of its own, so that its peak memory is its own; before that, both are run in
one and their gradients are compared.

`--sft` times supervised batches instead: examples with an image packed into rows of a token budget,
against the padded batch, in alternating runs of one process. Tokens are those of the examples;
padding is work but not tokens.
"""

import argparse
import json
import statistics
import sys
import time
from pathlib import Path
from typing import Any

import torch

sys.path.insert(0, str(Path(__file__).parents[1]))
from benchmarks.processes import apart, rise, setting
from franken.models.batch import ModelBatch
from trainer.data import Batch

SHAPES = [
    (700, 300, 8),
    (700, 300, 15),
    (300, 300, 8),
    (1500, 300, 8),
    (1500, 300, 15),
    (200, 800, 8),
]  # P, R, G
LESSONS = [  # name, batch, prompt, answers: a long tail as worked solutions have, and none
    ("median 120, at most 600", 12, 320, "tail"),
    ("all of 200", 12, 320, "equal"),
]
VOCABULARY, IMAGE, START, END, VIDEO = 4096, 4090, 4091, 4092, 4093


def build(layers: int = 3, hidden: int = 768, heads: int = 12, keys: int = 4) -> Any:
    """The model, as a Loaded; heads of 64."""
    import transformers as hf

    from franken.models.loading import wrap

    text = {
        "vocab_size": VOCABULARY,
        "hidden_size": hidden,
        "intermediate_size": 3 * hidden,
        "num_hidden_layers": layers,
        "num_attention_heads": heads,
        "num_key_value_heads": keys,
        "max_position_embeddings": 8192,
        "tie_word_embeddings": False,
        "bos_token_id": None,
        "eos_token_id": 1,
        "rope_parameters": {
            "rope_type": "default",
            "rope_theta": 1e6,
            "mrope_section": [8, 12, 12],
        },
    }
    vision = {
        "depth": 2,
        "hidden_size": 64,
        "intermediate_size": 128,
        "num_heads": 2,
        "patch_size": 14,
        "spatial_merge_size": 2,
        "temporal_patch_size": 2,
        "out_hidden_size": hidden,
        "window_size": 112,
        "fullatt_block_indexes": [1],
    }
    tokens = {
        "image_token_id": IMAGE,
        "video_token_id": VIDEO,
        "vision_start_token_id": START,
        "vision_end_token_id": END,
    }
    config = hf.Qwen2_5_VLConfig(
        text_config=text, vision_config=vision, tie_word_embeddings=False, **tokens
    )
    torch.manual_seed(0)
    model = hf.Qwen2_5_VLForConditionalGeneration(config).float().eval()
    model.model.visual.requires_grad_(False)
    return wrap(model, None, None)


def batch_of(loaded: Any, prompt: int) -> ModelBatch:
    """`pixels_of`, with the features of its image in place of the pixels."""
    from trainer.policy import with_features

    return with_features(loaded, pixels_of(loaded, prompt))


def pixels_of(loaded: Any, prompt: int) -> ModelBatch:
    """One prompt of `prompt` tokens, 256 of them an image where it is long enough."""
    side = 16 if prompt >= 300 else 8
    generator = torch.Generator().manual_seed(1)
    rest = prompt - side * side - 2
    ids = torch.cat(
        [
            torch.tensor([START]),
            torch.full((side * side,), IMAGE),
            torch.tensor([END]),
            torch.randint(10, 4000, (rest,), generator=generator),
        ]
    )[None]
    grid = torch.tensor([[1, 2 * side, 2 * side]])
    pixels = torch.randn(4 * side * side, 3 * 2 * 14 * 14, generator=generator)
    mask = torch.ones_like(ids)
    batch = {
        "input_ids": ids,
        "attention_mask": mask,
        "pixel_values": pixels,
        "image_grid_thw": grid,
    }
    return ModelBatch.of(loaded.model, batch, [1])


def responses_of(longest: int, group: int) -> list[list[int]]:
    """Responses of lengths between half of `longest` and `longest`, as samples differ."""
    generator = torch.Generator().manual_seed(2)
    lengths = torch.linspace(longest / 2, longest, group).int().tolist()
    return [torch.randint(10, 4000, (n,), generator=generator).tolist() for n in lengths]


def step(arm: str, loaded: Any, batch: ModelBatch, responses: list[list[int]]) -> torch.Tensor:
    """Sum of log-probabilities, backward. Returns the sum."""
    from trainer.packing import pack, packed_logprobs
    from trainer.policy import response_logprobs, take_rows

    if arm == "packed":
        total = packed_logprobs(loaded, pack(loaded, batch, 0, responses), 1.0)[0].sum()
    else:
        rows = take_rows(loaded, batch, [0] * len(responses), responses)
        total = response_logprobs(loaded, rows, 1.0)[0].sum()
    total.backward()
    return total.detach()


def assert_equal(loaded: Any, batch: ModelBatch, responses: list[list[int]]) -> float:
    """The largest difference of any gradient entry, over the largest entry. Fails above 1e-4."""
    gradients = []
    for arm in ("rows", "packed"):
        loaded.model.zero_grad()
        step(arm, loaded, batch, responses)
        gradients.append(
            {n: p.grad.clone() for n, p in loaded.model.named_parameters() if p.grad is not None}
        )
    return largest_difference(*gradients)


def largest_difference(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> float:
    """The largest difference of any gradient entry, over the largest entry. Fails above 1e-4."""
    assert set(one) == set(other)
    worst = max(
        ((one[n] - other[n]).abs().max() / one[n].abs().max().clamp(min=1e-12)).item() for n in one
    )
    assert worst < 1e-4, f"the gradients differ by {worst:.1e}"
    return worst


def lesson_batch(loaded: Any, count: int, prompt: int, shape: str) -> Any:
    """A right-padded supervised batch: an image of 256 tokens and a question, then an answer."""

    generator = torch.Generator().manual_seed(3)
    lengths = [200] * count
    if shape == "tail":
        lengths = (
            (120 * torch.randn(count, generator=generator).exp()).clamp(10, 600).int().tolist()
        )
    asked = pixels_of(loaded, prompt)
    width = prompt + max(lengths)
    ids, mask, labels = (
        torch.zeros(count, width).long(),
        torch.zeros(count, width).long(),
        torch.full((count, width), -100),
    )
    for row, length in enumerate(lengths):
        answer = torch.randint(10, 4000, (length,), generator=generator)
        ids[row, : prompt + length] = torch.cat([asked.input_ids[0], answer])
        mask[row, : prompt + length] = 1
        labels[row, prompt : prompt + length] = answer
    images = asked.repeat(count).images.tensors()
    inputs = {"input_ids": ids, "attention_mask": mask, **images}
    return Batch(ModelBatch.of(loaded.model, inputs, [1] * count), labels, torch.ones(count))


def lesson_step(arm: str, loaded: Any, batch: Any, budget: int) -> float:
    """Forward and backward of the loss of a supervised batch. Returns CPU seconds."""
    from trainer import sft, sft_packing

    loaded.model.zero_grad()
    began = time.process_time()
    if arm == "packed":
        sft_packing.backward(loaded, sft_packing.pack_examples(loaded, batch, budget))
    else:
        sft.loss(loaded.model, batch)[0].backward()
    return time.process_time() - began


def lessons(repeats: int, budget: int) -> None:
    """Tokens a second of padded and packed supervised batches, run in turns."""
    print(
        "| answers | batch | tokens | padding | row of | tokens/s padded | packed | times: median "
        "| min | max | gradients |"
    )
    print("|---|---|---|---|---|---|---|---|---|---|---|")
    loaded = build()
    for name, count, prompt, shape in LESSONS:
        batch = lesson_batch(loaded, count, prompt, shape)
        gradients = []
        for arm in ("padded", "packed"):
            lesson_step(arm, loaded, batch, budget)
            gradients.append(
                {
                    n: p.grad.clone()
                    for n, p in loaded.model.named_parameters()
                    if p.grad is not None
                }
            )
        worst = largest_difference(*gradients)
        tokens = int(batch.inputs.attention_mask.sum())
        arms = ("padded", "packed")
        seconds = [
            [lesson_step(arm, loaded, batch, budget) for arm in arms] for _ in range(repeats)
        ]
        ratios = [padded / packed for padded, packed in seconds]
        rates = [tokens / statistics.median(column) for column in zip(*seconds, strict=True)]
        padding = 1 - tokens / batch.inputs.attention_mask.numel()
        print(
            f"| {name} | {count} | {tokens} | {padding:.0%} | {budget} | {rates[0]:.0f} | "
            f"{rates[1]:.0f} | {statistics.median(ratios):.2f} | {min(ratios):.2f} | "
            f"{max(ratios):.2f} | {worst:.0e} |",
            flush=True,
        )


def one_arm(arm: str, prompt: int, longest: int, group: int, repeats: int) -> dict[str, Any]:
    """Seconds of each repetition, and how far the process's memory rose above where it was before
    the step, MiB.
    """
    loaded = build()
    batch, responses = batch_of(loaded, prompt), responses_of(longest, group)

    def work() -> None:
        loaded.model.zero_grad()
        step(arm, loaded, batch, responses)

    return rise(work, repeats)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument(
        "--sft", action="store_true", help="supervised batches, packed against padded"
    )
    parser.add_argument(
        "--budget", type=int, default=1024, help="tokens of a packed supervised row"
    )
    parser.add_argument("--arm", nargs=4, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    if arguments.arm:
        arm, *shape = arguments.arm
        print(json.dumps(one_arm(arm, *map(int, shape), repeats=arguments.repeats)))
        return
    print(f"{setting('torch', 'transformers')}, one thread, fp32\n")
    if arguments.sft:
        lessons(arguments.repeats, arguments.budget)
        return
    print(
        "| prompt | response | G | CPU s rows | CPU s packed | times | MiB rows | MiB packed | "
        "times | gradients differ by |"
    )
    print("|---|---|---|---|---|---|---|---|---|---|")
    loaded = build()
    for shape in SHAPES:
        worst = assert_equal(loaded, batch_of(loaded, shape[0]), responses_of(*shape[1:]))
        found = apart(__file__, ("rows", "packed"), shape, arguments.repeats)
        (rows, more), (packed, less) = found["rows"], found["packed"]
        print(
            f"| {shape[0]} | {shape[1]} | {shape[2]} | {rows:.2f} | {packed:.2f} | "
            f"{rows / packed:.1f} | {more:.0f} | {less:.0f} | {more / less:.1f} | {worst:.0e} |",
            flush=True,
        )


if __name__ == "__main__":
    main()
