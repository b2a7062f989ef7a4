"""Writing a hybrid: byte ranges copied by the kernel, everything else the checkpoint needs, and the
proof.

The result is written to a temporary sibling, verified there, and renamed: an interrupt or a full
disk leaves nothing that looks finished. It keeps the base's shards, names and headers, so that a
tensor taken whole is a byte range, and neighbours from one source are one range: a shard from a
single source is copied in one go, by `copy_file_range`, which shares the blocks on file systems
that can (btrfs, XFS) and else copies inside the kernel. Only tensors that a method makes are
decoded, one at a time. While one shard is copied, those before it are read again, compared, and
flushed.
"""

import errno
import json
import os
import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from io import FileIO
from pathlib import Path
from typing import NamedTuple

from franken.checkpoints import Checkpoint, fingerprint
from franken.configs import INDEX
from franken.errors import FrankenError, UsageError, VerificationError
from franken.files import read_json
from franken.merge.card import card
from franken.merge.plan import Plan, Row
from franken.merge.recipe import RuleRecord
from franken.merge.verify import THREADS, check_shard, check_whole, computed, computed_again
from franken.runs import atomic_write_text, provenance

RECORD = "franken_merge.json"
SCHEMA = 2
COPIED = (  # patterns of what a checkpoint needs beside its weights; code is never copied
    "config.json",
    "generation_config.json",
    "tokenizer*",
    "special_tokens_map.json",
    "added_tokens.json",
    "vocab*",
    "merges.txt",
    "*.model",
    "*.tiktoken",
    "tekken.json",
    "chat_template*",
    "additional_chat_templates/*.jinja",
    "*preprocessor_config.json",
    "processor_config.json",
    INDEX,
    "LICENSE*",
    "NOTICE*",
)
CHUNK = 64 << 20  # bytes that the kernel copies at a time, between two looks at the keyboard
NO_KERNEL_COPY = (errno.EXDEV, errno.EINVAL, errno.ENOSYS, errno.EOPNOTSUPP, errno.EBADF)
FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
Progress = Callable[[int], None]


class Identity(NamedTuple):
    """What franken_merge.json says of a merge, and another merge must say to be the same."""

    schema: int
    rules: list[RuleRecord]
    seed: int
    fingerprints: Mapping[str, str]


@dataclass(frozen=True)
class Piece:
    """A stretch of a shard: `length` bytes of `file` from `start` on, or a tensor to compute."""

    length: int
    file: Path | None = None
    start: int = 0
    row: Row | None = None


def run_merge(
    plan: Plan, out: Path, *, verify_load: bool = False, progress: Progress | None = None
) -> Path:
    """Write, verify and put in place the hybrid. `progress` hears bytes written and bytes verified.
    Returns `out`.

    A folder that already holds this very merge is left as it is, if nothing is missing; one that
    holds anything else is refused. Raises FrankenError when the disk is full, saying what is
    missing; VerificationError, leaving the result in `out`.FAILED with the reason in it, when it is
    not what was planned. `verify_load` also loads it, processor included.
    """
    identity = identity_of(plan)
    if _is_done(out, identity):
        check_whole(out, plan.base, plan.rows, companions(plan.base.folder))
        return out
    partial = out.with_name(f".{out.name}.partial")
    shutil.rmtree(partial, ignore_errors=True)
    _check_space(out, plan.base.nbytes)
    partial.mkdir(parents=True)
    kept = False
    try:
        _write_and_verify(plan, partial, identity, progress)
        if verify_load:
            _load(partial)
        partial.rename(out)
        kept = True
        _settle(out.parent)
    except VerificationError as e:
        failed = out.with_name(f"{out.name}.FAILED")
        shutil.rmtree(failed, ignore_errors=True)
        (partial / "FAILED.txt").write_text(f"This is not what was planned.\n{e.what}\n{e.why}\n")
        partial.rename(failed)
        kept = True
        raise VerificationError(e.what, e.why, e.fix or f"look into {failed}; do not use it") from e
    except OSError as e:
        raise _disk_error(e, out, plan.base.nbytes, _written(partial)) from e
    finally:
        if not kept:
            shutil.rmtree(partial, ignore_errors=True)
    return out


