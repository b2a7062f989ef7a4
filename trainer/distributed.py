"""The process group: which of several processes this one is, and which prompts it answers.

Started by torchrun, every process is a rank that holds the model, draws the questions of a step (a
pure function of seed and step), and answers its slice of them; a group stays on the rank that
sampled it. Sums over the step are known to all ranks before the first backward pass, and gradients
are summed, never averaged (trainer/collectives.py): the update is that of one process, to rounding.
Rank 0 writes. Without torchrun all of this is one rank and costs nothing.
"""

import os
from collections.abc import Iterator
from contextlib import contextmanager

import torch
import torch.distributed as dist

from franken.devices import parse_device
from franken.errors import UsageError
from franken.models.loading import pick_device


@contextmanager
def process_group(*, always: bool = False) -> Iterator[None]:
    """Join the processes that torchrun started; with `always`, be a group of one where there are
    none.

    A group that exists already is used and left as it is.
    """
    if dist.is_initialized() or not (_under_torchrun() or always):
        yield
        return
    backend = "cpu:gloo,cuda:nccl" if torch.cuda.is_available() else "gloo"
    if _under_torchrun():
        if torch.cuda.is_available():
            torch.cuda.set_device(int(os.environ["LOCAL_RANK"]) % torch.cuda.device_count())
        dist.init_process_group(backend)
    else:
        store = dist.HashStore()  # pyright: ignore[reportPrivateImportUsage]
        dist.init_process_group(backend, store=store, rank=0, world_size=1)
    try:
        yield
    finally:
        dist.destroy_process_group()


def world_size() -> int:
    """How many processes train together."""
    return dist.get_world_size() if dist.is_initialized() else 1


def rank() -> int:
    """The number of this process in the group, from 0."""
    return dist.get_rank() if dist.is_initialized() else 0


def is_main_process() -> bool:
    """Whether this process prints: one of those that torchrun started does, in a group or not."""
    return not _under_torchrun() or os.environ["RANK"] == "0"


def local_device(device: str) -> str:
    """`auto` and `cuda` become this rank's own GPU. Raises UsageError for several devices."""
    if world_size() > 1 and device in ("auto", "cuda") and torch.cuda.is_available():
        return f"cuda:{torch.cuda.current_device()}"
    if device != "auto" and len(parse_device(device)) > 1:
        raise UsageError(
            f"training on {device}",
            why="a model that is spread over devices layer by layer can be asked, not trained",
            fix="set device to one, and sharding to fsdp under torchrun",
        )
    return str(pick_device(device))


def local_slice(count: int) -> slice:
    """Which of a step's `count` prompts are this rank's: neighbours, as many as any other rank has,
    or one more or less.

    Raises UsageError where a rank would have none.
    """
    if count < world_size():
        raise UsageError(
            f"{count} prompts for {world_size()} processes",
            why="a group never leaves its process, and one would have nothing to do",
            fix=f"set prompts (batch, for sft) to {world_size()} or more",
        )
    return slice(count * rank() // world_size(), count * (rank() + 1) // world_size())


def _under_torchrun() -> bool:
    return "RANK" in os.environ and "MASTER_ADDR" in os.environ
