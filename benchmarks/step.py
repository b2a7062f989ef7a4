"""Steps of GRPO on a random model of Qwen2.5-VL-3B's shapes: does memory grow, and where does the
time go?

Nothing is downloaded: the config is the published one, the weights are random, tokenizer and
template are the built-in model's, and the questions are pictures of noise. Replies of a random
model end by chance alone, so they are as long as they may be, and accuracy would be the same for
all: a reward that depends on the reply's ids stands in, so that every group has something to learn.
All else is the trainer's own step, with timers around its parts. `--small` takes the built-in
model's shapes, for a CPU.

    python benchmarks/step.py --steps 100 --json steps.json          # one GPU
    python benchmarks/step.py --small --steps 6                      # anywhere
"""

import argparse
import json
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any
from unittest import mock

import torch

sys.path.insert(0, str(Path(__file__).parents[1]))
from benchmarks.processes import memory, setting

PUBLISHED = "Qwen/Qwen2.5-VL-3B-Instruct"
PARTS = ("sampling", "rewards", "forward", "backward", "optimiser", "checkpoint", "rest")
TIMED = {  # functions of a step, in the modules where the trainer looks them up
    "rollout": {
        "encode_prompts": "sampling",
        "with_features": "sampling",
    },
    "native": {"sample": "sampling"},
    "grpo": {"_rewards": "rewards"},
    "policy_update": {"forward": "forward", "_backward": "backward"},
}


def build(small: bool, side: int, device: str, dtype: torch.dtype) -> Any:
    """The model with random weights, as a Loaded; its processor lets pictures of `side` pixels
    through.
    """
    from transformers import GenerationConfig, Qwen2_5_VLForConditionalGeneration

    from franken.models import creature
    from franken.models.loading import wrap
    from trainer.shapes import published_config

    processor = creature.build_processor()
    if small:
        return wrap(creature.build_model(0).to(device), processor, processor.tokenizer)
    processor.image_processor.size = {"shortest_edge": 28**2, "longest_edge": max(side, 28) ** 2}
    ends = {
        "eos_token_id": processor.tokenizer.eos_token_id,
        "pad_token_id": processor.tokenizer.pad_token_id,
    }
    own = creature.build_config(processor.tokenizer)
    names = ("image_token_id", "video_token_id", "vision_start_token_id", "vision_end_token_id")
    config = published_config(PUBLISHED, **{name: getattr(own, name) for name in names})
    torch.manual_seed(0)
    before = torch.get_default_dtype()
    torch.set_default_dtype(dtype)
    try:
        with torch.device(device):
            model = Qwen2_5_VLForConditionalGeneration(config)
    finally:
        torch.set_default_dtype(before)
    model.generation_config = GenerationConfig(**ends)
    return wrap(model.eval(), processor, processor.tokenizer)


def questions(folder: Path, side: int, count: int = 64) -> Path:
    """A table of questions about pictures of noise."""
    import numpy as np
    from PIL import Image

    generator = np.random.default_rng(0)
    rows = []
    for number in range(count):
        noise = generator.integers(0, 255, (side, side, 3), dtype=np.uint8)
        Image.fromarray(noise).save(folder / f"{number}.png")
        rows.append(
            {"question": f"How many are red? {number}", "answer": "3", "image": f"{number}.png"}
        )
    table = folder / "questions.jsonl"
    table.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return table


def uneven(replies: Sequence[Any], rows: Sequence[Any], context: Any) -> list[float]:
    """A reward that differs within a group whatever is said."""
    return [sum(reply.ids) % 7 / 6 for reply in replies]