def identity_of(plan: Plan) -> Identity:
    """What makes two merges the same: the recipe, and the contents of the checkpoints."""
    recipe = plan.recipe.to_dict()
    fingerprints = {name: fingerprint(opened) for name, opened in plan.checkpoints.items()}
    return Identity(SCHEMA, recipe["rules"], recipe["seed"], fingerprints)


def companions(folder: Path) -> list[str]:
    """Names of the files beside the weights that a copy of the checkpoint needs."""
    paths = {path for pattern in COPIED for path in folder.glob(pattern) if path.suffix != ".py"}
    return sorted(str(path.relative_to(folder)) for path in paths if path.is_file())


def pieces(base: Checkpoint, rows: Sequence[Row]) -> Iterator[tuple[Path, list[Piece]]]:
    """Each shard of the base as the stretches it will be made of, the header first; neighbours in
    one file are one.

    Raises FrankenError for a shard with a hole between its tensors, which safetensors forbids.
    """
    by_file: dict[Path, list[Row]] = {}
    for row in rows:
        by_file.setdefault(row.target.file, []).append(row)
    for file, members in by_file.items():
        members.sort(key=lambda row: row.target.start)
        made = [Piece(members[0].target.start, file)]
        at = made[0].length
        for row in members:
            if row.target.start != at:
                raise FrankenError(
                    f"{file.name} has a gap before {row.target.name}", why="its layout is unusual"
                )
            at = row.target.stop
            last, entry = made[-1], row.copied
            if entry is None:
                made.append(Piece(row.target.nbytes, row=row))
            elif entry.file == last.file and entry.start == last.start + last.length:
                made[-1] = Piece(last.length + entry.nbytes, last.file, last.start)
            else:
                made.append(Piece(entry.nbytes, entry.file, entry.start))
        yield file, made


def _write_and_verify(
    plan: Plan, folder: Path, identity: Identity, progress: Progress | None
) -> None:
    files = companions(plan.base.folder)
    by_shard: dict[str, list[Row]] = {}
    for row in plan.rows:
        by_shard.setdefault(row.target.file.name, []).append(row)
    pool, disk = (
        ThreadPoolExecutor(THREADS),
        ThreadPoolExecutor(1),
    )  # flushing does not queue behind comparisons
    settled: list[Future[None]] = []
    checks: dict[str, Future[str]] = {}
    try:
        for shard, made in pieces(plan.base, plan.rows):
            _write_shard(folder / shard.name, made, progress)
            settled.append(disk.submit(_settle, folder / shard.name))
            checks |= check_shard(pool, folder / shard.name, by_shard[shard.name], progress)
        for name in files:
            (folder / name).parent.mkdir(exist_ok=True)
            shutil.copyfile(plan.base.folder / name, folder / name)
        result = check_whole(folder, plan.base, plan.rows, files)
        hashes = {key: check.result() for key, check in checks.items()}
        for row in plan.rows:
            if row.copied is None:
                hashes[row.key] = computed_again(result.tensors[row.key], row)
                if progress:
                    progress(row.target.nbytes)
        for done in settled:
            done.result()
    finally:
        for workers in (pool, disk):
            workers.shutdown(cancel_futures=True)
    record = {
        **identity._asdict(),
        **plan.to_dict(),
        **provenance(),
        "checkpoints": {name: checkpoint.name for name, checkpoint in plan.checkpoints.items()},
        "tensors": [row.to_dict() | {"sha256": hashes[row.key]} for row in plan.rows],
    }
    atomic_write_text(folder / RECORD, json.dumps(record, indent=1))
    atomic_write_text(folder / "README.md", card(plan))
    for name in (*files, RECORD, "README.md"):
        _settle(folder / name)
    _settle(folder)


