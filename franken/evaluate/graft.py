"""A hybrid that is evaluated in memory, and how the command line writes it:
`LABEL=DONOR:16-28`, after each further `+` another `DONOR:RANGES`.
"""

import re
from dataclasses import dataclass

from franken.errors import UsageError
from franken.layers import PARTS

_RANGE = rf"(?:(?:{'|'.join(PARTS)}):)?(?:[0-9]{{1,9}}(?:[-:][0-9]{{1,9}})?|early|middle|late|all)"
_PIECE = re.compile(rf"(.+?):({_RANGE}(?:,{_RANGE})*)(?:\+|$)")  # a donor may hold : and + itself


@dataclass(frozen=True)
class Graft:
    """A hybrid: `layers` (as on the command line, `text:2-5,text:6-8`) of a model come from
    `donor`.

    With `take` also whole pieces outside of the layers (`vision`, `embed`, …), as `franken merge
    --take` has them. `more` are further donors with their layers; no layer may come from two.
    """

    label: str
    donor: str
    layers: str
    take: tuple[str, ...] = ()
    more: tuple[tuple[str, str], ...] = ()
    keep: str = ""
    drop: str = ""
    components: tuple[str, ...] = ()
    draw: int = 0

    @property
    def parts(self) -> tuple[tuple[str, str], ...]:
        """Every (donor, layers)."""
        return ((self.donor, self.layers), *self.more)


def parse_graft(text: str) -> Graft:
    """Read `LABEL=DONOR:RANGES[+DONOR:RANGES…]`; ranges without a part are of the text decoder.
    Raises UsageError.
    """
    label, equals, rest = text.partition("=")
    pieces, at = [], 0
    while at < len(rest) and (piece := _PIECE.match(rest, at)):
        donor, ranges = piece[1], piece[2]
        pieces.append((donor, ranges if ranges.startswith(PARTS) else f"text:{ranges}"))
        at = piece.end()
    if not label or not equals or not pieces or at < len(rest) or rest.endswith("+"):
        raise UsageError(
            f"cannot read the hybrid {text!r}",
            why="it is a name, and whose layers go where",
            fix="write LABEL=DONOR:RANGES, as mine=runs/rl:0-4+runs/other-rl:8-12",
        )
    (donor, ranges), *more = pieces
    return Graft(label, donor, ranges, more=tuple(more))
