"""Virtual hybrids: swap layers of a model in memory, and put them back bit for bit."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from safetensors import safe_open

from franken.checkpoints import Checkpoint
from franken.errors import UsageError
from franken.layers import LayerRange
from franken.names import canonical, place


@contextmanager
def graft(model: Any, donor: Checkpoint, ranges: Sequence[LayerRange]) -> Iterator[int]:
    """While the context lasts, the named layers hold the donor's weights. Yields how many tensors were swapped.

    The model's own are kept on its device and come back bit-identical, also after an exception.
    """
    chosen = {(r.part, layer) for r in ranges for layer in r.layers}
    model_type = model.config.model_type
    targets = {}
    for name, parameter in model.named_parameters():
        spot = place(name, model_type)
        if (spot.part, spot.layer) in chosen:
            targets[canonical(name, model_type)] = parameter
    if not targets:
        raise UsageError("the graft is empty", why=f"no tensor lies in {', '.join(map(str, ranges))}")
    for key, parameter in targets.items():
        entry = donor.tensors.get(key)
        if entry is None or entry.shape != tuple(parameter.shape):
            raise UsageError(f"{donor.name} has no fitting {key}", fix="graft between checkpoints of one architecture")
    kept = {key: parameter.detach().clone() for key, parameter in targets.items()}
    try:
        with torch.no_grad():
            for key, parameter in targets.items():
                entry = donor.tensors[key]
                with safe_open(str(entry.file), framework="pt") as opened:
                    parameter.copy_(opened.get_tensor(entry.name))
        yield len(targets)
    finally:
        with torch.no_grad():
            for key, parameter in targets.items():
                parameter.copy_(kept[key])
