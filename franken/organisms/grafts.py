"""RL's update in one known place only: `before` with `strength` times the update of some tensors.

`layer:3`, `layers:2-5`, `early`, `middle`, `late`: text layers, as `--layers` has them. `attn`,
`mlp`, `norms`: one component of all text layers. `embed`, `head`, `vision`, `projector`: what lies
outside of them. `heads:3.1` is head 1 of layer 3: its rows of the query projection and its columns
of the output projection, and its rows of keys and values where no other head reads those.
"""

import re
from collections.abc import Callable

import numpy as np
from jaxtyping import Bool
from numpy import ndarray

from franken.checkpoints import Checkpoint, TensorEntry
from franken.errors import UsageError
from franken.layers import parse_ranges
from franken.names import Place

THIRDS = ("early", "middle", "late")
COMPONENTS = {"attn": "attn", "mlp": "mlp", "norms": "norm"}
OUTSIDE = ("embed", "head", "vision", "projector")
WHERE = ("layer:N", "layers:A-B", *THIRDS, *COMPONENTS, *OUTSIDE, "heads:LAYER.HEAD")
_HEAD = re.compile(r"heads:(\d{1,4})\.(\d{1,4})")

Mask = Bool[ndarray, "..."] | bool


def chosen(source: Checkpoint, where: str) -> Callable[[TensorEntry], Mask]:
    """Which elements of a tensor belong to a place, by its name. Raises UsageError for a place that
    the checkpoint has not.
    """
    if head := _HEAD.fullmatch(where):
        return _head(source, int(head[1]), int(head[2]))
    if where in COMPONENTS:
        component = COMPONENTS[where]
        return lambda entry: _in_layers(entry.place) and entry.place.component == component
    if where in OUTSIDE:
        return _outside(source, where)
    ranges = parse_ranges(re.sub(r"^layers?:", "", where), source.depths)
    layers = {(r.part, i) for r in ranges for i in r.layers}
    return lambda entry: (entry.place.part, entry.place.layer) in layers


def _outside(source: Checkpoint, where: str) -> Callable[[TensorEntry], Mask]:
    def mask(entry: TensorEntry) -> Mask:
        own, component = entry.place.part, entry.place.component
        return own == where or (own == "text" and component == where)

    if not any(mask(entry) for entry in source.tensors.values()):
        why = "embeddings and head are one tensor" if where == "head" else "it has no such part"
        raise UsageError(f"{source.name} has no {where}", why, "choose another place")
    return mask


def _in_layers(place: Place) -> bool:
    return place.part == "text" and place.layer is not None


def _head(source: Checkpoint, layer: int, head: int) -> Callable[[TensorEntry], Mask]:
    text = source.settings.text
    heads = text.num_attention_heads or 0
    alone = (text.num_key_value_heads or heads) == heads
    if layer >= source.depths["text"] or head >= heads:
        raise UsageError(
            f"{source.name} has no head {layer}.{head}",
            f"it has {source.depths['text']} text layers of {heads} heads",
            "count both from 0",
        )
    rows = ("q_proj", "k_proj", "v_proj") if alone else ("q_proj",)

    def mask(entry: TensorEntry) -> Mask:
        if not _in_layers(entry.place) or entry.place.layer != layer:
            return False
        module, _, kind = entry.canonical.rpartition(".")
        name = module.rpartition(".")[2]
        if name not in (*rows, "o_proj") or (name == "o_proj" and kind == "bias"):
            return False
        axis = len(entry.shape) - 1 if name == "o_proj" else 0
        width = entry.shape[axis] // heads
        own = np.zeros(entry.shape[axis], bool)
        own[head * width : (head + 1) * width] = True
        shape = [1] * len(entry.shape)
        shape[axis] = -1
        return np.broadcast_to(own.reshape(shape), entry.shape)

    return mask