class Clock:
    """Seconds by part of a step; a GPU is waited for, so that its work is counted where it was
    asked for.
    """

    def __init__(self, device: torch.device) -> None:
        self.wait = torch.cuda.synchronize if device.type == "cuda" else lambda: None
        self.seconds = dict.fromkeys(PARTS, 0.0)

    @contextmanager
    def part(self, name: str) -> Iterator[None]:
        """Count what happens inside."""
        self.wait()
        began = time.perf_counter()
        yield
        self.wait()
        self.seconds[name] += time.perf_counter() - began

    def around(self, name: str, function: Callable[..., Any]) -> Callable[..., Any]:
        """The function, counted."""

        def timed(*args: Any, **kwargs: Any) -> Any:
            with self.part(name):
                return function(*args, **kwargs)

        return timed


@contextmanager
def timers(clock: Clock) -> Iterator[None]:
    """Timers around the parts of the trainer's step."""
    from trainer import grpo, policy_update, rollout
    from trainer.engines import native

    with ExitStack() as stack:
        for module in (rollout, native, grpo, policy_update):
            for name, part in TIMED[module.__name__.rpartition(".")[2]].items():
                stack.enter_context(
                    mock.patch.object(module, name, clock.around(part, getattr(module, name)))
                )
        grade = clock.around("rewards", rollout.tasks.grade)
        stack.enter_context(mock.patch.object(rollout.tasks, "grade", grade))
        yield


def run(loaded: Any, stage: Any, out: Path, save_every: int) -> Iterator[dict[str, Any]]:
    """A row a step: seconds in all and by part, the high-water mark of memory and what is held
    after it, MiB.
    """
    from trainer.checkpoint_files import Position
    from trainer.freeze import apply_freeze
    from trainer.grpo import grpo_step
    from trainer.optimizer import adamw
    from trainer.state import save_state

    apply_freeze(loaded.model, stage.freeze)
    parameters = [p for p in loaded.model.parameters() if p.requires_grad]
    optimizer = adamw(stage, parameters)
    for step in range(stage.steps):
        clock = Clock(loaded.device)
        restart_memory(loaded.device)
        clock.wait()
        began = time.perf_counter()

        def update(clock: Clock = clock) -> float:
            with clock.part("optimiser"):
                norm = torch.nn.utils.clip_grad_norm_(parameters, stage.clip).item()
                optimizer.step()
                optimizer.zero_grad(set_to_none=True)
            return norm

        with timers(clock):
            metrics = grpo_step(
                loaded, stage, update, None, seed=0, step=step, progress=step / stage.steps
            )
        if save_every and (step + 1) % save_every == 0:
            with clock.part("checkpoint"):
                save_state(out, loaded.model, optimizer, Position(0, step + 1, step + 1), last=1)
        total = time.perf_counter() - began
        clock.seconds["rest"] = total - sum(clock.seconds.values())
        peak, held = read_memory(loaded.device)
        yield {
            "step": step + 1,
            "seconds": total,
            **clock.seconds,
            "peak": peak,
            "held": held,
            "loss": metrics["loss"],
            "grad_norm": metrics["grad_norm"],
            "length": metrics["length"],
        }


def restart_memory(device: torch.device) -> None:
    """Let the high-water mark start from here."""
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
    else:
        Path("/proc/self/clear_refs").write_text("5")


