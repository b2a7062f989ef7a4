"""Writing a hybrid: byte ranges copied by the kernel, everything else the checkpoint needs, and the proof.

The result is written to a temporary sibling, verified there, and renamed: an interrupt or a full disk leaves nothing that
looks finished. It keeps the base's shards, names and headers, so a tensor that is taken whole is a byte range that is
copied, never decoded. Only `alpha` between 0 and 1 computes, with mergekit's `linear`, tensor by tensor.
"""

import hashlib
import json
import os
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, BinaryIO

from franken.checkpoints import INDEX, SINGLE, Checkpoint, TensorEntry, fingerprint, open_checkpoint
from franken.errors import FrankenError, UsageError, VerificationError
from franken.layers import LayerRange
from franken.merge.plan import Step, plan_merge
from franken.runs import atomic_write_text, provenance

RECORD = "franken_merge.json"
COPIED = (
    "config.json", "generation_config.json", "tokenizer.json", "tokenizer_config.json", "special_tokens_map.json", "added_tokens.json",
    "vocab.json", "merges.txt", "tokenizer.model", "chat_template.jinja", "chat_template.json", "preprocessor_config.json",
    "processor_config.json", "video_preprocessor_config.json", INDEX,
)  # fmt: skip
CHUNK = 8 << 20  # bytes
Progress = Callable[[int], None]


def run_merge(
    base: Checkpoint,
    donor: Checkpoint,
    ranges: Sequence[LayerRange],
    out: Path,
    *,
    alpha: float = 1.0,
    verify_load: bool = False,
    progress: Progress | None = None,
) -> Path:
    """Write, verify and put in place the hybrid. `progress` hears bytes written. Returns `out`.

    A folder that already holds this very merge is left as it is; one that holds anything else is refused.
    Raises VerificationError (and leaves the temporary folder, marked) when the result is not what was planned.
    """
    steps = plan_merge(base, donor, ranges, alpha=alpha)
    identity = {
        "base": fingerprint(base),
        "donor": fingerprint(donor),
        "layers": [r.to_dict() for r in ranges],
        "alpha": alpha,
    }
    if _is_done(out, identity):
        return out
    _check_space(out, base)
    partial = out.with_name(f".{out.name}.partial")
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir(parents=True)
    kept = False
    try:
        _write(base, steps, partial, progress)
        for name in COPIED:
            if (base.folder / name).exists():
                shutil.copyfile(base.folder / name, partial / name)
        hashes = verify(partial, base, steps)
        record = {
            **identity,
            "base_folder": base.name,
            "donor_folder": donor.name,
            **provenance(),
            "tensors": [step.to_dict() | {"sha256": hashes[step.target.canonical]} for step in steps],
        }
        atomic_write_text(partial / RECORD, json.dumps(record, indent=1))
        atomic_write_text(partial / "README.md", _card(base, donor, ranges, alpha))
        if verify_load:
            _load(partial)
        partial.rename(out)
        kept = True
    except VerificationError:
        shutil.rmtree(out.with_name(f"{out.name}.FAILED"), ignore_errors=True)
        partial.rename(out.with_name(f"{out.name}.FAILED"))
        kept = True
        raise
    except OSError as e:
        raise FrankenError(f"cannot write {out}", why=str(e), fix="free some space, or choose another --out") from e
    finally:
        if not kept:
            shutil.rmtree(partial, ignore_errors=True)
    return out


def verify(folder: Path, base: Checkpoint, steps: Sequence[Step]) -> dict[str, str]:
    """Re-open the result and compare every tensor with its source. Returns SHA-256 by canonical name.

    Raises VerificationError for a missing or additional tensor, another type or shape, or other bytes.
    """
    result = open_checkpoint(folder)
    if set(result.tensors) != set(base.tensors):
        odd = sorted(set(result.tensors) ^ set(base.tensors))
        raise VerificationError("the hybrid does not hold the base's tensors", why=f"for example {odd[0]}")
    hashes = {}
    for step in steps:
        entry = result.tensors[step.target.canonical]
        if (entry.dtype, entry.shape) != (step.target.dtype, step.target.shape):
            raise VerificationError(f"{entry.name} has another type or shape", why=f"{entry.dtype} {entry.shape}")
        hashes[entry.canonical] = _digest(entry)
        expected = _expected(step)
        if hashes[entry.canonical] != expected:
            raise VerificationError(f"{entry.name} is not what was planned", why=f"its source is {step.source}")
    for name in COPIED:
        if (base.folder / name).exists() and not (folder / name).exists():
            raise VerificationError(f"{name} is missing", why="the base has it")
    return hashes


