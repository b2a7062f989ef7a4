"""A GPU's rules over CPU values: tensors that say `cuda:0`, refuse to meet tensors of the CPU as
CUDA's kernels do, and count how often the host has to wait for them.

    with cuda_rules() as gpu:
        loaded = on_gpu(loaded)
        …
    gpu.waits       how often a value was read by the host, by the operation that read it

A CUDA kernel takes tensors of one device, and beside them CPU scalars (tensors without dimensions)
and CPU indices. Values are the CPU's, so results are those of a run without this. There may be
several cards (`on_gpus`), whose tensors may not meet either. Left out: streams, memory, and kernels
that exist on one device alone.
"""

from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from copy import copy
from dataclasses import dataclass, field, replace
from typing import Any
from unittest.mock import patch

import torch
from accelerate.hooks import AlignDevicesHook, attach_align_device_hook_on_blocks
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode
from torch.utils._pytree import tree_flatten, tree_map

from franken.models.loading import Loaded
from franken.models.placement import outside_layers

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
    place: torch.device

    @staticmethod
    def __new__(cls, held: Tensor, place: torch.device = DEVICE) -> "OnGpu":
        made = Tensor._make_wrapper_subclass(  # pyright: ignore[reportAttributeAccessIssue]
            cls,
            held.size(),
            strides=held.stride(),
            storage_offset=held.storage_offset(),
            dtype=held.dtype,
            layout=held.layout,
            requires_grad=False,
        )
        made.held, made.place = held.detach(), place
        return made

    @property
    def device(self) -> torch.device:  # pyright: ignore[reportIncompatibleVariableOverride]
        return self.place

    @property
    def is_cuda(self) -> bool:  # pyright: ignore[reportIncompatibleVariableOverride]
        return True

    def __repr__(self) -> str:  # pyright: ignore[reportIncompatibleMethodOverride]
        return f"OnGpu({self.held!r})"

    def numpy(self, *, force: bool = False) -> Any:
        raise TypeError(f"can't convert {self.place} device type tensor to numpy")

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
        return _outside(result, _place_of(args, kwargs))


def _inside(value: Any) -> Any:
    return value.held if isinstance(value, OnGpu) else value


def _outside(result: Any, place: torch.device) -> Any:
    """The tensors of a result on a card."""
    on_card = lambda x: OnGpu(x, place) if type(x) in (Tensor, nn.Parameter) else x  # noqa: E731
    return tree_map(on_card, result)


def _place_of(*given: Any) -> torch.device:
    """The card of the first tensor that is on one."""
    return next((t.place for t in tree_flatten(given)[0] if isinstance(t, OnGpu)), DEVICE)


def _by_mask(args: Any) -> bool:
    return any(i is not None and i.dtype in (torch.bool, torch.uint8) for i in args[1])


def _check(func: Any, args: Any, kwargs: Any) -> None:
    """Raise RuntimeError, as CUDA does, where tensors of two devices meet."""
    tensors = [t for t in tree_flatten((args, kwargs))[0] if isinstance(t, Tensor)]
    cards = {str(t.place) for t in tensors if isinstance(t, OnGpu)}
    if len(cards) > 1:
        raise RuntimeError(
            f"Expected all tensors to be on the same device, but found {sorted(cards)} in {func}"
        )
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
    def forward(ctx: Any, tensor: Any, place: torch.device | None) -> Tensor:
        ctx.came_from = tensor.place if isinstance(tensor, OnGpu) else None
        return _on(place, tensor)

    @staticmethod
    def backward(ctx: Any, *gradients: Any) -> Any:
        (gradient,) = gradients
        return _on(ctx.came_from, gradient), None


def _on(place: torch.device | None, tensor: Tensor) -> Tensor:
    """A copy on a card, or on the host."""
    held = _inside(tensor).detach().clone()
    return held if place is None else OnGpu(held, place)


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
        place = _card(kwargs.pop("device"))
        given = [a for a in tree_flatten(args)[0] if isinstance(a, OnGpu)]
        if func in (torch.tensor, torch.as_tensor):  # of a list of GPU scalars, each is read
            GPU.waits[name] += len(given)
        result = func(*tree_map(_inside, args), **kwargs)
        return result if place is None else _outside(result, place)


def _card(device: Any) -> torch.device | None:
    """The card of that name; None for the host."""
    device = torch.device(device)
    return torch.device("cuda", device.index or 0) if device.type == "cuda" else None


def _index(index: Any) -> Any:
    """An index whose lists are tensors, as indexing makes them; these may be the host's."""
    if isinstance(index, tuple):
        return tuple(map(_index, index))
    return torch.tensor(index) if isinstance(index, list) else index


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
    here = tensor.place if isinstance(tensor, OnGpu) else None
    place = here if device is None else _card(device)
    if place == here:
        return tensor
    GPU.waits["to the host"] += place is None
    moved = _Moved.apply(tensor, place)
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


def on_gpus(loaded: Loaded, cards: Sequence[int]) -> Loaded:
    """The same model with every decoder layer on its card, under the hooks with which accelerate
    dispatches a model; the rest is on the first card.
    """
    layers = loaded.family.decoder_layers(loaded.model)
    places = {
        id(layer): torch.device("cuda", card) for layer, card in zip(layers, cards, strict=True)
    }
    model = _moved(loaded.model, {}, places=places)
    names = {id(module): name for name, module in loaded.model.named_modules()}
    execution = {names[number]: place for number, place in places.items()}
    execution |= dict.fromkeys((name for name, _ in outside_layers(loaded.model, layers)), DEVICE)
    with patch.object(AlignDevicesHook, "init_hook", lambda hook, module: module):
        attach_align_device_hook_on_blocks(
            model,
            execution_device=execution | {"": DEVICE},
            offload=dict.fromkeys(execution, False),
            skip_keys=model._skip_keys_device_placement,
        )
    spread = tuple(str(place) for place in places.values())
    return replace(loaded, model=model, device=DEVICE, spread=spread)


def _moved(
    module: nn.Module,
    known: dict[int, Any],
    place: torch.device = DEVICE,
    places: dict[int, torch.device] | None = None,
) -> Any:
    """A copy of a module on a card, some of its modules on others; what is tied stays tied."""
    made, place = copy(module), (places or {}).get(id(module), place)
    made.__dict__ = dict(module.__dict__)
    known[id(module)] = made

    def parameter(p: nn.Parameter) -> nn.Parameter:
        if id(p) not in known:
            known[id(p)] = nn.Parameter(OnGpu(p.data.clone(), place), requires_grad=p.requires_grad)
        return known[id(p)]

    made._parameters = {n: p if p is None else parameter(p) for n, p in module._parameters.items()}
    made._buffers = {
        n: b if b is None else OnGpu(b.clone(), place) for n, b in module._buffers.items()
    }
    made._modules = {
        n: None if m is None else known.get(id(m)) or _moved(m, known, place, places)
        for n, m in module._modules.items()
    }
    return made
