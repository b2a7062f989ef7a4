"""A GPU's rules over CPU values: tensors that say `cuda:0`, refuse to meet tensors of the CPU as
CUDA's kernels do, and count how often the host has to wait for them.

    with cuda_rules() as gpu:
        loaded = on_gpu(loaded)
        …
    gpu.waits       how often a value was read by the host, by the operation that read it

A CUDA kernel takes tensors of one device, and beside them CPU scalars (tensors without dimensions)
and CPU indices. Values are the CPU's, so results are those of a run without this. Left out: streams,
memory, and kernels that exist on one device alone.
"""

from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from copy import copy
from dataclasses import dataclass, field, replace
from typing import Any
from unittest.mock import patch

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode
from torch.utils._pytree import tree_flatten, tree_map

from franken.models.loading import Loaded

DEVICE = torch.device("cuda", 0)
HOST = torch.device("cpu")
aten = torch.ops.aten
READ = {  # what the host reads, or whose result has a size that only the values tell
    aten._local_scalar_dense.default,
    aten.equal.default,
    aten.nonzero.default,
    aten.masked_select.default,
    aten.repeat_interleave.Tensor,
    aten._unique2.default,
    aten.unique_dim.default,
    aten.is_nonzero.default,
}
INDEXING = {aten.index.Tensor, aten.index_put.default, aten.index_put_.default}


@dataclass
class Gpu:
    """What happened: `waits` by operation, and how many `operations` ran."""

    waits: Counter[str] = field(default_factory=Counter)
    operations: int = 0


GPU = Gpu()


