"""Mixtures of experts: their matrices one by one, however a file holds them.

A layer's experts are on disk as a matrix each, `experts.7.gate_proj.weight`, or fused over all of
them: `experts.gate_up_proj [E, 2I, H]` and `experts.down_proj [E, H, I]`, the form that they have
in memory; Qwen3-VL-MoE was published with the last two axes exchanged. `matrices` cuts what is
fused into ranges of bytes, by the names of the first form, so that whatever reads a tensor reads an
expert; nothing is copied. Where the axes are exchanged gate and up lie between each other, and stay
one matrix an expert, `experts.7.gate_up_proj`. Which way they lie follows from the decoder's width.

`Slot` says where in memory a matrix of the first form is.
"""

import re
from collections.abc import Iterator, Mapping
from dataclasses import Field, dataclass, replace
from typing import TYPE_CHECKING, Any, ClassVar, Protocol, TypeVar

from franken.errors import FrankenError
from franken.names import Place

if TYPE_CHECKING:
    from torch import Tensor


class Stored(Protocol):
    """What is asked of a tensor here; a dataclass."""

    __dataclass_fields__: ClassVar[dict[str, Field[Any]]]

    @property
    def shape(self) -> tuple[int, ...]: ...  # noqa: D102
    @property
    def start(self) -> int: ...  # noqa: D102
    @property
    def nbytes(self) -> int: ...  # noqa: D102
    @property
    def place(self) -> Place: ...  # noqa: D102


Entry = TypeVar("Entry", bound=Stored)

_FUSED = re.compile(r"(.*\.experts)\.(gate_up_proj|down_proj)")
_SINGLE = re.compile(
    r"(.*\.experts)\.(0|[1-9][0-9]{0,3})\.(gate|up|gate_up|down)_proj(?:\.weight)?"
)
ROUTER = re.compile(r"text\.layers\.(0|[1-9][0-9]{0,3})\.mlp\.gate\.weight")


def matrices(
    tensors: Mapping[str, Entry], width: int | None, updated: Mapping[str, object]
) -> dict[str, Entry]:
    """The tensors of a checkpoint with the fused ones cut into experts, by canonical name. `width`
    is the decoder's, `updated` what an adapter changes.

    Raises FrankenError for an adapter on fused experts.
    """
    cut: dict[str, Entry] = {}
    for key, entry in tensors.items():
        match = _FUSED.fullmatch(key)
        if match is None or len(entry.shape) != 3:
            cut[key] = entry
            continue
        if key in updated:
            raise FrankenError(
                f"an adapter changes the fused experts {key}",
                why="which expert its product belongs to is not known here",
                fix="merge it first: franken merge BASE ADAPTER --layers all",
            )
        cut |= _experts(entry, match[1], match[2], width)
    return cut


def _experts(
    entry: Entry, prefix: str, name: str, width: int | None
) -> Iterator[tuple[str, Entry]]:
    """The matrices of one fused tensor."""
    experts, rows, columns = entry.shape
    split = name == "gate_up_proj" and columns == width and rows % 2 == 0
    pieces = ("gate_proj", "up_proj") if split else (name,)
    plain = split or (name == "down_proj" and rows == width)
    shape = (rows // len(pieces), columns)
    size = entry.nbytes // (experts * len(pieces))
    for number in range(experts):
        for at, piece in enumerate(pieces):
            key = f"{prefix}.{number}.{piece}{'.weight' if plain else ''}"
            start = entry.start + (number * len(pieces) + at) * size
            place = Place(entry.place.part, entry.place.layer, entry.place.component, number)
            yield (
                key,
                replace(
                    entry, canonical=key, shape=shape, start=start, stop=start + size, place=place
                ),
            )


@dataclass(frozen=True)
class Slot:
    """Where a matrix is in memory: `piece` (gate, up, down, or gate_up) of an expert in the fused
    parameter `fused`.
    """

    fused: str
    expert: int
    piece: str

    def of(self, parameter: "Tensor") -> "Tensor":
        """The part of the fused parameter, a view."""
        whole = parameter[self.expert]
        if self.piece not in ("gate", "up"):
            return whole
        gate, up = whole.chunk(2)
        return gate if self.piece == "gate" else up


def slot_of(key: str) -> Slot | None:
    """The place in memory of one expert's matrix; None for any other canonical name."""
    match = _SINGLE.fullmatch(key)
    if match is None:
        return None
    fused = "down_proj" if match[3] == "down" else "gate_up_proj"
    return Slot(f"{match[1]}.{fused}", int(match[2]), match[3])
