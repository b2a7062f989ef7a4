"""Virtual hybrids: swap tensors of a model in memory, and put them back bit for bit. Nothing is
written.

A weight that waits outside of the device between passes (`franken.models.placement`) is swapped
where it waits: a copied one is read from the donor's file in every pass, as the model's own is.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from typing import Any

import torch

from franken.errors import UsageError
from franken.experts import Slot, slot_of
from franken.merge.arithmetic import DTYPES, read_tensor
from franken.merge.plan import Plan, Row
from franken.merge.verify import computed
from franken.models.loading import saved_tensors
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
    held = {canonical(name, family): tensor for name, tensor in saved_tensors(model)}
    waiting = {canonical(name, family): w for name, w in waiting_weights(model).items()}
    changes = [row for row in plan.rows if row.changed]
    if not changes:
        raise UsageError("the graft is empty", why="the plan takes nothing from a donor")
    members: dict[str, list[Member]] = {}
    for row in changes:
        key, slot = _place_in(row, held)
        members.setdefault(key, []).append((slot, row))
    kept: dict[str, torch.Tensor] = {}
    sources: list[tuple[Any, Mapping[str, torch.Tensor]]] = []
    try:
        for key, rows in members.items():
            parameter = held[key]
            if key in waiting:
                hook, name = waiting[key].hook, waiting[key].name
                sources.append((hook, hook.weights_map))
                hook.weights_map = _Instead(hook.weights_map, name, rows, parameter)
                continue
            kept[key], value_of = parameter.data, partial(_value, like=parameter, donated=donated)
            parameter.data = _changed(rows, parameter.shape, lambda: kept[key], value_of)  # noqa: B023
        yield len(changes)
    finally:
        for key, own in kept.items():
            held[key].data = own
        for hook, own in reversed(sources):
            hook.weights_map = own


Member = tuple[Slot | None, Row]  # a row, and where in the parameter it goes, if not all over it


def _place_in(row: Row, held: Mapping[str, torch.Tensor]) -> tuple[str, Slot | None]:
    """The parameter that a row of the plan changes, and the part of it: experts that are one by one
    on disk are fused in memory. Raises UsageError where there is none.
    """
    shape, slot = row.target.shape, slot_of(row.key)
    if row.key in held and shape in _layouts(row.key, held[row.key]):
        return row.key, None
    if slot is not None and slot.fused in held and slot.of(held[slot.fused]).shape == shape:
        return slot.fused, slot
    raise UsageError(f"the model has no fitting {row.key}", fix="graft onto the base of the plan")


def _layouts(key: str, parameter: torch.Tensor) -> list[tuple[int, ...]]:
    """The shapes that a parameter has on disk: fused experts may have their last axes exchanged."""
    shape = tuple(parameter.shape)
    exchanged = ".experts." in key and len(shape) == 3
    return [shape, (shape[0], shape[2], shape[1])] if exchanged else [shape]


def _changed(
    members: Sequence[Member],
    shape: torch.Size,
    own: Callable[[], torch.Tensor],
    value_of: Callable[[Row], torch.Tensor],
) -> torch.Tensor:
    """A parameter's new value: a row of the plan, or its own with experts of the plan in it."""
    (slot, row), *_ = members
    if slot is None:
        value = value_of(row)
        return value if value.shape == shape else value.transpose(1, 2).contiguous()
    changed = own().clone()
    for slot, row in members:
        if slot is not None:
            slot.of(changed).copy_(value_of(row))
    return changed


class _Instead(Mapping[str, torch.Tensor]):
    """What accelerate reads a module's weights from, with rows of the plan in one of them. What is
    copied is read in every pass, what is computed is made once.
    """

    def __init__(
        self,
        below: Mapping[str, torch.Tensor],
        name: str,
        members: Sequence[Member],
        parameter: torch.Tensor,
    ) -> None:
        self.below, self.name, self.members = below, name, members
        self.shape = parameter.shape
        self.like = torch.empty((), dtype=parameter.dtype)
        self.made = {r.key: _value(r, self.like, None) for _, r in members if r.copied is None}

    def __getitem__(self, name: str) -> torch.Tensor:
        if name != self.name:
            return self.below[name]
        return _changed(self.members, self.shape, lambda: self.below[name], self._value_of)

    def _value_of(self, row: Row) -> torch.Tensor:
        return self.made[row.key] if row.key in self.made else _value(row, self.like, None)

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
