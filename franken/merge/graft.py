"""Virtual hybrids: swap tensors of a model in memory, and put them back bit for bit. Nothing is
written.

A weight that waits outside of the device between passes (`franken.models.placement`) is swapped
where it waits: a copied one is read from the donor's file in every pass, as the model's own is.
"""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from itertools import chain
from typing import Any

import torch

from franken.errors import UsageError
from franken.merge.arithmetic import DTYPES, read_tensor
from franken.merge.plan import Plan, Row
from franken.merge.verify import computed
from franken.models.placement import waiting_weights
from franken.names import canonical

Values = dict[str, torch.Tensor]  # by the file and name they come from


@contextmanager
def graft(model: Any, plan: Plan, *, donated: Values | None = None) -> Iterator[int]:
    """While the context lasts, the model holds the tensors of the plan. Yields how many were
    swapped.

    `model` is the plan's base, loaded in any type and on any device. The model's own tensors stay
    where they are and come back themselves, also after an exception. `donated` keeps donors'
    tensors that were read, on the model's device: hand the same mapping to every graft of a sweep,
    and each is read from disk once.

    Raises UsageError when the model is not the plan's base, or the plan changes nothing.
    """
    family = model.config.model_type
    stored = model.state_dict().keys()  # some families store buffers beside their parameters
    buffers = ((name, b) for name, b in model.named_buffers() if name in stored)
    named = chain(model.named_parameters(), buffers)
    held = {canonical(name, family): tensor for name, tensor in named}
    waiting = {canonical(name, family): w for name, w in waiting_weights(model).items()}
    changes = [row for row in plan.rows if row.changed]
    if not changes:
        raise UsageError("the graft is empty", why="the plan takes nothing from a donor")
    for row in changes:
        if row.key not in held or tuple(held[row.key].shape) != row.target.shape:
            raise UsageError(
                f"the model has no fitting {row.key}", fix="graft onto the base of the plan"
            )
    kept: dict[str, torch.Tensor] = {}
    sources: list[tuple[Any, Mapping[str, torch.Tensor]]] = []
    try:
        for row in changes:
            parameter = held[row.key]
            if row.key in waiting:
                hook, name = waiting[row.key].hook, waiting[row.key].name
                sources.append((hook, hook.weights_map))
                hook.weights_map = _Instead(hook.weights_map, name, row, parameter.dtype)
                continue
            value = _value(row, parameter, donated)
            kept[row.key] = parameter.data
            parameter.data = value
        yield len(changes)
    finally:
        for key, own in kept.items():
            held[key].data = own
        for hook, own in reversed(sources):
            hook.weights_map = own


class _Instead(Mapping[str, torch.Tensor]):
    """What accelerate reads a module's weights from, with a row of the plan in place of one."""

    def __init__(
        self, below: Mapping[str, torch.Tensor], name: str, row: Row, dtype: torch.dtype
    ) -> None:
        self.below, self.name, self.row = below, name, row
        self.like = torch.empty((), dtype=dtype)
        self.made = None if row.copied else _value(row, self.like, None)

    def __getitem__(self, name: str) -> torch.Tensor:
        if name != self.name:
            return self.below[name]
        return _value(self.row, self.like, None) if self.made is None else self.made

    def __iter__(self) -> Iterator[str]:
        return iter(self.below)

    def __len__(self) -> int:
        return len(self.below)


def _value(row: Row, like: torch.Tensor, donated: Values | None) -> torch.Tensor:
    """What a row makes, rounded to the type it has on disk, then in the type and place of the
    model's parameter.
    """
    if row.copied is None:
        values = torch.frombuffer(computed(row, donated), dtype=DTYPES[row.target.dtype])
        return values.reshape(row.target.shape).to(like)
    entry = row.copied
    source = f"{entry.file}:{entry.name}"
    if donated is not None and source in donated:
        return donated[source]
    value = read_tensor(entry).to(device=like.device, dtype=like.dtype)
    if donated is not None:
        donated[source] = value
    return value