def _write_shard(path: Path, made: Sequence[Piece], progress: Progress | None) -> None:
    with path.open("wb", buffering=0) as sink:
        for piece in made:
            if piece.file is not None:
                with piece.file.open("rb", buffering=0) as source:
                    _copy(source, piece.start, piece.length, sink, progress)
            elif piece.row is not None:
                _write_all(sink, computed(piece.row), progress)


def _copy(source: FileIO, start: int, length: int, sink: FileIO, progress: Progress | None) -> None:
    """Append a byte range to `sink`."""
    done = 0
    while done < length:
        copied = _copy_some(source.fileno(), sink.fileno(), min(CHUNK, length - done), start + done)
        if copied == 0:
            raise FrankenError(
                "a source file is shorter than its header says", fix="fetch the file again"
            )
        done += copied
        if progress:
            progress(copied)


def _copy_some(source: int, sink: int, size: int, start: int) -> int:
    """Up to `size` bytes from `start` on, by the kernel where it and the file systems can. Returns
    how many.
    """
    if hasattr(os, "copy_file_range"):  # Linux
        try:
            return os.copy_file_range(source, sink, size, start)
        except OSError as e:
            if e.errno not in NO_KERNEL_COPY:
                raise
    return os.write(sink, os.pread(source, min(size, 8 << 20), start))


def _write_all(sink: FileIO, data: memoryview, progress: Progress | None) -> None:
    done = 0
    while done < len(data):
        done += sink.write(data[done : done + CHUNK])
    if progress:
        progress(len(data))


def _settle(path: Path) -> None:
    """Have the disk hold a file, or a folder's list of names."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _is_done(out: Path, identity: Identity) -> bool:
    if not out.exists():
        return False
    try:
        stored = read_json(out / RECORD)
    except FrankenError:  # none, or none of ours
        stored = {}
    wanted = json.loads(json.dumps(identity._asdict()))
    if all(stored.get(key) == value for key, value in wanted.items()):
        return True
    if out.is_dir() and not any(out.iterdir()):
        out.rmdir()
        return False
    raise UsageError(
        f"{out} holds something else", why="it is not this merge", fix="choose another --out"
    )


def _free(out: Path) -> int:
    parent = next(p for p in out.absolute().parents if p.exists())
    return shutil.disk_usage(parent).free


def _check_space(out: Path, needed: int) -> None:
    if _free(out) < needed:
        raise _no_space(needed - _free(out), needed)


def _no_space(missing: int, needed: int) -> FrankenError:
    return FrankenError(
        f"the disk is full: {_size(missing)} are missing",
        why=f"the hybrid needs {_size(needed)}",
        fix="free some space, or choose another --out",
    )


def _disk_error(error: OSError, out: Path, needed: int, written: int) -> FrankenError:
    """What to tell of a failed write. A quota or a limit on file sizes leaves more free than it
    gives.
    """
    if error.errno not in FULL:
        return FrankenError(f"cannot write {out}", why=str(error), fix="choose another --out")
    left = max(needed - written, 0)
    free = _free(out) if error.errno == errno.ENOSPC else 0
    return _no_space(left - free if left > free else left, needed)


def _written(folder: Path) -> int:
    return sum(file.stat().st_size for file in folder.glob("*") if file.is_file())


def _size(count: int) -> str:
    for unit, scale in (("GiB", 2**30), ("MiB", 2**20), ("KiB", 2**10)):
        if count >= scale:
            return f"{count / scale:.1f} {unit}"
    return f"{count} bytes"


def _load(folder: Path) -> None:
    from franken.models.loading import load

    try:
        load(folder, device="cpu", finished=False)
    except FrankenError as e:
        raise VerificationError(
            "the hybrid does not load", why=f"{e.what}: {e.why}", fix=e.fix
        ) from e
    except (
        OSError,
        ValueError,
        KeyError,
    ) as e:  # what transformers raises for a missing or odd configuration
        raise VerificationError("the hybrid does not load", why=str(e).split(". ")[0]) from e
