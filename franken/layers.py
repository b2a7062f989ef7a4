"""Layer ranges: 0-based, half-open, as in Python and mergekit. The one place that parses, checks
and prints them.

`16-28` is layers 16..27 of the text decoder; `vision:0-8` names another part; `early`, `middle`,
`late` are thirds; `all` is
everything; commas join. No torch here.
"""

import re
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from typing import Any

from franken.errors import UsageError, did_you_mean

PARTS = ("vision", "projector", "text")
COMPONENTS = ("attn", "mlp", "norm", "embed", "head", "patch")
THIRDS = ("early", "middle", "late")
_SPAN = re.compile(r"(\d+)(?:[-:](\d+))?")


@dataclass(frozen=True)
class LayerRange:
    """Layers `start` … `stop - 1` of a part."""

    part: str
    start: int
    stop: int

    @property
    def layers(self) -> range:
        """The layer indices."""
        return range(self.start, self.stop)

    def __len__(self) -> int:
        return self.stop - self.start

    def __str__(self) -> str:
        return f"{self.part}:{self.start}-{self.stop}"

    def to_dict(self) -> dict[str, Any]:
        """As stored in files."""
        return asdict(self)

    @classmethod
    def from_dict(cls, stored: Mapping[str, Any]) -> "LayerRange":
        """The inverse of `to_dict`."""
        return cls(stored["part"], stored["start"], stored["stop"])


def thirds(depth: int) -> dict[str, tuple[int, int]]:
    """`early` [0, L//3), `middle` [L//3, 2L//3), `late` [2L//3, L)."""
    one, two = depth // 3, 2 * depth // 3
    return {"early": (0, one), "middle": (one, two), "late": (two, depth)}


def neighbours(layers: Iterable[int]) -> list[tuple[int, int]]:
    """Runs of neighbouring layers, both ends included: [0, 1, 2, 5] → [(0, 2), (5, 5)]."""
    found: list[tuple[int, int]] = []
    for layer in sorted(layers):
        if found and layer == found[-1][1] + 1:
            found[-1] = (found[-1][0], layer)
        else:
            found.append((layer, layer))
    return found


def spelled(layers: Iterable[int], dash: str = "..") -> str:
    """Layers for people, last ones included: `0..2, 5`."""
    return ", ".join(str(a) if a == b else f"{a}{dash}{b}" for a, b in neighbours(layers))


def parse_ranges(
    text: str, depths: Mapping[str, int], default_part: str = "text"
) -> tuple[LayerRange, ...]:
    """Read `16-28`, `text:16-28`, `early`, `vision:all`, `3`, or several with commas.

    `depths` is the model's number of layers by part. Raises UsageError, naming the depth, for
    anything that is empty, past
    the end, or of a part that the model lacks.
    """
    return tuple(_parse_one(piece.strip(), depths, default_part) for piece in text.split(","))


def describe_range(layers: LayerRange, depth: int) -> str:
    """`text layers 16..27 (12 of 28)`."""
    return f"{layers.part} layers {layers.start}..{layers.stop - 1} ({len(layers)} of {depth})"


def _parse_one(piece: str, depths: Mapping[str, int], part: str) -> LayerRange:
    named, colon, rest = piece.partition(":")
    if colon and not named.isdigit():
        if named not in PARTS:
            raise UsageError(
                f"unknown part {named!r} in {piece!r}",
                why=f"the parts are {', '.join(PARTS)}",
                fix=did_you_mean(named, PARTS) or "write for example text:16-28",
            )
        part, piece = named, rest
    depth = depths.get(part, 0)
    if not depth:
        having = ", ".join(f"{p} ({n} layers)" for p, n in depths.items() if n)
        raise UsageError(
            f"this model has no {part} layers", why=f"it has {having}", fix="name another part"
        )
    if piece == "all":
        return LayerRange(part, 0, depth)
    if piece in THIRDS:
        return LayerRange(part, *thirds(depth)[piece])
    found = _SPAN.fullmatch(piece)
    if not found:
        raise UsageError(
            f"cannot read the layer range {piece!r}",
            why="a range is 16-28, 16:28, a single layer, early, middle, late or all",
            fix=did_you_mean(piece, (*THIRDS, "all"))
            or f"this model's {part} has layers 0..{depth - 1}",
        )
    start = int(found[1])
    stop = int(found[2]) if found[2] else start + 1
    return _checked(LayerRange(part, start, stop), depth)


def _checked(layers: LayerRange, depth: int) -> LayerRange:
    if layers.start >= layers.stop:
        raise UsageError(
            f"the layer range {layers} is empty",
            why="ranges are half-open: the stop is not included",
            fix=f"did you mean {layers.start}-{layers.start + 1}?",
        )
    if layers.stop > depth:
        raise UsageError(
            f"the layer range {layers} goes past the end",
            why=f"the {layers.part} has {depth} layers, 0..{depth - 1}",
            fix=f"did you mean {min(layers.start, depth - 1)}-{depth}?",
        )
    return layers
