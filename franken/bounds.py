"""Bounds of what comes from outside, by name, for any verb: `--bound prompt_tokens=4096`.

What exceeds one is that row's error, which says the bound's name and value. A run is known by the
bounds that were changed. Worker processes learn of them from the environment variable
FRANKEN_BOUNDS. The bounds of a table's rows (characters, images, pixels, aspect) belong to its
column map, see `franken.tasks.layouts`.
"""

import math
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

from franken.errors import UsageError, check_known

VARIABLE = "FRANKEN_BOUNDS"


@dataclass(frozen=True)
class Bound:
    """What a bound is unless it is given, and what it bounds."""

    default: float
    about: str


BOUNDS = {
    "prompt_tokens": Bound(32_768, "tokens of a prompt, images included"),
    "answer_seconds": Bound(300, "time of one answer of an endpoint, from request to last byte"),
    "reply_mib": Bound(64, "size of one answer of an endpoint, unpacked"),
    "grader_seconds": Bound(0.7, "processor time to compare one answer by computer algebra"),
}


def limit(name: str) -> float:
    """The bound of this name, as given or by default."""
    return _given().get(name, BOUNDS[name].default)


def said(name: str) -> str:
    """The bound as an error names it: `prompt_tokens=32768`."""
    return f"{name}={limit(name):g}"


def identity() -> dict[str, dict[str, float]]:
    """What a run is known by: the bounds that are not the default ones."""
    changed = {n: v for n, v in sorted(_given().items()) if v != BOUNDS[n].default}
    return {"bounds": changed} if changed else {}


@contextmanager
def bounded(pairs: Sequence[str]) -> Iterator[None]:
    """Use the bounds `NAME=NUMBER` inside the block. Raises UsageError for what is none."""
    before = os.environ.get(VARIABLE)
    try:
        if pairs:
            os.environ[VARIABLE] = ",".join(filter(None, (before, *pairs)))
        _given()
        yield
    finally:
        os.environ.pop(VARIABLE, None)
        if before is not None:
            os.environ[VARIABLE] = before


def _given() -> dict[str, float]:
    """The bounds of the environment variable. Raises UsageError."""
    pairs = [pair for pair in os.environ.get(VARIABLE, "").split(",") if pair.strip()]
    return dict(_pair(pair) for pair in pairs)


def _pair(text: str) -> tuple[str, float]:
    name, _, number = (part.strip() for part in text.partition("="))
    check_known("bound", [name], BOUNDS)
    try:
        value = float(number)
    except ValueError:
        value = math.nan
    if not 0 < value < math.inf:
        why = f"a bound is a positive number ({BOUNDS[name].about})"
        raise UsageError(f"--bound {text} is none", why, f"write --bound {said_default(name)}")
    return name, value


def said_default(name: str) -> str:
    """The default bound as it is written."""
    return f"{name}={BOUNDS[name].default:g}"
