"""How fast this machine is: seconds a unit of work, of steps that ran here or of a matrix product
that is timed now.
"""

from __future__ import annotations

import os
import platform
import time
from collections import defaultdict
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path

from franken.study.steps import Record, Step
from franken.study.verbs import Evaluation, Probing

TRIES = 8  # products that are timed


@dataclass
class Rates:
    """Seconds a unit of work, by verb (and kind of probe). `how` says where they are from."""

    measured: dict[str, float] = field(default_factory=dict)
    flops: float | None = None  # a second, of a matrix product here
    device: str = "cpu"


def group(step: Step) -> str:
    """Steps of one group take time alike: the verb, and of probes what is probed."""
    return step.kind if isinstance(step.does, Probing) and step.kind else step.verb


def machine() -> str:
    """A name for this machine under which times are comparable."""
    return f"{platform.node()} ({platform.machine()}, {os.cpu_count()} cores)"


def measured_rates(folder: Path) -> dict[str, float]:
    """Seconds a unit of work of the steps that ran on this machine, by group, from
    `folder/steps/*.json`.
    """
    seconds: defaultdict[str, float] = defaultdict(float)
    work: defaultdict[str, float] = defaultdict(float)
    for file in sorted((folder / "steps").glob("*.json")):
        record = Record.model_validate_json(file.read_text())
        if record.cost and record.cost.machine == machine() and record.cost.work > 0:
            seconds[record.cost.group] += record.seconds
            work[record.cost.group] += record.cost.work
    return {name: seconds[name] / work[name] for name in work}


@cache
def product_rate(device: str, threads: int, dtype: str = "") -> float:
    """Operations a second of a square matrix product on `device`, the best of a few, timed once a
    process. By default in fp32 on a CPU, in bf16 on a GPU.
    """
    import torch

    size = 4096 if device.startswith("cuda") else 768
    bf16 = dtype == "bf16" or (not dtype and device.startswith("cuda"))
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        block = torch.ones(
            size, size, device=device, dtype=torch.bfloat16 if bf16 else torch.float32
        )
        taken = []
        for _ in range(1 + TRIES):  # the first wakes the library up
            began = time.perf_counter()
            (block @ block)[0, 0].item()
            taken.append(time.perf_counter() - began)
        return 2.0 * size**3 / min(taken[1:])
    finally:
        torch.set_num_threads(before)


def find_rates(folder: Path, *, device: str, jobs: int, needed: bool = True) -> Rates:
    """What is known of this machine: times of the study in `folder`, and, if `needed`, a matrix
    product timed now.
    """
    rates = Rates(measured_rates(folder), device=device)
    if needed and not {Evaluation.verb, Probing.verb} <= rates.measured.keys():
        from franken.models.loading import pick_device  # imports torch

        rates.device = str(pick_device(device))
        rates.flops = product_rate(rates.device, 1 if jobs > 1 else cores())
    return rates


def cores() -> int:
    """How many threads may run at once."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
