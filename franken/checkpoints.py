"""A checkpoint on disk: which tensors it holds, where their bytes are, and what part of the model
each one is.

Reads safetensors headers only; no torch, no transformers. Tensors are known by their canonical
names (`franken.names`), so that checkpoints saved under different spellings, in other shards or by
other versions fit together. This is the one door for checkpoints: whatever a folder holds becomes a
`Checkpoint` whose parts fit each other, or one FrankenError.
"""

import hashlib
import json
import os
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from franken import experts
from franken.configs import INDEX, ModelConfig, read_config, read_index
from franken.contents import of_file
from franken.errors import FrankenError, UsageError
from franken.files import AGAIN, inside
from franken.headers import Stored, read_header
from franken.names import Place, canonical, depths_of, place
from franken.soundness import check_layers, check_shapes

SINGLE = "model.safetensors"
ADAPTER = "adapter_config.json"
UNFINISHED = re.compile(r"\..+\.(?:partial|gone)|\.final|\.step-.+")  # names while one is written
PICKLES = ("pytorch_model*.bin", "*.pt", "*.pth", "*.ckpt")


@dataclass(frozen=True)
class TensorEntry:
    """A tensor and the absolute byte range of its data in `file`."""

    name: str
    canonical: str
    file: Path
    dtype: str
    shape: tuple[int, ...]
    start: int
    stop: int
    place: Place

    @property
    def nbytes(self) -> int:
        """Size of the data."""
        return self.stop - self.start


@dataclass(frozen=True)
class LowRank:
    """What a LoRA adapter adds to a tensor: scale · B·A, or its transpose for an embedding. See
    `franken.adapters`.
    """

    a: TensorEntry
    b: TensorEntry
    scale: float
    transposed: bool


@dataclass(frozen=True)
class Checkpoint:
    """All tensors of a checkpoint by canonical name, in the order of the files; `updates` are an
    adapter's products. `settings` is what franken reads of config.json, `config` all of it.
    """

    folder: Path
    settings: ModelConfig
    config: dict[str, Any]
    tensors: dict[str, TensorEntry]
    updates: dict[str, LowRank] = field(default_factory=dict)

    @property
    def model_type(self) -> str:
        """The family, as transformers calls it."""
        return self.settings.model_type

    @property
    def name(self) -> str:
        """What people call it, see `name_of`."""
        return name_of(self.folder)

    @cached_property
    def depths(self) -> dict[str, int]:
        """Number of layers by part."""
        return depths_of(entry.place for entry in self.tensors.values())

    @cached_property
    def matrices(self) -> dict[str, TensorEntry]:
        """The tensors, with fused experts one by one (`franken.experts`)."""
        return experts.matrices(self.tensors, self.settings.text.hidden_size, self.updates)

    @property
    def nbytes(self) -> int:
        """Size of all tensors."""
        return sum(entry.nbytes for entry in self.tensors.values())


def name_of(folder: str | Path) -> str:
    """What people call a checkpoint: its folder's name, but `rl` for `rl/final` (what a training
    run leaves is always called so), the repository's for a snapshot in the hub's cache, and
    `creature-base` for a shipped one.
    """
    path = Path(folder)
    parent = path.parent
    if parent.name == "snapshots" and parent.parent.name.startswith("models--"):
        return parent.parent.name.rpartition("--")[2]
    if path.name == "final" and parent.name:
        return parent.name
    return f"creature-{path.name}" if parent.name == "creature" else path.name


def resolve(path_or_id: str | Path, *, download: bool = False) -> Path:
    """The folder of a checkpoint: a path, `creature:base`, or a hub id that is in the local cache.

    Raises UsageError when there is nothing; only `download` allows the network.
    """
    text = str(path_or_id)
    if text.startswith("creature:"):
        from franken.models.creature import creature_path

        return creature_path(text.removeprefix("creature:"))
    try:
        folder = Path(text).expanduser()
        if folder.is_dir():
            return folder
        there = os.path.lexists(folder)
    except (OSError, ValueError, RuntimeError) as e:  # too long, not allowed, no such user
        raise _no_checkpoint(text, getattr(e, "strerror", None) or str(e)) from e
    if not there and re.fullmatch(r"[\w.-]+/[\w.-]+", text):
        return _from_hub(text, download)
    raise _no_checkpoint(text, "it is not a folder" if there else "there is no such folder")


