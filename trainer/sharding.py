"""A model spread over the ranks (FSDP2): every decoder layer and vision block on its own, the rest
as one.

A layer is gathered when it runs, forward and again backward, and its gradients are added up where
its share lives; the optimiser holds shares only. All ranks must run the same layers the same number
of times, so a rank with less to do runs samples again that count for nothing (trainer/grpo.py).
While sampling, the whole model is gathered once. With `bf16-mixed`, layers compute in bfloat16,
while shares, their sums and the optimiser stay in float32.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import wraps
from types import MethodType
from typing import Any, Literal, TypeVar

import torch
from torch.utils.checkpoint import checkpoint

from franken.errors import FrankenError
from franken.models.families import Family
from franken.models.loading import Loaded
from trainer.collectives import all_gather

Sharding = Literal["none", "fsdp"]
Precision = Literal["fp32", "bf16-mixed"]
T = TypeVar("T")


def shard(loaded: Loaded, precision: Precision = "fp32") -> None:
    """Spread a model over the ranks of the process group, in place. Parameters become DTensors;
    names stay.
    """
    from torch.distributed.fsdp import (
        MixedPrecisionPolicy,
        fully_shard,
        register_fsdp_forward_method,
    )

    model = loaded.model
    mixed = precision == "bf16-mixed"
    policy = (
        MixedPrecisionPolicy(torch.bfloat16, torch.float32) if mixed else MixedPrecisionPolicy()
    )
    for block in blocks(loaded.family, model):
        fully_shard(block, mp_policy=policy)
    model.through = MethodType(_through, model)
    fully_shard(model, mp_policy=policy)
    register_fsdp_forward_method(model, "through")
    for module in _sharded(model):
        module.set_gradient_divide_factor(1.0)  # denominators are global: gradients are sums
        module.set_force_sum_reduction_for_comms(True)
    with torch.no_grad():
        inside(model, lambda: None)  # makes this module the root, whichever part runs first
    model.reshard()  # the root stays gathered after a forward pass


def blocks(family: Family, model: Any) -> list[Any]:
    """Decoder layers and vision blocks, in the order in which they run."""
    return [*(family.vision_blocks(model) or ()), *family.decoder_layers(model)]


def inside(model: Any, call: Callable[[], T]) -> T:
    """Run a call that uses parts of a model (its decoder, its head) as if it were the model's
    forward pass.
    """
    return model.through(call) if is_sharded(model) else call()


def is_sharded(model: Any) -> bool:
    """Whether `shard` has been there."""
    return hasattr(model, "unshard")


@contextmanager
def whole(model: Any) -> Iterator[None]:
    """Gather the model once, for many forward passes without gradients that the ranks need not run
    in step.
    """
    if not is_sharded(model):
        yield
        return
    modules = _sharded(model)
    model.set_reshard_after_forward(False)
    for module in modules:
        module.unshard()
    try:
        yield
    finally:
        for module in modules:
            module.reshard()
            module.set_reshard_after_forward(module is not model, recurse=False)


def check_in_step(model: Any, images: list[bool]) -> None:
    """Raise FrankenError where only some ranks would run a sharded vision tower: they would wait
    for ever.

    `images` says of each of this rank's forward passes whether it has images.
    """
    if is_sharded(model) and len({each for part in all_gather(images) for each in part}) > 1:
        raise FrankenError(
            "some forward passes have images and others none",
            why="a sharded vision tower must run on all processes at once",
            fix="set sharding: none, or give a stage tasks with images or tasks without",
        )


def checkpoint_activations(loaded: Loaded) -> None:
    """Keep only the input of every block for the backward pass, and run the block again there."""
    for block in blocks(loaded.family, loaded.model):
        block.forward = _recomputed(block.forward)


def _recomputed(forward: Callable[..., Any]) -> Callable[..., Any]:
    @wraps(forward)
    def run(*args: Any, **kwargs: Any) -> Any:
        if not torch.is_grad_enabled():
            return forward(*args, **kwargs)
        return checkpoint(forward, *args, use_reentrant=False, **kwargs)

    return run


def full(tensor: Any) -> Any:
    """The whole of a tensor that may be spread; all ranks must ask."""
    return tensor.full_tensor() if hasattr(tensor, "full_tensor") else tensor


def full_weights(model: Any, *, keep: bool) -> dict[str, Any]:
    """Every tensor of the state dict, whole and on the CPU, gathered one by one; kept on the ranks
    that say so.

    Tied names share one tensor, as in the model.
    """
    weights: dict[str, Any] = {}
    first: dict[int, str] = {}
    for name, tensor in model.state_dict(keep_vars=True).items():
        known = first.setdefault(id(tensor), name)
        if known != name:
            weights |= {name: weights[known]} if keep else {}
            continue
        found = full(tensor.detach())
        if keep:
            weights[name] = found.cpu()
    return weights


def _sharded(model: Any) -> list[Any]:
    return [module for module in model.modules() if is_sharded(module)]


def _through(model: Any, call: Callable[[], T]) -> T:
    return call()
