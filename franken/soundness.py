"""Whether the tensors of a checkpoint fit each other and its configuration: what a single header
cannot say of itself.

A header may state any shape whose size fits. Layers must be those that the configuration counts,
none missing. A shape is called wrong where it has the right number of elements in another order
(permuted, flattened): no training leaves that. A tensor of another size is another model's, which
the verbs name one by one.
"""

import math
import re
from collections import Counter
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Protocol

from franken.configs import ModelConfig
from franken.errors import FrankenError
from franken.names import Place

Shape = tuple[int, ...]


class Entry(Protocol):
    """What is asked of a tensor here."""

    @property
    def shape(self) -> Shape: ...  # noqa: D102
    @property
    def place(self) -> Place: ...  # noqa: D102


def check_layers(folder: Path, places: Iterable[Place], config: ModelConfig) -> None:
    """Raises FrankenError unless every part has the layers 0 … depth − 1 of the configuration."""
    layers: dict[str, set[int]] = {}
    for place in places:
        if place.layer is not None:
            layers.setdefault(place.part, set()).add(place.layer)
    for part, numbers in layers.items():
        stated = config.depths.get(part)
        depth = max(numbers) + 1 if stated is None else stated
        if len(numbers) == depth == max(numbers) + 1:
            continue
        absent = next((i for i in range(depth) if i not in numbers), None)
        if max(numbers) >= depth:
            why = f"there is a layer {max(numbers)}, and config.json counts {depth}"
        else:
            why = f"layer {absent} of {depth} has no tensors"
        raise FrankenError(
            f"the {part} layers of {folder} are not those of a model",
            why=why,
            fix="fetch the checkpoint again, or correct its config.json",
        )


def check_shapes(folder: Path, tensors: Mapping[str, Entry], config: ModelConfig) -> None:
    """Raises FrankenError for a shape that is permuted or flattened: against the same tensor of
    other layers, its own bias, and the sizes that the configuration states.
    """
    usual: dict[str, Counter[Shape]] = {}
    for key, entry in tensors.items():
        if entry.place.layer is not None:
            usual.setdefault(_in_any_layer(key), Counter())[entry.shape] += 1
    for key, entry in tensors.items():
        expected = _stated(key, config)
        if expected is None and entry.place.layer is not None:
            expected = usual[_in_any_layer(key)].most_common(1)[0][0]
        if expected is not None and rearranged(entry.shape, expected):
            raise _wrong(folder, key, entry.shape, f"it should be {list(expected)}")
        bias = tensors.get(key.removesuffix(".weight") + ".bias")
        if key.endswith(".weight") and bias is not None and entry.shape[:1] != bias.shape:
            raise _wrong(folder, key, entry.shape, f"its bias has {list(bias.shape)}")


def check_agreement(key: str, shapes: Mapping[str, Shape]) -> None:
    """Raises FrankenError where checkpoints, by name, hold a tensor in shapes of which one is
    another's, permuted or flattened.
    """
    one, *others = shapes.values()
    if any(rearranged(one, other) for other in others):
        told = ", ".join(f"{list(shape)} in {name}" for name, shape in shapes.items())
        raise FrankenError(
            f"the shapes of {key} contradict each other",
            why=f"{told}: as many elements in another order, which no training makes",
            fix="one of the headers is wrong: fetch that checkpoint again",
        )


def rearranged(one: Shape, other: Shape) -> bool:
    """Whether two shapes hold as many elements, in another order."""
    return one != other and math.prod(one) == math.prod(other)


def _in_any_layer(key: str) -> str:
    return re.sub(r"\.[0-9]+\.", ".*.", key, count=1)


def _stated(key: str, config: ModelConfig) -> Shape | None:
    """The shape that the configuration gives a tensor of the decoder; None where it is silent."""
    text = config.text
    width, inner, heads = text.hidden_size, text.intermediate_size, text.num_attention_heads
    if not key.startswith("text.") or not width or not heads:
        return None
    head = text.head_dim or width // heads
    shared = text.num_key_value_heads or heads
    name = key.removeprefix("text.").removesuffix(".weight")
    module = name.rpartition(".")[2]
    shapes: dict[str, tuple[int | None, ...]] = {
        "embed_tokens": (text.vocab_size, width),
        "lm_head": (text.vocab_size, width),
        "norm": (width,),
        "gate_proj": (inner, width),
        "up_proj": (inner, width),
        "down_proj": (width, inner),
        "q_proj": (heads * head, width),
        "k_proj": (shared * head, width),
        "v_proj": (shared * head, width),
        "o_proj": (width, heads * head),
    }
    stated = shapes.get(module, (None,))
    shape = tuple(n for n in stated if n)
    return shape if len(shape) == len(stated) and key.endswith(".weight") else None


def _wrong(folder: Path, key: str, shape: Shape, why: str) -> FrankenError:
    return FrankenError(
        f"{key} of {folder} has the shape {list(shape)}",
        why=why,
        fix="the header is wrong: fetch the file again",
    )
