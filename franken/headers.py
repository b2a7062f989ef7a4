"""The header of a safetensors file, read and checked: which tensors it holds, and where their bytes
are.

The layout is that of https://github.com/huggingface/safetensors: eight bytes with the header's
length, the header as JSON, the data. What its own reader refuses is refused here (the data must
cover the file without a hole or an overlap, sizes must fit shapes and types), and what it lets pass
although two readers could take it differently: a key or a name that is there twice, fields that
nobody knows. No byte of the data is read.
"""

import math
import os
import stat
import struct
from pathlib import Path
from typing import Any, NamedTuple

from franken.errors import FrankenError
from franken.files import AGAIN, parse_json

MAX_HEADER = 32 << 20  # bytes; a tensor takes about 130, safetensors itself reads up to 100 MB
MAX_NAME, MAX_AXES = 512, 16
LARGEST = 2**63 - 1
METADATA = "__metadata__"
FIELDS = {"dtype", "shape", "data_offsets"}
BITS = {  # of one element
    "F64": 64,
    "I64": 64,
    "U64": 64,
    "C64": 64,
    "F32": 32,
    "I32": 32,
    "U32": 32,
    "F16": 16,
    "BF16": 16,
    "I16": 16,
    "U16": 16,
    "I8": 8,
    "U8": 8,
    "BOOL": 8,
    "F8_E4M3": 8,
    "F8_E5M2": 8,
    "F8_E8M0": 8,
    "F8_E4M3FNUZ": 8,
    "F8_E5M2FNUZ": 8,
    "F6_E2M3": 6,
    "F6_E3M2": 6,
    "F4": 4,
}


class Stored(NamedTuple):
    """A tensor as the header has it: `start` and `stop` are bytes of the file."""

    name: str
    dtype: str
    shape: tuple[int, ...]
    start: int
    stop: int


def read_header(file: Path) -> list[Stored]:
    """Every tensor of a safetensors file, in the order of the bytes. Raises FrankenError, with the
    place and the reason, for a file that is cut off, is something else, or contradicts itself.
    """
    try:
        length, size, text = _header_bytes(file)
        tensors = _tensors(text)
        _check_cover(tensors, size - 8 - length)
    except OSError as e:
        raise FrankenError(f"cannot read {file}", why=e.strerror or str(e), fix=AGAIN) from e
    except ValueError as e:
        raise FrankenError(f"{file} is truncated or not safetensors", why=str(e), fix=AGAIN) from e
    base = 8 + length
    return [t._replace(start=base + t.start, stop=base + t.stop) for t in tensors]


def _header_bytes(file: Path) -> tuple[int, int, bytes]:
    """(length of the header, size of the file, the header)."""
    with file.open("rb") as opened:
        found = os.fstat(opened.fileno())
        if not stat.S_ISREG(found.st_mode):
            raise ValueError("it is not a regular file")
        if found.st_size < 8:
            raise ValueError(f"it has {found.st_size} bytes")
        length = struct.unpack("<Q", opened.read(8))[0]
        if length > found.st_size - 8:
            raise ValueError(f"the header is cut off: it should have {length} bytes")
        if length > MAX_HEADER:
            raise ValueError(f"a header of {length:,} bytes is more than {MAX_HEADER:,}")
        return length, found.st_size, opened.read(length)


def _tensors(text: bytes) -> list[Stored]:
    """What the header says, with offsets into the data, in their order."""
    if not text.startswith(b"{"):
        raise ValueError("the header is not a JSON object")
    try:
        header = parse_json(text)
    except ValueError as e:
        raise ValueError(f"the header cannot be read: {e}") from e
    metadata = header.pop(METADATA, {})
    if not isinstance(metadata, dict) or not all(isinstance(v, str) for v in metadata.values()):
        raise ValueError(f"{METADATA} is not a mapping of texts")
    tensors = [_tensor(name, info) for name, info in header.items()]
    return sorted(tensors, key=lambda t: (t.start, t.stop))


def _tensor(name: str, info: Any) -> Stored:
    if not name or len(name) > MAX_NAME or not name.isascii() or not name.isprintable():
        raise ValueError(f"a tensor is called {name[:80]!r}")
    if not isinstance(info, dict) or info.keys() != FIELDS:
        raise ValueError(f"{name} must have {', '.join(sorted(FIELDS))} and nothing else")
    dtype, shape, offsets = info["dtype"], info["shape"], info["data_offsets"]
    if not isinstance(dtype, str) or dtype not in BITS:
        raise ValueError(f"{name} has the unknown type {str(dtype)[:40]!r}")
    if not _are_counts(shape) or len(shape) > MAX_AXES:
        raise ValueError(f"{name} has the shape {str(shape)[:80]}")
    if not _are_counts(offsets) or len(offsets) != 2 or offsets[0] > offsets[1]:
        raise ValueError(f"{name} has the offsets {str(offsets)[:80]}")
    start, stop = offsets
    needed = math.prod(shape) * BITS[dtype]
    if math.prod(axis for axis in shape if axis) * BITS[dtype] > LARGEST:  # also beside a zero
        raise ValueError(f"{name} has the shape {shape}, more than any file holds")
    if needed != 8 * (stop - start):
        raise ValueError(
            f"{name} has {stop - start} bytes, its shape and type need {math.ceil(needed / 8)}"
        )
    return Stored(name, dtype, tuple(shape), start, stop)


def _are_counts(values: Any) -> bool:
    """Whether this is a list of whole numbers from 0 on; JSON's true is none."""
    return isinstance(values, list) and all(type(v) is int and 0 <= v <= LARGEST for v in values)


def _check_cover(tensors: list[Stored], size: int) -> None:
    """The tensors must lie one behind the other, from the first byte of the data to the last."""
    at = 0
    for tensor in tensors:
        if tensor.start != at:
            how = "overlaps what is before it" if tensor.start < at else "leaves a hole before it"
            raise ValueError(f"{tensor.name} {how}: it starts at byte {tensor.start}, not {at}")
        at = tensor.stop
    if at != size:
        how = "the file is cut off" if at > size else "bytes belong to no tensor"
        raise ValueError(f"{how}: the tensors end at byte {at} of the data, which has {size}")
