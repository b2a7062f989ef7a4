"""Layer ranges: 0-based, half-open, as in Python and mergekit. The one place that parses, checks
and prints them.

Two written forms, never mixed. The command line (and every label and file that repeats it) is
half-open: `16-28` is layers 16 to 27 of the text decoder; `vision:0-8` names another part; `early`,
`middle`, `late` are thirds; `all` is everything; commas join. People read `16..27`, the last layer
included. No torch here.
"""

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import TypedDict

from franken.errors import UsageError, check_known, did_you_mean

PARTS = ("vision", "projector", "text")
COMPONENTS = ("attn", "mlp", "router", "norm", "embed", "head", "patch")
THIRDS = ("early", "middle", "late")
_SPAN = re.compile(r"([0-9]{1,9})(?:[-:]([0-9]{1,9}))?")


class StoredRange(TypedDict):
    """A range as files have it."""

    part: str
    start: int
    stop: int


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
        """As the command line writes it: `text:16-28`."""
        return f"{self.part}:{self.start}-{self.stop}"

    def to_dict(self) -> StoredRange:
        """As stored in files."""
        return {"part": self.part, "start": self.start, "stop": self.stop}


def thirds(depth: int) -> dict[str, tuple[int, int]]:
    """`early` [0, L//3), `middle` [L//3, 2L//3), `late` [2L//3, L)."""
    one, two = depth // 3, 2 * depth // 3
    return {"early": (0, one), "middle": (one, two), "late": (two, depth)}


def contiguous(layers: Iterable[int]) -> list[range]:
    """Maximal runs of neighbouring layers, ascending: [0, 1, 2, 5] → [range(0, 3), range(5, 6)]."""
    runs: list[range] = []
    for layer in sorted(set(layers)):
        if runs and layer == runs[-1].stop:
            runs[-1] = range(runs[-1].start, layer + 1)
        else:
            runs.append(range(layer, layer + 1))
    return runs


def format_layers(layers: Iterable[int]) -> str:
    """Layers for people, last ones included: `0..2, 5`."""
    return ", ".join(str(r[0]) if len(r) == 1 else f"{r[0]}..{r[-1]}" for r in contiguous(layers))


def name_layers(layers: Iterable[int]) -> str:
    """Layers in a sentence: `layer 5`, `layers 0..2, 5`."""
    chosen = list(layers)
    return f"{'layer' if len(chosen) == 1 else 'layers'} {format_layers(chosen)}"


def option_of(layers: Iterable[int], part: str = "text") -> str:
    """Layers as the command line reads them, half-open: `text:0-3,text:5-6`."""
    return ",".join(str(LayerRange(part, r.start, r.stop)) for r in contiguous(layers))


def parse_ranges(
    text: str, depths: Mapping[str, int], default_part: str = "text"
) -> tuple[LayerRange, ...]:
    """Read `16-28`, `text:16-28`, `early`, `vision:all`, `3`, or several with commas.

    `depths` is the model's number of layers by part. Raises UsageError, naming the depth, for
    anything that is empty, past the end, or of a part that the model lacks.
    """
    return tuple(_parse_one(piece.strip(), depths, default_part) for piece in text.split(","))


def describe_range(layers: LayerRange, depth: int) -> str:
    """`text layers 16..27 (12 of 28)`."""
    return f"{layers.part} {name_layers(layers.layers)} ({len(layers)} of {depth})"


def _parse_one(piece: str, depths: Mapping[str, int], part: str) -> LayerRange:
    named, colon, rest = piece.partition(":")
    if colon and not named.isdigit():
        check_known("part", [named], PARTS, fix="write for example text:16-28")
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
    span = _SPAN.fullmatch(piece)
    if not span:
        raise UsageError(
            f"cannot read the layer range {piece[:80]!r}",
            why="a range is 16-28, 16:28, a single layer, early, middle, late or all",
            fix=did_you_mean(piece, (*THIRDS, "all"))
            or f"this model's {part} has layers 0..{depth - 1}",
        )
    start = int(span[1])
    return _checked(LayerRange(part, start, int(span[2]) if span[2] else start + 1), depth)


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