def read_memory(device: torch.device) -> tuple[float, float]:
    """High-water mark and what is held, MiB: of the GPU's allocator, or of this process."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device) / 2**20, torch.cuda.memory_allocated(
            device
        ) / 2**20
    return memory("VmHWM"), memory("VmRSS")


def growth(values: Sequence[float]) -> float:
    """Mean of the last third over that of the first, minus one; the first step, where the optimiser
    starts, is left out.
    """
    rest = list(values)[1:] or list(values)
    third = max(1, len(rest) // 3)
    return statistics.fmean(rest[-third:]) / statistics.fmean(rest[:third]) - 1


def table(rows: Sequence[dict[str, Any]]) -> str:
    """Markdown: seconds by part (of checkpoints, of the steps that wrote one), and memory."""
    later = list(rows)[1:] or list(rows)
    lines = ["| part | median s | min | max | of the time |", "|---|---|---|---|---|"]
    whole = sum(row["seconds"] for row in later)
    for part in (*PARTS, "seconds"):
        seconds = [row[part] for row in later if part != "checkpoint" or row[part]] or [0.0]
        name = "a step, all in all" if part == "seconds" else part
        lines.append(
            f"| {name} | {statistics.median(seconds):.3f} | {min(seconds):.3f} | "
            f"{max(seconds):.3f} | {sum(seconds) / whole:.0%} |"
        )
    peaks, held = ([row[name] for row in rows] for name in ("peak", "held"))
    lines += ["", f"high-water mark, MiB, by step: {' '.join(f'{peak:.0f}' for peak in peaks)}", ""]
    lines.append(
        f"from the first third to the last, the mark grew by {growth(peaks):+.2%}, what is held "
        f"by {growth(held):+.2%}"
    )
    return "\n".join(lines)


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--steps", type=int, default=100)
    parser.add_argument(
        "--small", action="store_true", help="the built-in model's shapes, for a CPU"
    )
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--prompts", type=int, default=4)
    parser.add_argument("--group", type=int, default=8)
    parser.add_argument("--sample-batch", type=int, default=0)
    parser.add_argument("--new-tokens", type=int, default=256)
    parser.add_argument("--budget", type=int, default=4096, help="tokens of a packed row")
    parser.add_argument("--side", type=int, default=448, help="pixels; a token is 28 x 28")
    parser.add_argument("--freeze", default="", help="as franken train --freeze")
    parser.add_argument("--save-every", type=int, default=25, help="0 writes no checkpoint")
    parser.add_argument(
        "--out", type=Path, help="where checkpoints go; a temporary folder by default"
    )
    parser.add_argument("--json", type=Path, help="write a row a step here")
    asked = parser.parse_args(arguments)
    if asked.device == "cpu":
        torch.set_num_threads(1)
    if asked.small:
        asked.side, asked.new_tokens = min(asked.side, 84), min(asked.new_tokens, 24)
    from trainer.stages import GrpoStage

    with tempfile.TemporaryDirectory() as temporary:
        stage = GrpoStage(
            kind="grpo",
            steps=asked.steps,
            lr=1e-6,
            data=str(questions(Path(temporary), asked.side)),
            prompts=asked.prompts,
            group=asked.group,
            sample_batch=asked.sample_batch,
            max_new_tokens=asked.new_tokens,
            packed=True,
            token_budget=asked.budget,
            rewards={"accuracy": 1.0, "benchmarks.step:uneven": 1.0},
            freeze=tuple(piece for piece in asked.freeze.split(",") if piece),
        )
        dtype = torch.float32 if asked.small or asked.device == "cpu" else torch.bfloat16
        loaded = build(asked.small, asked.side, asked.device, dtype)
        rows = []
        for row in run(loaded, stage, asked.out or Path(temporary), asked.save_every):
            rows.append(row)
            print(
                f"step {row['step']}: {row['seconds']:.2f} s, {row['peak']:.0f} MiB",
                file=sys.stderr,
                flush=True,
            )
    what = "the built-in model's shapes" if asked.small else f"{PUBLISHED}'s shapes"
    chip = f", {torch.cuda.get_device_name()}" if loaded.device.type == "cuda" else ""
    size = sum(p.numel() for p in loaded.model.parameters()) / 1e9
    print(
        f"{setting('torch', 'transformers')}{chip}; {what}, {size:.3g} billion random parameters "
        f"in {str(dtype)[6:]}"
    )
    print(
        f"{asked.steps} steps of {asked.prompts} prompts x {asked.group} replies of "
        f"{asked.new_tokens} tokens at most, pictures of {asked.side} pixels, packed rows of "
        f"{asked.budget}, frozen: {asked.freeze or 'nothing'}; without the first step\n"
    )
    print(table(rows))
    if asked.json:
        asked.json.write_text(json.dumps(rows))
    return 0


if __name__ == "__main__":
    sys.exit(main())
