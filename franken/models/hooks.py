"""Editing a block's output while the model runs: one context manager that always restores.

Decoder layers of transformers 5 return a plain tensor, attention modules a tuple whose first entry
is the tensor; a hook here sees and returns the tensor in both cases. A pass over several tokens is
a prefill, a pass over one is a decode step.
"""

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Literal

from jaxtyping import Float
from torch import Tensor, nn

Phase = Literal["prefill", "decode", "both"]


@dataclass(frozen=True)
class Context:
    """What a hook may want to know: the phase of this pass, and the module's own input."""

    phase: Literal["prefill", "decode"]
    input: Float[Tensor, "batch tokens hidden"]


Output = Tensor | tuple[Tensor, ...]
Edit = Callable[[Tensor, Context], Tensor]


@contextmanager
def edit(edits: Mapping[nn.Module, Edit], phase: Phase = "both") -> Iterator[None]:
    """While the context lasts, replace each module's output `[batch, tokens, hidden]` by
    `edit(output, context)`.
    """
    handles = [
        module.register_forward_hook(_hook(change, phase), with_kwargs=True)
        for module, change in edits.items()
    ]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def identity_layer(output: Tensor, context: Context) -> Tensor:
    """Zero ablation of a residual block: it adds nothing to its input."""
    return context.input


def _hook(change: Edit, phase: Phase) -> Callable[..., Output]:
    def hook(
        module: nn.Module, args: tuple[Tensor, ...], kwargs: dict[str, Tensor], output: Output
    ) -> Output:
        hidden = output[0] if isinstance(output, tuple) else output
        now: Literal["prefill", "decode"] = "prefill" if hidden.shape[1] > 1 else "decode"
        if phase not in ("both", now):
            return output
        source = args[0] if args else kwargs["hidden_states"]
        edited = change(hidden, Context(now, source))
        return (edited, *output[1:]) if isinstance(output, tuple) else edited

    return hook
