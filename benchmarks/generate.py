"""n samples of one prompt from one shared prefill against n independent rows: time, peak memory,
and the same samples.

The model of benchmarks/packing.py: a Qwen2.5-VL of 24 M parameters with random weights. Independent
rows are one batch of n equal prompts, each with an image of its own, as an engine has it that knows
nothing of groups. Both arms draw with the same numbers and go through the same decoding loop; only
the prefill differs. Every arm runs in a process of its own, so that its peak memory is its own;
before that, both are run in one and their samples are compared.
"""

import argparse
import json
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import torch

sys.path.insert(0, str(Path(__file__).parents[1]))
from benchmarks.packing import build, pixels_of
from benchmarks.processes import apart, rise, setting
from franken.models.batch import ModelBatch

SHAPES = [
    (700, 64, 8),
    (700, 64, 16),
    (1500, 64, 8),
    (300, 64, 8),
    (700, 256, 8),
]  # prompt, new tokens, n


def model() -> Any:
    """The model as a Loaded. It has no end token, so that all samples are of full length."""
    from franken.models.loading import wrap

    built = build().model
    built.generation_config.eos_token_id = None
    mute = SimpleNamespace(eos_token_id=None, get_vocab=dict, decode=lambda ids, **_: "")
    return wrap(built, None, mute)


def shared(loaded: Any, batch: ModelBatch, n: int, steps: int) -> list[list[int]]:
    """The engine's way."""
    from franken.generate.engine import Sampling
    from franken.generate.native import sample

    return [r.ids for r in sample(loaded, batch, ["benchmark"], Sampling(n, 1.0, steps))[0]]


@torch.no_grad()
def independent(loaded: Any, batch: ModelBatch, n: int, steps: int) -> list[list[int]]:
    """n rows that share nothing: the prompt and its image n times."""
    from transformers import DynamicCache

    from franken.generate.engine import Sampling, sample_names
    from franken.generate.native import decode, draws

    rows = batch.repeat(n)
    cache = DynamicCache(config=loaded.model.config.get_text_config())
    output = loaded.model(**rows, past_key_values=cache, use_cache=True, logits_to_keep=1)
    sampling = Sampling(n, 1.0, steps)
    uniforms = draws(sample_names("benchmark", sampling), steps, 0)
    mask, last = rows.attention_mask, rows.last_position
    ids, _ = decode(loaded, cache, output.logits[:, -1], mask, last, uniforms, sampling)
    return ids.tolist()


ARMS = {"rows": independent, "shared": shared}


def one_arm(arm: str, prompt: int, steps: int, n: int, repeats: int) -> dict[str, Any]:
    """Seconds of each repetition, and how far the process's memory rose above where it was before,
    MiB.
    """
    loaded = model()
    batch = pixels_of(loaded, prompt)
    return rise(lambda: ARMS[arm](loaded, batch, n, steps), repeats)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--arm", nargs=4, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    if arguments.arm:
        arm, *shape = arguments.arm
        print(json.dumps(one_arm(arm, *map(int, shape), repeats=arguments.repeats)))
        return
    print(f"{setting('torch', 'transformers')}, one thread, fp32\n")
    print(
        "| prompt | new tokens | n | CPU s rows | CPU s shared | times | MiB rows | MiB shared | "
        "times | equal samples |"
    )
    print("|---|---|---|---|---|---|---|---|---|---|")
    loaded = model()
    for prompt, steps, n in SHAPES:
        batch = pixels_of(loaded, prompt)
        ours, theirs = shared(loaded, batch, n, steps), independent(loaded, batch, n, steps)
        assert ours == theirs, "the samples differ"
        assert len({tuple(row) for row in ours}) == n
        found = apart(__file__, list(ARMS), (prompt, steps, n), arguments.repeats)
        (rows, more), (ours_s, less) = found["rows"], found["shared"]
        print(
            f"| {prompt} | {steps} | {n} | {rows:.2f} | {ours_s:.2f} | {rows / ours_s:.1f} | "
            f"{more:.0f} | {less:.0f} | {more / less:.1f} | {n} of {n} |",
            flush=True,
        )


if __name__ == "__main__":
    main()
