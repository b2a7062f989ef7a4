"""Several processes as one trainer: who does which prompts, what is added up, who writes.

Started by torchrun, every process is a rank that holds the model, draws the puzzles of a step (a
pure function of seed and step), and answers its share of the prompts; a group stays on the rank
that sampled it. Sums over the step are known to all ranks before the first backward pass, gradients
are added, never averaged: the update is that of one process, to rounding. Rank 0 writes. Without
torchrun all of this is one rank and costs nothing.
"""

import hashlib
import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, TypeVar

import torch
import torch.distributed as dist
from torch import Tensor, nn

from franken.errors import FrankenError, UsageError, VerificationError

BUCKET = 1 << 25  # numbers that are added up over ranks at a time
T = TypeVar("T")


@contextmanager
def joined(*, always: bool = False) -> Iterator[None]:
    """Join the processes that torchrun started; with `always`, be a group of one where there are
    none.

    A group that is there already is used and left as it is.
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


def ranks() -> int:
    """How many processes train together."""
    return dist.get_world_size() if dist.is_initialized() else 1


def rank() -> int:
    """The number of this process in the group, from 0."""
    return dist.get_rank() if dist.is_initialized() else 0


def speaks() -> bool:
    """Whether this process prints: of those that torchrun started, one does, in a group or not."""
    return not _under_torchrun() or os.environ["RANK"] == "0"


def own_device(device: str) -> str:
    """`auto` and `cuda` become this rank's own GPU."""
    if ranks() > 1 and device in ("auto", "cuda") and torch.cuda.is_available():
        return f"cuda:{torch.cuda.current_device()}"
    return device


def share(count: int) -> slice:
    """Which of a step's `count` prompts are this rank's: a run of them, lengths differing by one at
    most.

    Raises UsageError where a rank would have none.
    """
    if count < ranks():
        raise UsageError(
            f"{count} prompts for {ranks()} processes",
            why="a group never leaves its process, and one would have nothing to do",
            fix=f"set prompts (batch, for sft) to {ranks()} or more",
        )
    return slice(count * rank() // ranks(), count * (rank() + 1) // ranks())


def total(values: Sequence[float]) -> list[float]:
    """Numbers added up over the ranks, element by element."""
    if ranks() == 1:
        return list(values)
    summed = torch.tensor(list(values), dtype=torch.float64)
    dist.all_reduce(summed)
    return summed.tolist()


def largest(value: int) -> int:
    """The largest of the ranks' numbers."""
    if ranks() == 1:
        return value
    found = torch.tensor(value)
    dist.all_reduce(found, dist.ReduceOp.MAX)
    return int(found)


def gathered(value: T) -> list[T]:
    """Everybody's value, in rank order."""
    if ranks() == 1:
        return [value]
    found: list[Any] = [None] * ranks()
    dist.all_gather_object(found, value)
    return found


def on_first(do: Callable[[], T]) -> T:
    """Let rank 0 do it, and tell all ranks the outcome. A FrankenError, or what the system refused,
    is raised on all.
    """
    if ranks() == 1:
        return do()
    told: list[Any] = [None, None]
    if rank() == 0:
        try:
            told[0] = do()
        except (FrankenError, OSError) as e:
            told[1] = _spelled(e)
    dist.broadcast_object_list(told, 0)
    if told[1]:
        raise _error(told[1])
    return told[0]


def together(do: Callable[[], T]) -> T:
    """Do it on every rank; an error as of `on_first` on one is raised on all, so that nobody waits
    for the one that failed.
    """
    if ranks() == 1:
        return do()
    value, problem = None, None
    try:
        value = do()
    except (FrankenError, OSError) as e:
        problem = _spelled(e)
    first = next((p for p in gathered(problem) if p), None)
    if first:
        raise _error(first)
    return value  # pyright: ignore[reportReturnType]


def add_gradients(parameters: Sequence[Tensor]) -> None:
    """Replace the gradients of whole (not sharded) parameters by their sums over the ranks.

    A parameter without a gradient on every rank keeps none, so that the optimiser leaves it alone.
    """
    whole = [p for p in parameters if not hasattr(p, "full_tensor")]
    if ranks() == 1 or not whole:
        return
    there = torch.tensor([p.grad is not None for p in whole], dtype=torch.int32)
    dist.all_reduce(there, dist.ReduceOp.MAX)
    moved = [p for p, some in zip(whole, there.tolist(), strict=True) if some]
    for bucket in _buckets(moved):
        for p in bucket:
            p.grad = torch.zeros_like(p) if p.grad is None else p.grad
        flat = torch.cat([p.grad.flatten() for p in bucket if p.grad is not None])
        dist.all_reduce(flat)
        for p, summed in zip(bucket, flat.split([p.numel() for p in bucket]), strict=True):
            p.grad = summed.view_as(p)


def check_equal(model: nn.Module) -> None:
    """Raise VerificationError where the ranks' whole parameters are not the same bits."""
    if ranks() == 1:
        return
    digest = hashlib.sha256()
    for p in model.parameters():
        if not hasattr(p, "full_tensor"):
            digest.update(tensor_digest(p).encode())
    if len(set(gathered(digest.hexdigest()))) > 1:
        raise VerificationError(
            "the processes hold different weights",
            why="their updates came apart",
            fix="report this as a bug",
        )


def tensor_digest(tensor: Tensor) -> str:
    """SHA-256 of a tensor's bytes, row by row."""
    data = tensor.detach().contiguous().cpu().reshape(-1).view(torch.uint8).numpy()
    return hashlib.sha256(data.tobytes()).hexdigest()


def _under_torchrun() -> bool:
    return "RANK" in os.environ and "MASTER_ADDR" in os.environ


def _buckets(parameters: Sequence[Tensor]) -> Iterator[list[Tensor]]:
    """Neighbours of one type, up to BUCKET numbers."""
    bucket: list[Tensor] = []
    for p in parameters:
        if bucket and (
            p.dtype != bucket[0].dtype or sum(b.numel() for b in bucket) + p.numel() > BUCKET
        ):
            yield bucket
            bucket = []
        bucket.append(p)
    if bucket:
        yield bucket


def _spelled(error: FrankenError | OSError) -> tuple[type[FrankenError], str, str, str]:
    if isinstance(error, OSError):
        return FrankenError, str(error), "one of several processes could not go on", ""
    return type(error), error.what, error.why, error.fix


def _error(spelled: tuple[type[FrankenError], str, str, str]) -> FrankenError:
    kind, *words = spelled
    return kind(*words)