def _write(base: Checkpoint, steps: Sequence[Step], folder: Path, progress: Progress | None) -> None:
    by_file: dict[Path, list[Step]] = {}
    for step in steps:
        by_file.setdefault(step.target.file, []).append(step)
    for file, members in by_file.items():
        with file.open("rb") as source, (folder / file.name).open("wb") as sink:
            first = min(step.target.start for step in members)
            _copy(source, 0, first, sink, None)
            for step in sorted(members, key=lambda s: s.target.start):
                if sink.tell() != step.target.start:
                    raise FrankenError(f"{file.name} has a gap before {step.target.name}", why="its layout is unusual")
                _write_tensor(step, source, sink, progress)
            sink.flush()
            os.fsync(sink.fileno())


def _write_tensor(step: Step, source: BinaryIO, sink: BinaryIO, progress: Progress | None) -> None:
    if step.source == "base":
        _copy(source, step.target.start, step.target.nbytes, sink, progress)
    elif step.source == "donor":
        assert step.donor is not None
        with step.donor.file.open("rb") as given:
            _copy(given, step.donor.start, step.donor.nbytes, sink, progress)
    else:
        data = blend(step)
        sink.write(data)
        if progress:
            progress(len(data))


def blend(step: Step) -> bytes:
    """(1 − alpha)·base + alpha·donor by mergekit, computed in fp32 and stored in the base's type."""
    import torch
    from mergekit.merge_methods import merge_tensors

    assert step.donor is not None
    a, b = _tensor(step.target), _tensor(step.donor)
    parameters = {"weight": [1.0 - step.alpha, step.alpha], "normalize": False}
    merged = merge_tensors([a.float(), b.float()], "linear", parameters=parameters)
    return merged.to(a.dtype).contiguous().view(torch.uint8).numpy().tobytes()


def _tensor(entry: TensorEntry) -> Any:
    from safetensors import safe_open

    with safe_open(str(entry.file), framework="pt") as opened:
        return opened.get_tensor(entry.name)


def _copy(source: BinaryIO, start: int, length: int, sink: BinaryIO, progress: Progress | None) -> None:
    """Copy a byte range, by the kernel where the file systems allow it."""
    sink.flush()
    done = 0
    while done < length:
        size = min(CHUNK, length - done)
        try:
            copied = os.copy_file_range(source.fileno(), sink.fileno(), size, start + done)
        except OSError as e:
            import errno

            if e.errno not in (errno.EXDEV, errno.EINVAL, errno.ENOSYS, errno.EOPNOTSUPP):
                raise
            data = os.pread(source.fileno(), size, start + done)
            copied = os.write(sink.fileno(), data)
        if copied == 0:
            raise FrankenError("a source file is shorter than its header says", fix="fetch the file again")
        done += copied
        if progress:
            progress(copied)
    sink.seek(0, os.SEEK_END)


def _digest(entry: TensorEntry) -> str:
    digest = hashlib.sha256()
    with entry.file.open("rb") as opened:
        opened.seek(entry.start)
        left = entry.nbytes
        while left:
            data = opened.read(min(CHUNK, left))
            if not data:
                raise VerificationError(f"{entry.file.name} is truncated", why=entry.name)
            digest.update(data)
            left -= len(data)
    return digest.hexdigest()


def _expected(step: Step) -> str:
    if step.source == "blend":
        return hashlib.sha256(blend(step)).hexdigest()
    return _digest(step.donor if step.source == "donor" and step.donor else step.target)


def _is_done(out: Path, identity: dict[str, Any]) -> bool:
    if not out.exists():
        return False
    record = out / RECORD
    if record.exists():
        stored = json.loads(record.read_text())
        if all(stored.get(key) == value for key, value in identity.items()):
            return True
    if out.is_dir() and not any(out.iterdir()):
        out.rmdir()
        return False
    raise UsageError(f"{out} holds something else", why="it is not this merge", fix="choose another --out")


def _check_space(out: Path, base: Checkpoint) -> None:
    parent = next(p for p in out.absolute().parents if p.exists())
    free = shutil.disk_usage(parent).free
    if free < base.nbytes:
        missing = (base.nbytes - free) / 2**30
        raise FrankenError(
            f"the disk is full: {missing:.1f} GiB are missing", why=f"the hybrid needs {base.nbytes / 2**30:.1f}"
        )


def _load(folder: Path) -> None:
    from franken.models.loading import load

    try:
        load(folder, device="cpu")
    except FrankenError as e:
        raise VerificationError("the hybrid does not load", why=f"{e.what}: {e.why}", fix=e.fix) from e


def _card(base: Checkpoint, donor: Checkpoint, ranges: Sequence[LayerRange], alpha: float) -> str:
    layers = ", ".join(str(r) for r in ranges)
    return (
        f"# {base.name} with layers {layers} of {donor.name}\n\n"
        f"Made by `franken merge`: layers {layers} (0-based, half-open) are the donor's with weight {alpha:g}; everything else, "
        "embeddings, norms, head, vision and projector included, is the base's.\n"
        f"`{RECORD}` holds the source and hash of every tensor. Weights: {SINGLE} or the base's shards.\n"
    )