def _no_checkpoint(text: str, why: str) -> UsageError:
    fix = "give a folder, a hub id, creature:base or creature:sft"
    return UsageError(f"no checkpoint at {text!r}", why=why, fix=fix)


def open_checkpoint(
    path_or_id: str | Path, *, download: bool = False, finished: bool = True
) -> Checkpoint:
    """Read config and headers. Raises FrankenError, with the fix, for anything missing, truncated,
    pickled, unknown or contradictory, and for what is still being written, unless it is asked for
    as it is (`finished=False`).
    """
    folder = resolve(path_or_id, download=download)
    if finished and UNFINISHED.fullmatch(folder.name):
        raise UsageError(
            f"{folder} is not finished",
            why="franken gives a folder such a name while it writes there, or when it was killed",
            fix="give the finished folder, or run the command that makes it again",
        )
    if is_adapter(folder):
        raise UsageError(
            f"{folder.name} is a LoRA adapter",
            why="it holds no model, only what is added to one",
            fix="franken merge BASE ADAPTER --layers all makes a model of them; franken diff "
            "takes it after its base",
        )
    settings, config = read_config(folder)
    if (folder / ADAPTER).exists():
        raise FrankenError(
            f"{folder} holds a model and a LoRA adapter",
            why=f"transformers adds the adapter of {ADAPTER} to the model when it loads the folder",
            fix="move the adapter's files into a folder of their own",
        )
    tensors: dict[str, TensorEntry] = {}
    for file, stored in _stored(folder):
        entry = as_entry(file, stored, settings.model_type)
        if entry.canonical in tensors:
            raise FrankenError(
                f"{entry.name} is there twice in {folder}",
                why=f"{tensors[entry.canonical].file.name} has it as "
                f"{tensors[entry.canonical].name}",
                fix=AGAIN,
            )
        tensors[entry.canonical] = entry
    check_layers(folder, (entry.place for entry in tensors.values()), settings)
    check_shapes(folder, tensors, settings)
    return Checkpoint(folder, settings, config, tensors)


def as_entry(file: Path, stored: Stored, model_type: str, weight: str = "") -> TensorEntry:
    """A stored tensor with its place in the model; `weight` is the name that it counts as, if that
    is not its own.
    """
    name, dtype, shape, start, stop = stored
    key, spot = canonical(weight or name, model_type), place(weight or name, model_type)
    return TensorEntry(name, key, file, dtype, shape, start, stop, spot)


def is_adapter(folder: Path) -> bool:
    """Whether the folder holds a LoRA adapter and no model."""
    return (folder / ADAPTER).exists() and not (
        (folder / INDEX).exists() or (folder / SINGLE).exists()
    )


def fingerprint(checkpoint: Checkpoint) -> str:
    """A hash of the contents: the config, all headers, and every file as `franken.contents` reads
    it (fast at 7B and above).
    """
    digest = hashlib.sha256(json.dumps(checkpoint.config, sort_keys=True).encode())
    factors = [e for update in checkpoint.updates.values() for e in (update.a, update.b)]
    digest.update(json.dumps([update.scale for update in checkpoint.updates.values()]).encode())
    entries = (*checkpoint.tensors.values(), *factors)
    for entry in entries:
        digest.update(f"{entry.name}{entry.dtype}{entry.shape}".encode())
    for file in sorted({entry.file for entry in entries}):
        digest.update(of_file(file).encode())
    return digest.hexdigest()[:16]


def read_bytes(entry: TensorEntry) -> bytearray:
    """The raw data of a tensor."""
    data = bytearray(entry.nbytes)
    with entry.file.open("rb", buffering=0) as opened:
        read_into(opened.fileno(), memoryview(data), entry.start, entry)
    return data