class OnGpu(Tensor):
    """A CPU tensor that says it is on a GPU."""

    held: Tensor

    @staticmethod
    def __new__(cls, held: Tensor) -> "OnGpu":
        made = Tensor._make_wrapper_subclass(  # pyright: ignore[reportAttributeAccessIssue]
            cls,
            held.size(),
            strides=held.stride(),
            storage_offset=held.storage_offset(),
            dtype=held.dtype,
            layout=held.layout,
            requires_grad=False,
        )
        made.held = held.detach()
        return made

    @property
    def device(self) -> torch.device:  # pyright: ignore[reportIncompatibleVariableOverride]
        return DEVICE

    @property
    def is_cuda(self) -> bool:  # pyright: ignore[reportIncompatibleVariableOverride]
        return True

    def __repr__(self) -> str:  # pyright: ignore[reportIncompatibleMethodOverride]
        return f"OnGpu({self.held!r})"

    def numpy(self, *, force: bool = False) -> Any:
        raise TypeError("can't convert cuda:0 device type tensor to numpy")

    def tolist(self) -> Any:
        GPU.waits["tolist"] += 1
        return self.held.tolist()

    @classmethod
    def __torch_dispatch__(cls, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        GPU.operations += 1
        copies = func is aten.copy_.default
        if not copies:
            _check(func, args, kwargs)
        if func in READ or (func in INDEXING and _by_mask(args)):
            GPU.waits[str(func)] += 1
        result = func(*tree_map(_inside, args), **tree_map(_inside, kwargs))
        if copies:  # between devices as well
            GPU.waits["copy to the host"] += not isinstance(args[0], OnGpu)
            return args[0]
        changed = args[0] if func._schema.is_mutable and args else None
        if isinstance(changed, OnGpu) and result is changed.held:
            return changed
        return tree_map(_outside, result)


def _inside(value: Any) -> Any:
    return value.held if isinstance(value, OnGpu) else value


def _outside(value: Any) -> Any:
    return OnGpu(value) if isinstance(value, Tensor) and not isinstance(value, OnGpu) else value


def _by_mask(args: Any) -> bool:
    return any(i is not None and i.dtype in (torch.bool, torch.uint8) for i in args[1])


def _check(func: Any, args: Any, kwargs: Any) -> None:
    """Raise RuntimeError, as CUDA does, where tensors of both devices meet."""
    tensors = [t for t in tree_flatten((args, kwargs))[0] if isinstance(t, Tensor)]
    if func in INDEXING and isinstance(args[0], OnGpu):  # its indices may be the host's
        tensors = [args[0], *(t for t in args[2:3] if isinstance(t, Tensor))]
    host = [t for t in tensors if not isinstance(t, OnGpu) and t.dim() > 0]
    if host and any(isinstance(t, OnGpu) for t in tensors):
        raise RuntimeError(
            f"Expected all tensors to be on the same device, but found cuda:0 and cpu in {func}"
        )


class _Moved(torch.autograd.Function):
    """To the GPU or back, with a gradient that goes the other way."""

    @staticmethod
    def forward(ctx: Any, tensor: Any, gpu: bool) -> Tensor:
        ctx.gpu = gpu
        return OnGpu(tensor.detach().clone()) if gpu else tensor.held.clone()

    @staticmethod
    def backward(ctx: Any, *gradients: Any) -> Any:
        (gradient,) = gradients
        return (gradient.held if ctx.gpu else OnGpu(gradient)), None


class _Rules(TorchFunctionMode):
    """Factories and moves: what names a device before any tensor of it is there."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = dict(kwargs or {})
        name = getattr(func, "__name__", "")
        if name in ("to", "cuda", "cpu") and args and isinstance(args[0], Tensor):
            return _move(func, name, args, kwargs)
        if func in (Tensor.__getitem__, Tensor.__setitem__) and isinstance(args[0], OnGpu):
            return func(args[0], _index(args[1]), *args[2:])
        if kwargs.get("device") is None:
            return func(*args, **kwargs)
        gpu = torch.device(kwargs.pop("device")).type == "cuda"
        given = [a for a in tree_flatten(args)[0] if isinstance(a, OnGpu)]
        if func in (torch.tensor, torch.as_tensor):  # of a list of GPU scalars, each is read
            GPU.waits[name] += len(given)
        result = func(*tree_map(_inside, args), **kwargs)
        return tree_map(_outside, result) if gpu else result


def _index(index: Any) -> Any:
    """An index whose lists are tensors on the GPU, as indexing makes them."""
    if isinstance(index, tuple):
        return tuple(map(_index, index))
    return OnGpu(torch.tensor(index)) if isinstance(index, list) else index


def _move(func: Any, name: str, args: Any, kwargs: dict[str, Any]) -> Tensor:
    """`tensor.to(device, dtype)` in any of its forms."""
    tensor, said = args[0], [*args[1:], *kwargs.values()]
    like = next((v for v in said if isinstance(v, Tensor)), None)
    device = {"cuda": DEVICE, "cpu": HOST}.get(name) or next(
        (v for v in said if isinstance(v, str | torch.device)),
        None if like is None else like.device,
    )
    dtype = next(
        (v for v in said if isinstance(v, torch.dtype)), None if like is None else like.dtype
    )
    if dtype is not None:
        tensor = func(tensor, dtype)
    gpu = device is not None and torch.device(device).type == "cuda"
    if device is None or gpu == isinstance(tensor, OnGpu):
        return tensor
    GPU.waits["to the host"] += not gpu
    moved = _Moved.apply(tensor, gpu)
    assert isinstance(moved, Tensor)
    return moved


@contextmanager
def cuda_rules() -> Iterator[Gpu]:
    """While it lasts, `cuda:0` is there, and counted."""
    GPU.waits.clear()
    GPU.operations = 0
    rules, run_backward = _Rules(), torch.autograd._engine_run_backward

    def backward(*args: Any, **kwargs: Any) -> Any:
        with rules:  # for what checkpoints run again
            return run_backward(*args, **kwargs)

    with patch("torch.autograd._engine_run_backward", backward), rules:
        yield GPU


def on_gpu(loaded: Loaded) -> Loaded:
    """The same model with its weights on the GPU."""
    return replace(loaded, model=_moved(loaded.model, {}), device=DEVICE)


def _moved(module: nn.Module, known: dict[int, Any]) -> Any:
    """A copy of a module on the GPU; what is tied stays tied."""
    made = copy(module)
    made.__dict__ = dict(module.__dict__)
    known[id(module)] = made

    def parameter(p: nn.Parameter) -> nn.Parameter:
        if id(p) not in known:
            known[id(p)] = nn.Parameter(OnGpu(p.data.clone()), requires_grad=p.requires_grad)
        return known[id(p)]

    made._parameters = {n: p if p is None else parameter(p) for n, p in module._parameters.items()}
    made._buffers = {n: b if b is None else OnGpu(b.clone()) for n, b in module._buffers.items()}
    made._modules = {
        n: None if m is None else known.get(id(m)) or _moved(m, known)
        for n, m in module._modules.items()
    }
    return made
