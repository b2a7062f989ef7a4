"""Editing what a block says while the model runs, keeping it, or saying it without running: context
managers that always restore.

Decoder layers of transformers 5 return a plain tensor, attention modules a tuple whose first entry
is the tensor; a hook here sees and returns the tensor in both cases. A pass over several tokens is
a prefill, a pass over one is a decode step.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Literal

from jaxtyping import Float
from torch import Tensor, nn

from franken.errors import FrankenError

Phase = Literal["prefill", "decode", "both"]


@dataclass(frozen=True)
class Context:
    """What a hook may want to know: the phase of this pass, and the module's own input."""

    phase: Literal["prefill", "decode"]
    input: Float[Tensor, "batch tokens hidden"]


Output = Tensor | tuple[Tensor, ...]
Edit = Callable[[Tensor, Context], Tensor]


@contextmanager
def edit(
    edits: Mapping[nn.Module, Edit], phase: Phase = "both", *, ahead: bool = False
) -> Iterator[None]:
    """While the context lasts, replace each module's output `[batch, tokens, hidden]` by
    `edit(output, context)`.

    Hooks that are there already have had their look, unless the edit goes `ahead` of them: some
    towers hand on what transformers' own hooks have kept of a layer (LLaVA-OneVision).
    """
    handles = [
        module.register_forward_hook(_hook(change, phase), with_kwargs=True, prepend=ahead)
        for module, change in edits.items()
    ]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


@contextmanager
def keeping(modules: Sequence[nn.Module]) -> Iterator[list[list[object]]]:
    """While the context lasts, what each module returns, call by call."""
    kept: list[list[object]] = [[] for _ in modules]

    def keeper(into: list[object]) -> Callable[..., None]:
        return lambda module, args, output: into.append(output)

    handles = [
        module.register_forward_hook(keeper(into))
        for module, into in zip(modules, kept, strict=True)
    ]
    try:
        yield kept
    finally:
        for handle in handles:
            handle.remove()


@contextmanager
def returning(outputs: Mapping[nn.Module, Sequence[object]]) -> Iterator[None]:
    """While the context lasts, each module returns what was kept, call by call, and does not run.

    Raises FrankenError at a call more than were kept.
    """
    own = {module: module.__dict__.get("forward") for module in outputs}

    def replay(kept: Sequence[object]) -> Callable[..., object]:
        calls = iter(kept)

        def forward(*_: object, **__: object) -> object:
            for output in calls:
                return output
            raise FrankenError("a module ran more often than what was kept of it")

        return forward

    try:
        for module, kept in outputs.items():
            module.forward = replay(kept)
        yield
    finally:
        for module, forward in own.items():
            del module.forward
            if forward is not None:
                module.forward = forward


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
        source = (args[0] if args else kwargs["hidden_states"]).to(hidden.device)
        edited = change(hidden, Context(now, source))
        return (edited, *output[1:]) if isinstance(output, tuple) else edited

    return hook
