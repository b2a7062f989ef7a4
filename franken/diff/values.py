"""The flat values of a tensor, a stretch at a time, so that a tensor of any size costs the memory
of a stretch.
"""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cached_property

import numpy as np

from franken.checkpoints import LowRank, TensorEntry, read_array, read_into
from franken.errors import FrankenError
from franken.headers import BITS

READABLE = ("BF16", "F16", "F32")


class Values:
    """A tensor of a checkpoint, with what an adapter adds to it; made by `opened`, which also
    closes its file.
    """

    def __init__(self, entry: TensorEntry, update: LowRank | None, file: int) -> None:
        self.size = int(np.prod(entry.shape, dtype=np.int64))
        self.shape = entry.shape
        self._entry = entry
        self._update = update
        self._file = file
        self._buffer = np.empty(0, np.uint8)

    def bits(self, start: int, stop: int) -> np.ndarray:
        """Elements start … stop as raw bits: uint16 for bf16, uint32 (of the float32) for
        everything else.

        The array is overwritten by the next call. bf16, fp16 and fp32 are exact.
        """
        raw = self._read(start, stop)
        if self._entry.dtype == "BF16" and self._update is None:
            return raw.view(np.uint16)
        if self._entry.dtype == "F32" and self._update is None:
            return raw.view(np.uint32)
        return self.floats(start, stop).view(np.uint32)

    def floats(self, start: int, stop: int) -> np.ndarray:
        """Elements start … stop as float32; valid until the next call."""
        raw = self._read(start, stop)
        if self._entry.dtype == "BF16":
            values = (raw.view(np.uint16).astype(np.uint32) << 16).view(np.float32)
        else:
            values = raw.view(np.float16 if self._entry.dtype == "F16" else np.float32).astype(
                np.float32
            )
        return values if self._update is None else values + self._added(start, stop)

    def shares(self, other: "Values") -> bool:
        """Whether both are adapters on one stored weight, or that weight itself."""
        return self._entry == other._entry

    def minus(self, earlier: "Values", start: int, stop: int) -> np.ndarray:
        """This less an earlier one, as float32. Adapters on one weight subtract without it, so that
        their rank survives.
        """
        if self.shares(earlier):
            return self._added(start, stop) - earlier._added(start, stop)
        return self.floats(start, stop) - earlier.floats(start, stop)

    def _read(self, start: int, stop: int) -> np.ndarray:
        item = BITS[self._entry.dtype] // 8
        wanted = (stop - start) * item
        if self._buffer.size < wanted:
            self._buffer = np.empty(wanted, np.uint8)
        view = self._buffer[:wanted]
        read_into(self._file, view.data, self._entry.start + start * item, self._entry)
        return view

    def _added(self, start: int, stop: int) -> np.ndarray:
        if self._update is None:
            return np.zeros(stop - start, np.float32)
        left, right = self._factors
        columns = right.shape[1]
        first, last = start // columns, -(-stop // columns)
        rows = left[first:last] @ right
        return rows.reshape(-1)[start - first * columns : stop - first * columns]

    @cached_property
    def _factors(self) -> tuple[np.ndarray, np.ndarray]:
        """The adapter's product as [rows, r] · [r, columns], scaled."""
        assert self._update is not None
        a, b = (
            read_array(self._update.a),
            read_array(self._update.b) * np.float32(self._update.scale),
        )
        return (
            (np.ascontiguousarray(a.T), np.ascontiguousarray(b.T))
            if self._update.transposed
            else (b, a)
        )


@contextmanager
def opened(entry: TensorEntry, update: LowRank | None = None) -> Iterator[Values]:
    """The values of a tensor while the context lasts. Raises FrankenError for a type that cannot be
    computed with.
    """
    if entry.dtype not in READABLE:
        raise FrankenError(
            f"cannot compute with {entry.dtype}",
            why=f"{entry.name} is neither {', nor '.join(READABLE)}",
        )
    file = os.open(entry.file, os.O_RDONLY)
    try:
        yield Values(entry, update, file)
    finally:
        os.close(file)
