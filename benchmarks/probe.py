"""Layer-wise swaps and zero ablation against the algorithm of the paper's scripts: CPU time, after
equal answers.

The naive arm does for every layer what the reference does: vision tower, whole prefill and decoding
anew, one row at a time, with the visual keys and values of layers ≥ ℓ replaced (in the prefill
only; the reference also re-appends them at every decoding step, which is a bug), or the layer's
output replaced by its input. The model is a random Qwen2.5-VL-7B with all widths divided by 14, its
28 layers and the vision tower's 32 kept, in fp32. Both arms get the same encoded pairs, so that
neither pays for reading images.
"""

import argparse
import statistics
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

sys.path.insert(0, str(Path(__file__).parents[1]))
from benchmarks.processes import setting
from franken.models.batch import ModelBatch

DEPTH, WIDTH = 28, 256
Answers = list[list[int]]


def build(std: float) -> Any:
    """The model with the creature's tokenizer, as a Loaded; images up to 560 pixels."""
    from transformers import Qwen2_5_VLForConditionalGeneration

    from franken.models.creature import build_config, build_processor
    from franken.models.loading import wrap

    processor = build_processor()
    processor.image_processor.size = {"shortest_edge": 28**2, "longest_edge": 560**2}
    config: Any = build_config(processor.tokenizer)
    text, vision = config.text_config, config.vision_config
    text.hidden_size, text.intermediate_size, text.num_hidden_layers = WIDTH, 1344, DEPTH
    text.num_attention_heads, text.num_key_value_heads, text.layer_types = (
        4,
        1,
        ["full_attention"] * DEPTH,
    )
    text.rope_parameters = {"rope_type": "default", "rope_theta": 1e4, "mrope_section": [8, 12, 12]}
    text.initializer_range, text.max_position_embeddings = std, 4096
    vision.hidden_size, vision.out_hidden_size, vision.intermediate_size, vision.depth = (
        96,
        WIDTH,
        240,
        32,
    )
    vision.num_heads, vision.fullatt_block_indexes = 3, [7, 15, 23, 31]
    torch.manual_seed(0)
    model = Qwen2_5_VLForConditionalGeneration(config).float().eval()
    return wrap(model, processor, processor.tokenizer)


def pairs(loaded: Any, side: int, count: int) -> list[ModelBatch]:
    """Encoded pairs of random images of `side` × `side` visual tokens under one question."""
    import numpy as np
    from PIL import Image

    from franken.generate import Prompt
    from franken.probe.swap import encode_pair

    rng = np.random.default_rng(0)
    question = (
        "How many circle are in r1 or c2 plus c3 ?"  # 16 tokens after the image with the template's
    )

    def prompt() -> Prompt:
        return Prompt(
            question,
            (Image.fromarray(rng.integers(0, 255, (28 * side, 28 * side, 3), dtype=np.uint8)),),
        )

    return [encode_pair(loaded, prompt(), prompt()) for _ in range(count)]


@torch.no_grad()
def naive_swap(loaded: Any, pair: ModelBatch, steps: int) -> Answers:
    """The plain answer, then for every layer ℓ the answer with layers ≥ ℓ swapped."""
    from franken.models.hooks import edit

    target, source = (pair.slice([row]) for row in (0, 1))
    places = target.is_image[0]
    layers = loaded.family.decoder_layers(loaded.model)
    stored: dict[Any, Tensor] = {}

    def keep(module: Any) -> Any:
        return lambda output, _: stored.setdefault(module, output)

    def put(module: Any) -> Any:
        def replace(output: Tensor, _: Any) -> Tensor:
            changed = output.clone()
            changed[:, places] = stored[module][:, places]
            return changed

        return replace

    projections = [[layer.self_attn.k_proj, layer.self_attn.v_proj] for layer in layers]
    with edit({module: keep(module) for two in projections for module in two}):
        loaded.model(**source, use_cache=False)
    answers = [greedy(loaded, target, steps)]
    for layer in range(DEPTH):
        with edit(
            {module: put(module) for two in projections[layer:] for module in two}, "prefill"
        ):
            answers.append(greedy(loaded, target, steps))
    return answers


