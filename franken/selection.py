"""Which tensors a word means: `vision`, `projector`, `text`, `embed`, `head`, `norm`, `text:0-3`,
`early`, or `re:PATTERN`.

`.attn`, `.mlp` or `.norm` after a part or range means that component of it: `text.attn`,
`text:0-3.mlp`. The one grammar for
freezing layers and for checking that they stayed frozen. A pattern is searched in canonical names.
"""

import re
from collections.abc import Mapping, Sequence

from franken.errors import UsageError, did_you_mean
from franken.layers import PARTS, THIRDS, parse_ranges
from franken.names import Place, depths_of

LOOSE = ("embed", "head", "norm")  # the text tensors outside of the layers
WORDS = (*PARTS, *LOOSE)
RANGES = (*THIRDS, "all")
_COMPONENT = re.compile(r"(.+)\.(attn|mlp|norm)")


def select(
    specs: Sequence[str], places: Mapping[str, Place], *, option: str, why: str = ""
) -> set[str]:
    """Canonical names of the tensors that any of `specs` means.

    `places` has the model's tensors by canonical name. Raises UsageError for a spec that matches
    nothing, saying `why` if that is
    known: what is silently ignored is the worst outcome. `option` is how the command line calls it.
    """
    depths = depths_of(places.values())
    chosen: set[str] = set()
    for spec in specs:
        if spec.isalpha() and spec not in (*WORDS, *RANGES):
            known = (*WORDS, *RANGES)
            raise UsageError(
                f"unknown part {spec!r} in {option}",
                why=f"the words are {', '.join(known)}",
                fix=did_you_mean(spec, known)
                or "give a layer range such as text:0-3, or re:PATTERN",
            )
        found = {key for key, spot in places.items() if _means(spec, key, spot, depths)}
        if not found:
            raise UsageError(
                f"{option} {spec} matches nothing",
                why=why or "no tensor of this model is there",
                fix=f"use {', '.join(WORDS)}, a layer range such as text:0-3, a component such as text.attn, or re:PATTERN",
            )
        chosen |= found
    return chosen


def _means(spec: str, key: str, spot: Place, depths: Mapping[str, int]) -> bool:
    if spec.startswith("re:"):
        return re.search(spec.removeprefix("re:"), key) is not None
    if narrowed := _COMPONENT.fullmatch(spec):
        return spot.component == narrowed[2] and _means(narrowed[1], key, spot, depths)
    if spec in PARTS:
        return spot.part == spec
    if spec in LOOSE:
        return spot.part == "text" and spot.layer is None and spot.component == spec
    return any(spot.part == r.part and spot.layer in r.layers for r in parse_ranges(spec, depths))
