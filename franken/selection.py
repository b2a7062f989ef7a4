"""Which tensors a word means: `vision`, `projector`, `text`, `embed`, `head`, `norm`, `text:0-3`,
`early`, or `re:PATTERN`.

`.attn`, `.mlp` or `.norm` after a part or range means that component of it: `text.attn`,
`text:0-3.mlp`. The one grammar for freezing layers and for checking that they stayed frozen. A
pattern is searched in canonical names, for a second in all: one that backtracks without end is
refused.
"""

import math
import re
import time
from collections.abc import Mapping, Sequence

import regex

from franken.errors import UsageError, did_you_mean
from franken.layers import PARTS, THIRDS, parse_ranges
from franken.names import Place, depths_of

LOOSE = ("embed", "head", "norm")  # the text tensors outside of the layers
WORDS = (*PARTS, *LOOSE)
RANGES = (*THIRDS, "all")
PATTERN, LONGEST, REPEATS, SECONDS = "re:", 1000, 10_000, 1.0
_COMPONENT = re.compile(r"(.+)\.(attn|mlp|norm)")


def select(
    specs: Sequence[str], places: Mapping[str, Place], *, option: str, why: str = ""
) -> set[str]:
    """Canonical names of the tensors that any of `specs` means.

    `places` has the model's tensors by canonical name. Raises UsageError for a spec that matches
    nothing, saying `why` if that is known: what is silently ignored is the worst outcome. `option`
    is how the command line calls it.
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
        if check_pattern(spec):
            found = _matching(spec, places)
        else:
            found = {key for key, spot in places.items() if _means(spec, key, spot, depths)}
        if not found:
            raise UsageError(
                f"{option} {spec} matches nothing",
                why=why or "no tensor of this model is there",
                fix=f"use {', '.join(WORDS)}, a layer range such as text:0-3, a component such as "
                "text.attn, or re:PATTERN",
            )
        chosen |= found
    return chosen


def check_pattern(spec: str) -> bool:
    """Whether a spec is a pattern. Raises UsageError for one that is too long or does not
    compile.
    """
    if not spec.startswith(PATTERN):
        return False
    try:
        if len(spec) > LONGEST:
            raise ValueError(f"it is longer than {LONGEST} characters")
        counts = [int(n[:9]) for n in re.findall(r"\d+(?=,?\})", spec)]
        if math.prod(max(n, 1) for n in counts) > REPEATS:
            raise ValueError(f"it repeats more than {REPEATS} times")
        _compiled(spec)
    except (re.error, regex.error, ValueError, OverflowError, RecursionError) as e:
        why = str(e) or "it is nested too deep"
        raise UsageError(
            f"{spec[:80]} is no pattern", why, "write re:PATTERN as Python does"
        ) from e
    return True


def _compiled(spec: str) -> "regex.Pattern[str]":
    re.compile(spec.removeprefix(PATTERN))  # the syntax is that of Python's own module
    return regex.compile(spec.removeprefix(PATTERN))


def _matching(spec: str, places: Mapping[str, Place]) -> set[str]:
    """The names that a pattern is found in. Raises UsageError when it takes longer than a
    second.
    """
    pattern, end = _compiled(spec), time.monotonic() + SECONDS
    try:
        return {
            key for key in places if pattern.search(key, timeout=max(end - time.monotonic(), 0.001))
        }
    except TimeoutError as e:
        why = f"it was not through the names of the tensors after {SECONDS:g} s"
        raise UsageError(f"{spec[:80]} takes too long", why, "write a simpler pattern") from e


def _means(spec: str, key: str, spot: Place, depths: Mapping[str, int]) -> bool:
    if narrowed := _COMPONENT.fullmatch(spec):
        return spot.component == narrowed[2] and _means(narrowed[1], key, spot, depths)
    if spec in PARTS:
        return spot.part == spec
    if spec in LOOSE:
        return spot.part == "text" and spot.layer is None and spot.component == spec
    return any(spot.part == r.part and spot.layer in r.layers for r in parse_ranges(spec, depths))