@torch.no_grad()
def naive_zero(loaded: Any, pair: ModelBatch, steps: int) -> Answers:
    """The plain answer, then for every layer the answer without it."""
    from franken.models.hooks import edit, identity_layer

    target = pair.slice([0])
    answers = [greedy(loaded, target, steps)]
    for layer in loaded.family.decoder_layers(loaded.model):
        with edit({layer: identity_layer}):
            answers.append(greedy(loaded, target, steps))
    return answers


def greedy(loaded: Any, batch: ModelBatch, steps: int) -> list[int]:
    """One answer with a plain cache."""
    from franken.generate import Sampling
    from franken.generate.native import sample

    return sample(loaded, batch, [""], Sampling(1, 0.0, steps))[0][0].ids


def our_swap(loaded: Any, pairs: list[ModelBatch], steps: int) -> list[Answers]:
    """The same of all pairs by franken."""
    from franken.probe.methods.swap import Swap
    from franken.probe.swap import swapped_batch

    sets = [frozenset(), *Swap("swap-suffix", "suffix").sets(range(DEPTH), DEPTH)]
    return [
        [row.answer.ids for row in answers] for answers in swapped_batch(loaded, pairs, sets, steps)
    ]


def our_zero(loaded: Any, pairs: list[ModelBatch], steps: int) -> list[Answers]:
    """The same of all targets by franken."""
    from franken.probe.ablate import Ablation, ablate

    layers = [Ablation(layer) for layer in range(DEPTH)]
    return [
        [row.ids for row in ablate(loaded, pair.slice([0]), layers, max_new_tokens=steps)]
        for pair in pairs
    ]


def timed(work: Callable[[], list[Answers]]) -> tuple[float, list[Answers]]:
    """CPU seconds, and what came out."""
    began = time.process_time()
    answers = work()
    return time.process_time() - began, answers


def compare(
    loaded: Any,
    batches: list[list[ModelBatch]],
    naive: Callable[..., Answers],
    ours: Callable[..., list[Answers]],
    steps: int,
) -> Mapping[str, float]:
    """CPU seconds a pair, the ratio of both arms by batch of pairs, the share of changed answers.

    Raises AssertionError where an answer differs.
    """
    ours(loaded, batches[0], 2)
    times = []
    changed = 0
    for batch in batches:
        slow, expected = timed(lambda batch=batch: [naive(loaded, pair, steps) for pair in batch])
        fast, answers = timed(lambda batch=batch: ours(loaded, batch, steps))
        assert answers == expected, "the answers differ"
        changed += sum(answer != plain for plain, *rest in expected for answer in rest)
        times.append((slow / len(batch), fast / len(batch), slow / fast))
    naive_s, ours_s, ratio = (statistics.median(column) for column in zip(*times, strict=True))
    total = DEPTH * sum(map(len, batches))
    return {
        "naive": naive_s,
        "ours": ours_s,
        "ratio": ratio,
        "low": min(t[2] for t in times),
        "high": max(t[2] for t in times),
        "changed": changed / total,
    }


def main() -> None:
    """Print one Markdown table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--std", type=float, default=0.04)
    parser.add_argument("--sides", default="8,16", help="visual tokens along an image's side")
    parser.add_argument("--pairs", type=int, default=4, help="pairs a batch")
    parser.add_argument("--batches", type=int, default=3)
    parser.add_argument("--steps", type=int, default=16)
    parser.add_argument("--methods", default="swap,zero")
    given = parser.parse_args()
    torch.set_num_threads(1)
    loaded = build(given.std)
    methods = {"swap": (naive_swap, our_swap), "zero": (naive_zero, our_zero)}
    print(
        f"{setting('torch', 'transformers')}; {given.batches} batches of {given.pairs} pairs, "
        f"{given.steps} new tokens\n"
    )
    print(
        "| method | visual tokens | answers changed | naive, CPU s | franken, CPU s | times "
        "(range) |\n|---|---|---|---|---|---|"
    )
    for method in given.methods.split(","):
        for side in map(int, given.sides.split(",")):
            encoded = pairs(loaded, side, given.pairs * given.batches)
            batches = [encoded[i : i + given.pairs] for i in range(0, len(encoded), given.pairs)]
            row = compare(loaded, batches, *methods[method], given.steps)
            print(
                f"| {method} | {side * side} | {row['changed']:.0%} | {row['naive']:.2f} | "
                f"{row['ours']:.2f} | {row['ratio']:.1f} ({row['low']:.1f}-{row['high']:.1f}) |",
                flush=True,
            )


if __name__ == "__main__":
    main()