def read_into(descriptor: int, data: memoryview, start: int, entry: TensorEntry) -> None:
    """Fill `data` from byte `start` of the tensor's open file on; one call of the system may return
    less.

    Raises FrankenError where the file ends before.
    """
    done = 0
    while done < len(data):
        more = os.preadv(descriptor, [data[done:]], start + done)
        if not more:
            raise FrankenError(
                f"{entry.file} is truncated",
                why=f"{entry.name} is cut off at byte {start + done}",
                fix="fetch the file again",
            )
        done += more


def decode(data: bytes | bytearray | memoryview, dtype: str) -> np.ndarray:
    """Flat float32 (or float64) values of raw data. bf16, fp16 and fp32 are exact."""
    if dtype == "BF16":
        return (np.frombuffer(data, np.uint16).astype(np.uint32) << 16).view(np.float32)
    types = {"F32": np.float32, "F64": np.float64, "F16": np.float16}
    if dtype not in types:
        raise FrankenError(
            f"cannot compute with {dtype}", why="it is not a floating type that is supported"
        )
    values = np.frombuffer(data, types[dtype])
    return values.astype(np.float32) if dtype == "F16" else values


def read_array(entry: TensorEntry) -> np.ndarray:
    """A tensor as float32 (float64 for F64), in its shape."""
    return decode(read_bytes(entry), entry.dtype).reshape(entry.shape)


def _stored(folder: Path) -> Iterator[tuple[Path, Stored]]:
    """Every tensor of the folder with its file: of the single one, or of the index's shards."""
    single, index = (os.path.lexists(folder / name) for name in (SINGLE, INDEX))
    if index:
        listed = read_index(folder)
        if single and set(listed.values()) != {SINGLE}:
            raise FrankenError(
                f"{folder} holds both {SINGLE} and {INDEX}",
                why="transformers reads the one, and other readers the shards of the other",
                fix="remove the one that is not the model",
            )
        yield from _sharded(folder, listed)
    elif single:
        file = inside(folder, SINGLE)
        yield from ((file, stored) for stored in read_header(file))
    elif any(next(folder.glob(pattern), None) for pattern in PICKLES):
        raise FrankenError(
            f"{folder} holds pickled weights only",
            why="a pickle can run code when it is read",
            fix="convert it with transformers' save_pretrained, which writes safetensors",
        )
    else:
        raise FrankenError(
            f"no weights in {folder}",
            why=f"there is neither {SINGLE} nor {INDEX}",
            fix="give the folder of a model",
        )


def _sharded(folder: Path, listed: Mapping[str, str]) -> Iterator[tuple[Path, Stored]]:
    seen: set[str] = set()
    for shard in sorted(set(listed.values())):
        file = inside(folder, shard)
        for stored in read_header(file):
            if listed.get(stored.name) != shard:
                raise FrankenError(
                    f"{file} holds {stored.name}",
                    why=f"{INDEX} says that it is in {listed.get(stored.name, 'no shard')}",
                    fix=AGAIN,
                )
            seen.add(stored.name)
            yield file, stored
    absent = sorted(set(listed) - seen)
    if absent:
        raise FrankenError(
            f"{len(absent)} tensors of {folder / INDEX} are in no shard",
            why=f"for example {absent[0][:200]!r}, which should be in {listed[absent[0]]}",
            fix=AGAIN,
        )


def _from_hub(repo: str, download: bool) -> Path:
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import LocalEntryNotFoundError

    patterns = ["*.json", "*.safetensors", "*.jinja", "*.txt", "*.model"]
    try:
        return Path(snapshot_download(repo, local_files_only=not download, allow_patterns=patterns))
    except LocalEntryNotFoundError as e:
        raise UsageError(
            f"{repo} is not in the local cache",
            why="there is no such folder, and nothing is downloaded unless asked for",
            fix=f"check the path, or fetch the model: hf download {repo} (diff, probe and eval "
            "take --download)",
        ) from e
