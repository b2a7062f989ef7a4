"""What `franken train --plan` prints."""

from franken.console import print_table
from trainer.plan import MemoryPlan, gib


def print_plan(plan: MemoryPlan) -> None:
    """A memory plan: a column of bytes a stage, then disk and time."""
    stages = plan.stages
    each = f", each of {plan.processes} processes" if plan.processes > 1 else ""
    print(f"{plan.recipe}: {plan.model}, {plan.parameters / 1e9:.2f} billion parameters{each}")
    rows = [[part, *(gib(s.parts[part]) for s in stages)] for part in stages[0].parts]
    rows.append(["peak", *(gib(s.peak) for s in stages)])
    rows.append(["on disk", *(gib(s.disk) for s in stages)])
    rows.append(["operations an update", *(f"{s.flops:.1e}" for s in stages)])
    print_table(["", *(f"{i} {s.kind}" for i, s in enumerate(stages))], rows)
    for i, stage in enumerate(stages):
        lengths = stage.lengths
        line = f"stage {i}: {stage.training / 1e9:.3g} billion train; "
        line += f"prompts of up to {lengths.prompt} tokens ({lengths.known})"
        if stage.seconds_at_least:
            line += f"; an update takes {stage.seconds_at_least:.1g} s at the very least"
        print(line)
        if stage.checkpointed < stage.parts["activations"]:
            print(
                f"  with activation checkpointing, activations would be {gib(stage.checkpointed)}"
            )
    if plan.kept:
        print(f"up to {plan.kept} checkpoints of {gib(plan.kept_bytes)} each are kept on disk")
    print(f"{plan.device} has {gib(plan.available)}, the disk {gib(plan.disk_free)}")
