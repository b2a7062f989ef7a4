"""The proof that a hybrid on disk is what was planned: read again from disk, every tensor against
its sources.

A tensor that was copied is compared byte by byte with the one it comes from; one that was computed
is computed again. What is wrong raises VerificationError: exit code 4.
"""

import hashlib
import os
from collections.abc import Callable, Sequence
from concurrent.futures import Executor, Future
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from franken.checkpoints import (
    Checkpoint,
    TensorEntry,
    open_checkpoint,
    read_bytes,
    read_into,
)
from franken.errors import FrankenError, VerificationError
from franken.headers import read_header
from franken.merge.extrapolate import EXTRAPOLATE, extrapolated
from franken.merge.plan import Row

if TYPE_CHECKING:
    from franken.merge.surgery import Known

STRIDE = 1 << 20  # bytes compared at a time: what stays in a core's cache
INFINITIES = {  # bits of the positive infinity; what is above is NaN
    "F64": (np.uint64, 0x7FF << 52),
    "F32": (np.uint32, 0xFF << 23),
    "F16": (np.uint16, 0x1F << 10),
    "BF16": (np.uint16, 0xFF << 7),
}
THREADS = min(4, os.cpu_count() or 1)
Progress = Callable[[int], None]


def check_shard(
    pool: Executor, shard: Path, rows: Sequence[Row], progress: Progress | None = None
) -> dict[str, "Future[str]"]:
    """Have a written shard's exact tensors compared with their sources. SHA-256 by canonical name,
    when they are done.

    The tensors are where the shard's own header, read again, says they are. Raises
    VerificationError if one is missing.
    """
    stored = {tensor.name: tensor for tensor in read_header(shard)}
    checks = {}
    for row in rows:
        if row.target.name not in stored:
            raise VerificationError(
                f"{shard.name} does not hold {row.target.name}", why="the base's shard does"
            )
        if row.copied is not None:
            at = stored[row.target.name]
            written = replace(row.target, file=shard, start=at.start, stop=at.stop)
            checks[row.key] = pool.submit(_compared, written, row.copied, progress)
    return checks


def check_whole(
    folder: Path, base: Checkpoint, rows: Sequence[Row], files: Sequence[str]
) -> Checkpoint:
    """Open the result as anyone would. Raises VerificationError for a missing or additional tensor,
    name, type, shape or file.

    `files` are the names of everything beside the weights that must be there.
    """
    for name in files:
        if not (folder / name).exists():
            raise VerificationError(f"{name} is missing", why="the base has it")
    result = open_checkpoint(folder, finished=False)
    if set(result.tensors) != set(base.tensors):
        odd = sorted(set(result.tensors) ^ set(base.tensors))
        raise VerificationError(
            "the hybrid does not hold the base's tensors", why=f"for example {odd[0]}"
        )
    for row in rows:
        entry = result.tensors[row.key]
        if (entry.name, entry.dtype, entry.shape) != (
            row.target.name,
            row.target.dtype,
            row.target.shape,
        ):
            raise VerificationError(
                f"{entry.name} has another name, type or shape", why=f"{entry.dtype} {entry.shape}"
            )
    return result


def _compared(written: TensorEntry, source: TensorEntry, progress: Progress | None) -> str:
    digest = compare(written, source)
    if progress:
        progress(written.nbytes)
    return digest


def compare(written: TensorEntry, source: TensorEntry) -> str:
    """The SHA-256 of a tensor on disk. Raises VerificationError where its bytes are not the
    source's.
    """
    digest = hashlib.sha256()
    ours, theirs = bytearray(STRIDE), bytearray(STRIDE)
    with written.file.open("rb", buffering=0) as a, source.file.open("rb", buffering=0) as b:
        for done in range(0, written.nbytes, STRIDE):
            size = min(STRIDE, written.nbytes - done)
            x, y = memoryview(ours)[:size], memoryview(theirs)[:size]
            read_into(a.fileno(), x, written.start + done, written)
            read_into(b.fileno(), y, source.start + done, source)
            # comparing memoryviews goes byte by byte in the interpreter, bytearrays are one memcmp
            if ours != theirs if size == STRIDE else ours[:size] != theirs[:size]:
                raise VerificationError(
                    f"{written.name} is not what was planned",
                    why=f"it differs from {source.file.name} of its source",
                )
            if not all_finite(x, written.dtype):
                raise FrankenError(
                    f"{source.name} holds a value that is NaN or infinite",
                    why=f"it is in {source.file}, bytes {source.start + done} and on",
                    fix="leave it out, or take another donor: such a hybrid answers nothing",
                )
            digest.update(x)
    return digest.hexdigest()


def computed(row: Row, known: "Known | None" = None) -> memoryview:
    """The bytes of a tensor that has to be computed, as the base's type stores them. `known` keeps
    the directions of its update for other hybrids (franken.merge.surgery).
    """
    from franken.merge.arithmetic import as_stored, compute, read_source

    if row.method == EXTRAPOLATE:
        import torch

        return _checked(as_stored(torch.from_numpy(extrapolated(row)), row.target.dtype), row)
    tensors = [read_source(source.entry, source.update) for source in row.sources]
    names = [source.name for source in row.sources]
    entry = row.sources[-1].entry
    values = compute(
        row.method,
        tensors,
        names,
        row.parameters,
        origin=row.origin,
        seed=row.seed,
        known=known,
        key=f"directions of {entry.file}:{entry.name}",
    )
    stored = as_stored(values, row.target.dtype)
    if tuple(values.shape) != row.target.shape:
        raise FrankenError(
            f"{row.method} made no valid {row.target.name}",
            why=f"its shape is {list(values.shape)}, not {list(row.target.shape)}",
            fix="try another method",
        )
    return _checked(stored, row)


def _checked(stored: memoryview, row: Row) -> memoryview:
    """The bytes themselves, if every value is finite."""
    if not all_finite(stored, row.target.dtype):
        raise FrankenError(
            f"{row.method} made no valid {row.target.name}",
            why=f"a value is not finite in {row.target.dtype}",
            fix="look for such values in the inputs (franken diff names them)",
        )
    return stored


def all_finite(data: "memoryview | bytearray", dtype: str) -> bool:
    """Whether no value of raw data is NaN or infinite; always so for other types."""
    if dtype not in INFINITIES:
        return True
    unsigned, infinity = INFINITIES[dtype]
    magnitudes = np.frombuffer(data, unsigned) & unsigned(np.iinfo(unsigned).max >> 1)
    return not magnitudes.size or bool(magnitudes.max() < infinity)


def computed_again(written: TensorEntry, row: Row) -> str:
    """The SHA-256 of a computed tensor on disk. Raises VerificationError where it is not what its
    method gives again.
    """
    expected = computed(row)
    found = read_bytes(written)
    if found != expected:
        raise VerificationError(
            f"{written.name} is not what was planned",
            why=f"{row.method} gives another value when computed again",
        )
    return hashlib.sha256(found).hexdigest()
