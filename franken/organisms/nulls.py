"""Pairs in which nothing has changed that a user could see: on them every verdict of change is
false.

`same`, the same weights. `rounded`, the same weights in bf16 and back, as a checkpoint that was
saved in another type. `symmetric`, other weights and the same function (franken.organisms.
symmetries). `noise`, for every tensor a random update as long as RL's: as far away, with nothing
learned; it does change answers, for the worse.
"""

import zlib
from collections.abc import Callable

import numpy as np
from jaxtyping import Float
from numpy import ndarray

from franken.checkpoints import Checkpoint, TensorEntry, read_array
from franken.organisms import symmetries

Update = Callable[[TensorEntry], Float[ndarray, "..."]]


def rounded(entry: TensorEntry) -> Float[ndarray, "..."] | None:
    """The nearest bf16 values (ties to even); None where they are stored in 16 bits already."""
    if entry.dtype not in ("F32", "F64"):
        return None
    bits = read_array(entry).astype(np.float32).view(np.uint32)
    kept = (bits + 0x7FFF + (bits >> 16 & 1)) & np.uint32(0xFFFF0000)
    return kept.view(np.float32)


def symmetric(
    source: Checkpoint, entry: TensorEntry, seed: int, strength: float
) -> Float[ndarray, "..."] | None:
    """A tensor under its layer's symmetries, in a `strength` share of the layers."""
    layer = entry.place.layer
    if entry.place.part != "text" or layer not in moved_layers(source, seed, strength):
        return None
    return symmetries.moved(source, entry, seed)


def moved_layers(source: Checkpoint, seed: int, strength: float) -> list[int]:
    """The layers whose weights `symmetric` changes, at least one."""
    depth = source.depths["text"]
    order = np.random.default_rng([seed, 2]).permutation(depth)
    return sorted(order[: max(1, round(strength * depth))].tolist())


def noise(
    entry: TensorEntry, update: Update, seed: int, strength: float
) -> Float[ndarray, "..."] | None:
    """The tensor plus noise of `strength` times the norm of its update; None where it has none."""
    length = np.linalg.norm(update(entry))
    if length == 0:
        return None
    rng = np.random.default_rng([seed, zlib.crc32(entry.canonical.encode())])
    drawn = rng.standard_normal(entry.shape)
    return read_array(entry) + strength * length / np.linalg.norm(drawn) * drawn
