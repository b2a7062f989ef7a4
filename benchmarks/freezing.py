"""What freezing saves: time, operations and optimiser bytes of a GRPO update, with more and more of
the lower layers frozen.

A Qwen2.5-VL of 9 layers and 34 M parameters with random weights, one packed group of about 2000
tokens with an image. The update is the trainer's own (forward, backward, clip, AdamW) without the
sampling, which costs the same whatever is frozen. All arms run in turns in one process, and the
table has the ratios of every round. Operations are those of PyTorch's FlopCounterMode, which do not
depend on what else the machine does. `--profile` prints the costliest backward kernels of every
arm.
"""

import argparse
import statistics
import sys
import time
from pathlib import Path

import torch

sys.path.insert(0, str(Path(__file__).parents[1]))
from benchmarks.packing import batch_of, build, pixels_of, responses_of
from benchmarks.processes import setting

LAYERS, PROMPT, LONGEST, GROUP = 9, 500, 250, 8
BELOW = ("vision", "projector", "embed")
ARMS = {
    "none": (),
    "lower third": (*BELOW, "text:0-3"),
    "lower third, embeddings train": ("vision", "projector", "text:0-3"),
    "lower two thirds": (*BELOW, "text:0-6"),
    "all but the last layer and head": (*BELOW, "text:0-8"),
    "upper third": ("text:6-9",),
}


class Arm:
    """A model with some of it frozen, its optimiser, and the samples of one step."""

    def __init__(self, freeze: tuple[str, ...]) -> None:
        from franken.generate.engine import Response
        from trainer.freeze import apply_freeze
        from trainer.optimizer import adamw
        from trainer.rollout import Batch
        from trainer.stages import GrpoStage

        self.loaded = build(LAYERS, 512, 8, 2)
        apply_freeze(self.loaded.model, freeze)
        self.stage = GrpoStage(
            kind="grpo",
            steps=1,
            lr=1e-6,
            tasks={"count": 1.0},
            prompts=1,
            group=GROUP,
            max_new_tokens=LONGEST,
            packed=True,
            freeze=freeze,
        )
        self.parameters = [p for p in self.loaded.model.parameters() if p.requires_grad]
        self.optimizer = adamw(self.stage, self.parameters)
        encoded = (
            pixels_of(self.loaded, PROMPT)
            if not freeze or "vision" not in freeze
            else batch_of(self.loaded, PROMPT)
        )
        group = [Response("", ids, [0.0] * len(ids), False) for ids in responses_of(LONGEST, GROUP)]
        self.batch = Batch(encoded, [group])

    def update(self) -> None:
        """One update as the trainer makes it."""
        from trainer.algorithms import Groups
        from trainer.policy_update import Weighted, update_policy

        lengths = self.batch.lengths()
        none = torch.zeros_like(lengths, dtype=torch.bool)
        groups = Groups(
            [[""] * GROUP],
            none,
            lengths,
            none,
            ("accuracy",),
            (1.0,),
            embed=lambda: torch.zeros(1, GROUP, 1),
        )
        advantages = torch.linspace(-1, 1, GROUP)[None]
        samples = Weighted.of(self.stage, self.batch, groups, advantages, [0])
        update_policy(self.loaded, self.stage, self._apply, None, samples)

    def _apply(self) -> float:
        norm = torch.nn.utils.clip_grad_norm_(self.parameters, 1.0).item()
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
        return norm

    def seconds(self) -> float:
        """CPU seconds of an update."""
        began = time.process_time()
        self.update()
        return time.process_time() - began

    def operations(self) -> int:
        """Multiply-adds × 2 of an update's matrix products."""
        from torch.utils.flop_counter import FlopCounterMode

        with FlopCounterMode(display=False) as counter:
            self.update()
        return counter.get_total_flops()

    def optimizer_bytes(self) -> int:
        """What AdamW holds."""
        return sum(
            x.nbytes for state in self.optimizer.state.values() for x in state.values() if x.ndim
        )


def profile(name: str, arm: Arm) -> None:
    """The costliest kernels of an update."""
    from torch.profiler import ProfilerActivity
    from torch.profiler import profile as record

    with record(activities=[ProfilerActivity.CPU]) as found:
        arm.update()
    averages = found.key_averages()
    table = averages.table("self_cpu_time_total", row_limit=12, max_name_column_width=50)
    print(f"\n{name}\n{table}")


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--profile", action="store_true", help="the costliest kernels of every arm")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    arms = {name: Arm(freeze) for name, freeze in ARMS.items()}
    operations = {
        name: arm.operations() for name, arm in arms.items()
    }  # the first update is the warm-up
    if arguments.profile:
        for name, arm in arms.items():
            profile(name, arm)
        return
    rounds = [{name: arm.seconds() for name, arm in arms.items()} for _ in range(arguments.repeats)]
    tokens = PROMPT + int(arms["none"].batch.lengths().sum())
    print(f"{setting('torch', 'transformers')}, one thread, fp32, a row of {tokens} tokens\n")
    print(
        "| frozen | trains, M | optimiser MiB | operations | of none | CPU s | of none: median | "
        "min | max |"
    )
    print("|---|---|---|---|---|---|---|---|---|")
    for name, arm in arms.items():
        ratios = [line[name] / line["none"] for line in rounds]
        trains = sum(p.numel() for p in arm.parameters) / 1e6
        print(
            f"| {name} | {trains:.1f} | {arm.optimizer_bytes() / 2**20:.0f} | "
            f"{operations[name]:.2e} | {operations[name] / operations['none']:.2f} | "
            f"{statistics.median(line[name] for line in rounds):.2f} | "
            f"{statistics.median(ratios):.2f} | {min(ratios):.2f} | {max(ratios):.2f} |"
        )


if __name__ == "__main__":
    main()
