"""What the ranks tell each other: sums, values, errors, gradients. One rank sends nothing."""

import hashlib
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple, TypeVar

import torch
import torch.distributed as dist
from torch import Tensor, nn

from franken.errors import FrankenError, VerificationError
from trainer.distributed import rank, world_size

BUCKET = 1 << 25  # elements of gradients in one all_reduce
T = TypeVar("T")


class _Problem(NamedTuple):
    """An error as it travels between processes."""

    kind: type[FrankenError]
    what: str
    why: str
    fix: str

    @classmethod
    def of(cls, error: FrankenError | OSError) -> "_Problem":
        if isinstance(error, OSError):
            return cls(FrankenError, str(error), "one of several processes could not go on", "")
        return cls(type(error), error.what, error.why, error.fix)

    def error(self) -> FrankenError:
        return self.kind(self.what, self.why, self.fix)


def all_reduce_sum(values: Sequence[float]) -> list[float]:
    """Numbers summed over the ranks, element by element."""
    if world_size() == 1:
        return list(values)
    summed = torch.tensor(list(values), dtype=torch.float64)
    dist.all_reduce(summed)
    return summed.tolist()


def all_reduce_max(value: int) -> int:
    """The largest of the ranks' numbers."""
    if world_size() == 1:
        return value
    largest = torch.tensor(value)
    dist.all_reduce(largest, dist.ReduceOp.MAX)
    return int(largest)


def all_gather(value: T) -> list[T]:
    """Every rank's value, in rank order."""
    if world_size() == 1:
        return [value]
    values: list[Any] = [None] * world_size()
    dist.all_gather_object(values, value)
    return values


def on_main_process(do: Callable[[], T]) -> T:
    """Let rank 0 do it, and return its result or raise its FrankenError or OSError on all."""
    if world_size() == 1:
        return do()
    result: list[Any] = [None, None]
    if rank() == 0:
        try:
            result[0] = do()
        except (FrankenError, OSError) as e:
            result[1] = _Problem.of(e)
    dist.broadcast_object_list(result, 0)
    if result[1]:
        raise result[1].error()
    return result[0]


def on_every_process(do: Callable[[], T]) -> T:
    """Do it on every rank; a FrankenError or OSError of one is raised on all, so that nobody waits
    for the one that failed.
    """
    if world_size() == 1:
        return do()
    value, problem = None, None
    try:
        value = do()
    except (FrankenError, OSError) as e:
        problem = _Problem.of(e)
    first = next((p for p in all_gather(problem) if p), None)
    if first:
        raise first.error()
    return value  # pyright: ignore[reportReturnType]


def all_reduce_gradients(parameters: Sequence[Tensor]) -> None:
    """Replace the gradients of whole (not sharded) parameters by their sums over the ranks.

    A parameter that has no gradient on any rank keeps none, so that the optimizer leaves it alone.
    """
    whole = [p for p in parameters if not hasattr(p, "full_tensor")]
    if world_size() == 1 or not whole:
        return
    has_gradient = torch.tensor([p.grad is not None for p in whole], dtype=torch.int32)
    dist.all_reduce(has_gradient, dist.ReduceOp.MAX)
    moved = [p for p, some in zip(whole, has_gradient.tolist(), strict=True) if some]
    for bucket in _buckets(moved):
        gradients = [torch.zeros_like(p) if p.grad is None else p.grad for p in bucket]
        flat = torch.cat([g.flatten() for g in gradients])
        dist.all_reduce(flat)
        for p, summed in zip(bucket, flat.split([p.numel() for p in bucket]), strict=True):
            p.grad = summed.view_as(p)


def check_replicas(model: nn.Module) -> None:
    """Raise VerificationError where the ranks' whole parameters are not the same bits."""
    if world_size() == 1:
        return
    digest = hashlib.sha256()
    for p in model.parameters():
        if not hasattr(p, "full_tensor"):
            digest.update(tensor_digest(p).encode())
    if len(set(all_gather(digest.hexdigest()))) > 1:
        raise VerificationError(
            "the processes hold different weights",
            why="their updates came apart",
            fix="report this as a bug",
        )


def tensor_digest(tensor: Tensor) -> str:
    """SHA-256 of a tensor's bytes, row by row."""
    data = tensor.detach().contiguous().cpu().reshape(-1).view(torch.uint8).numpy()
    return hashlib.sha256(data.tobytes()).hexdigest()


def _buckets(parameters: Sequence[Tensor]) -> Iterator[list[Tensor]]:
    """Neighbours of one dtype, up to BUCKET elements."""
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
