"""A checkpoint with some tensors changed, one tensor in memory at a time.

Shards, names and headers stay those of the original, so that whatever reads the one reads the
other. The folder takes its name when it is complete.
"""

import shutil
from collections.abc import Callable
from pathlib import Path

from jaxtyping import Float
from numpy import ndarray

from franken.checkpoints import Checkpoint, TensorEntry, read_bytes
from franken.errors import UsageError
from franken.merge.run import companions

Values = Float[ndarray, "..."]
Edit = Callable[[TensorEntry], Values | None]
"""What a tensor becomes, in its shape; None leaves it, bit for bit."""


def rewrite(
    source: Checkpoint, out: Path, edit: Edit, finish: Callable[[Path], None] = lambda folder: None
) -> Path:
    """Write `source` with what `edit` makes of its tensors, rounded to their own types, into `out`.

    `finish` writes what else belongs into the folder before it takes its name. Raises UsageError
    where `out` is there already.
    """
    if out.exists() and any(out.iterdir()):
        raise UsageError(f"{out} is not empty", fix="choose another --out")
    partial = out.with_name(f".{out.name}.partial")
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir(parents=True)
    try:
        shards: dict[Path, list[TensorEntry]] = {}
        for entry in source.tensors.values():
            shards.setdefault(entry.file, []).append(entry)
        for file, entries in shards.items():
            _write_shard(file, partial / file.name, entries, edit)
        for name in companions(source.folder):
            (partial / name).parent.mkdir(exist_ok=True)
            shutil.copyfile(source.folder / name, partial / name)
        finish(partial)
        if out.exists():
            out.rmdir()
        partial.rename(out)
    finally:
        shutil.rmtree(partial, ignore_errors=True)
    return out


def _write_shard(file: Path, target: Path, entries: list[TensorEntry], edit: Edit) -> None:
    from torch import from_numpy  # only where something is written

    from franken.merge.arithmetic import as_stored

    ordered = sorted(entries, key=lambda entry: entry.start)
    with file.open("rb") as header, target.open("wb") as sink:
        sink.write(header.read(ordered[0].start))
        for entry in ordered:
            values = edit(entry)
            same = values is None
            sink.write(
                read_bytes(entry) if same else as_stored(from_numpy(values.copy()), entry.dtype)
            )
