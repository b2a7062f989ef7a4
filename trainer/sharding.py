"""A model spread over the ranks (FSDP2): every decoder layer and vision block on its own, the rest
as one.

A layer is gathered when it runs, forward and again backward, and its gradients are summed where its
shard lives; the optimizer holds shards only. All ranks must run the same layers the same number of
times, so a rank with less to do runs samples again that count for nothing
(trainer/micro_batches.py), and one without images shows the tower a blank one (trainer/towers.py).
While sampling, the whole model is gathered once. With `bf16-mixed`, layers compute in bfloat16,
while shards, their sums and the optimizer stay in float32.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import wraps
from types import MethodType
from typing import TYPE_CHECKING, Literal, ParamSpec, TypeVar

import torch
from torch import Tensor, nn
from torch.distributed.fsdp import (
    FSDPModule,
    MixedPrecisionPolicy,
    fully_shard,
    register_fsdp_forward_method,
)
from torch.utils.checkpoint import checkpoint

from franken.models.families import Family
from franken.models.loading import Loaded

if TYPE_CHECKING:
    from transformers import PreTrainedModel

Precision = Literal["fp32", "bf16-mixed"]
THROUGH = "franken_through"  # the method that runs a call inside the model's forward pass
P = ParamSpec("P")
T = TypeVar("T")


def shard(loaded: Loaded, precision: Precision = "fp32") -> None:
    """Spread a model over the ranks of the process group, in place. Parameters become DTensors;
    names stay.
    """
    model = loaded.model
    mixed = precision == "bf16-mixed"
    policy = (
        MixedPrecisionPolicy(torch.bfloat16, torch.float32) if mixed else MixedPrecisionPolicy()
    )
    for block in blocks(loaded.family, model):
        fully_shard(block, mp_policy=policy)
    setattr(model, THROUGH, MethodType(_through, model))
    fully_shard(model, mp_policy=policy)
    register_fsdp_forward_method(model, THROUGH)
    for module in _sharded(model):
        module.set_gradient_divide_factor(1.0)  # denominators are global: gradients are sums
        module.set_force_sum_reduction_for_comms(True)
    with torch.no_grad():
        inside(model, lambda: None)  # makes this module the root, whichever part runs first
    model.reshard()  # the root stays gathered after a forward pass


def blocks(family: Family, model: "PreTrainedModel") -> list[nn.Module]:
    """Decoder layers and vision blocks, in the order in which they run."""
    return [*(family.vision_blocks(model) or ()), *family.decoder_layers(model)]


def inside(model: nn.Module, call: Callable[[], T]) -> T:
    """Run a call that uses parts of a model (its decoder, its head) as if it were the model's
    forward pass.
    """
    return getattr(model, THROUGH)(call) if is_sharded(model) else call()


def is_sharded(model: nn.Module) -> bool:
    """Whether `shard` was applied."""
    return isinstance(model, FSDPModule)


@contextmanager
def whole(model: nn.Module) -> Iterator[None]:
    """Gather the model once, for many forward passes without gradients that the ranks need not run
    in step.
    """
    modules = _sharded(model)
    if not isinstance(model, FSDPModule):
        yield
        return
    model.set_reshard_after_forward(False)
    for module in modules:
        module.unshard()
    try:
        yield
    finally:
        for module in modules:
            module.reshard()
            module.set_reshard_after_forward(module is not model, recurse=False)


def checkpoint_activations(loaded: Loaded) -> None:
    """Keep only the input of every block for the backward pass, and run the block again there."""
    for block in blocks(loaded.family, loaded.model):
        block.forward = _recomputed(block.forward)


def _recomputed(forward: Callable[P, T]) -> Callable[P, T]:
    @wraps(forward)
    def run(*args: P.args, **kwargs: P.kwargs) -> T:
        if not torch.is_grad_enabled():
            return forward(*args, **kwargs)
        return checkpoint(forward, *args, use_reentrant=False, **kwargs)

    return run


def full(tensor: Tensor) -> Tensor:
    """The whole of a tensor that may be spread; all ranks must call."""
    whole_tensor = getattr(tensor, "full_tensor", None)
    return tensor if whole_tensor is None else whole_tensor()


def full_weights(model: nn.Module, *, keep: bool) -> dict[str, Tensor]:
    """Every tensor of the state dict, whole and on the CPU, gathered one by one; kept on the ranks
    that say so.

    Tied names share one tensor, as in the model.
    """
    weights: dict[str, Tensor] = {}
    first: dict[int, str] = {}
    for name, tensor in model.state_dict(keep_vars=True).items():
        known = first.setdefault(id(tensor), name)
        if known != name:
            weights |= {name: weights[known]} if keep else {}
            continue
        gathered = full(tensor.detach())
        if keep:
            weights[name] = gathered.cpu()
    return weights


def _sharded(model: nn.Module) -> list[FSDPModule]:
    return [module for module in model.modules() if isinstance(module, FSDPModule)]


def _through(model: nn.Module, call: Callable[[], T]) -> T:
    return call()
