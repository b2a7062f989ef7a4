"""What a cell of a table may hold, read as text or refused: a structure is never printed.

A column is named by itself or by a path into it: `reward_model.ground_truth`.
"""

import json
import math
import re
from collections.abc import Mapping
from decimal import Decimal

from franken.errors import FrankenError

DEEPEST = 64
CONTROL = re.compile(r"<\|[A-Za-z_]{2,40}\|>|<(?:start|end)_of_(?:turn|image)>|<image_soft_token>")
UNPRINTABLE = re.compile("[\0\ud800-\udfff]")


def at(row: Mapping[str, object], name: str) -> object:
    """The value of a column, or of a path into one; None where there is none. A struct may be
    written as JSON.
    """
    if name in row:
        return row[name]
    head, dot, rest = name.partition(".")
    inner = row.get(head) if dot else None
    if isinstance(inner, str) and inner.lstrip().startswith("{"):
        inner = from_json(inner)
    return at(inner, rest) if isinstance(inner, Mapping) else None


def first(row: Mapping[str, object], names: str) -> object:
    """The value of the first of several columns (`solution|answer`) that has one."""
    return next((v for n in names.split("|") if n and not is_missing(v := at(row, n))), None)


def is_missing(value: object) -> bool:
    """None and what is not a number; an empty text is a value."""
    return value is None or (isinstance(value, float) and math.isnan(value))


def text_of(value: object, what: str, longest: int, bound: str = "max_characters=") -> str:
    """A cell as text. Raises FrankenError, which says `what`, where it holds something else, and
    the `bound` where it is longer.
    """
    if is_missing(value):
        return ""
    if isinstance(value, bool) or not isinstance(value, str | int | float | Decimal):
        raise FrankenError(f"{what} is a {kind_of(value)}, not a text")
    text = value if isinstance(value, str) else number_text(value)
    if len(text) > longest:
        raise FrankenError(f"{what} has {len(text)} characters, more than {bound}{longest}")
    if bad := UNPRINTABLE.search(text):
        name = "a NUL" if bad[0] == "\0" else "half of a surrogate pair"
        raise FrankenError(f"{what} holds {name}, which is no character")
    if token := CONTROL.search(text):
        raise FrankenError(f"{what} holds {token[0]}, which models read as a sign of their own")
    return text.strip()


def number_text(value: float | Decimal) -> str:
    """A number in all its digits: 1234567.0 is 1234567. Raises FrankenError for infinity."""
    if isinstance(value, float):
        if not math.isfinite(value):
            raise FrankenError(f"{value} is no number")
        return str(int(value)) if value.is_integer() and abs(value) < 2**53 else repr(value)
    try:
        return str(value)
    except ValueError as e:  # Python writes no integer of more than 4300 digits
        raise FrankenError("a number is too long to be written") from e


def kind_of(value: object) -> str:
    """What a value is, in the words of JSON."""
    names = {bool: "boolean", dict: "structure", list: "list", bytes: "binary value"}
    return names.get(type(value), type(value).__name__)


def from_json(text: str) -> object:
    """A JSON text. Raises FrankenError for what is none, or is nested beyond reason."""
    try:
        value = json.loads(text)
    except (ValueError, RecursionError) as e:
        why = "it nests too deeply" if isinstance(e, RecursionError) else str(e)
        raise FrankenError("not JSON", why, "repair it") from e
    layer: list[object] = [value]
    for _ in range(DEEPEST):
        layer = [
            inner
            for outer in layer
            if isinstance(outer, dict | list)
            for inner in (outer.values() if isinstance(outer, dict) else outer)
        ]
        if not layer:
            return value
    raise FrankenError("not JSON", f"it nests more than {DEEPEST} deep", "flatten it")
