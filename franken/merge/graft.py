"""Virtual hybrids: swap tensors of a model in memory, and put them back bit for bit. Nothing is
written.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch

from franken.errors import UsageError
from franken.merge.arithmetic import DTYPES, read_tensor
from franken.merge.plan import Plan, Row
from franken.merge.verify import computed
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
    held = {canonical(name, model.config.model_type): p for name, p in model.named_parameters()}
    changes = [row for row in plan.rows if row.changed]
    if not changes:
        raise UsageError("the graft is empty", why="the plan takes nothing from a donor")
    for row in changes:
        if row.key not in held or tuple(held[row.key].shape) != row.target.shape:
            raise UsageError(
                f"the model has no fitting {row.key}", fix="graft onto the base of the plan"
            )
    kept: dict[str, torch.Tensor] = {}
    try:
        for row in changes:
            parameter = held[row.key]
            value = _value(row, parameter, donated)
            kept[row.key] = parameter.data
            parameter.data = value
        yield len(changes)
    finally:
        for key, own in kept.items():
            held[key].data = own


def _value(row: Row, like: torch.Tensor, donated: Values | None) -> torch.Tensor:
    """What a row makes, rounded to the type it has on disk, then in the type and place of the
    model's parameter.
    """
    if row.copied is None:
        values = torch.frombuffer(computed(row), dtype=DTYPES[row.target.dtype])
        return values.reshape(row.target.shape).to(like)
    entry = row.copied
    source = f"{entry.file}:{entry.name}"
    if donated is not None and source in donated:
        return donated[source]
    value = read_tensor(entry).to(device=like.device, dtype=like.dtype)
    if donated is not None:
        donated[source] = value
    return value
