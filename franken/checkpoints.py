"""A checkpoint on disk: which tensors it holds, where their bytes are, and what part of the model
each one is.

Reads safetensors headers only; no torch, no transformers. Tensors are known by their canonical
names (`franken.names`), so that checkpoints saved under different spellings, in other shards or by
other versions fit together.
"""

import hashlib
import json
import os
import re
import struct
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from franken.contents import of_file
from franken.errors import FrankenError, UsageError
from franken.names import Place, canonical, depths_of, place

INDEX = "model.safetensors.index.json"
SINGLE = "model.safetensors"
ADAPTER = "adapter_config.json"
ITEM_BYTES = {
    "F64": 8,
    "F32": 4,
    "F16": 2,
    "BF16": 2,
    "I64": 8,
    "I32": 4,
    "I16": 2,
    "I8": 1,
    "U8": 1,
    "BOOL": 1,
    "F8_E4M3": 1,
    "F8_E5M2": 1,
    "F8_E8M0": 1,
}
MAX_HEADER = 100_000_000
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
    adapter's products.
    """

    folder: Path
    config: dict[str, Any]
    model_type: str
    tensors: dict[str, TensorEntry]
    updates: dict[str, LowRank] = field(default_factory=dict)

    @property
    def name(self) -> str:
        """What people call it, see `name_of`."""
        return name_of(self.folder)

    @cached_property
    def depths(self) -> dict[str, int]:
        """Number of layers by part."""
        return depths_of(entry.place for entry in self.tensors.values())

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
    folder = Path(text).expanduser()
    if folder.is_dir():
        return folder
    if re.fullmatch(r"[\w.-]+/[\w.-]+", text) and not folder.exists():
        return _from_hub(text, download)
    raise UsageError(
        f"no checkpoint at {text}",
        why="there is no such folder",
        fix="give a folder, a hub id, creature:base or creature:sft",
    )


def open_checkpoint(path_or_id: str | Path, *, download: bool = False) -> Checkpoint:
    """Read config and headers. Raises FrankenError, with the fix, for anything missing, truncated,
    pickled or unknown.
    """
    folder = resolve(path_or_id, download=download)
    if is_adapter(folder):
        raise UsageError(
            f"{folder.name} is a LoRA adapter",
            why="it holds no model, only what is added to one",
            fix="franken merge BASE ADAPTER --layers all makes a model of them; franken diff takes it after its base",
        )
    config = _read_json(folder / "config.json", "a checkpoint folder holds a config.json")
    model_type = str(config.get("model_type", ""))
    tensors: dict[str, TensorEntry] = {}
    for entry in _entries(folder, model_type):
        if entry.canonical in tensors:
            raise FrankenError(
                f"{entry.name} is there twice", why=f"once in {tensors[entry.canonical].file.name}"
            )
        tensors[entry.canonical] = entry
    return Checkpoint(folder, config, model_type, tensors)


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


def _entries(folder: Path, model_type: str) -> Iterator[TensorEntry]:
    index = folder / INDEX
    if index.exists():
        listed = _read_json(index, "the shard index must be JSON").get("weight_map", {})
        found: set[str] = set()
        for shard in sorted(set(listed.values())):
            path = (folder / shard).resolve()
            if not path.is_relative_to(folder.resolve()) and not (folder / shard).is_symlink():
                raise FrankenError(
                    f"the index points outside its folder: {shard}",
                    why="a shard must lie beside its index",
                    fix="do not use this checkpoint",
                )
            if not path.exists():
                raise FrankenError(
                    f"the shard {shard} is missing", why=f"{INDEX} names it", fix="fetch it again"
                )
            for entry in _file_tensors(folder / shard, model_type):
                found.add(entry.name)
                yield entry
        absent = set(listed) - found
        if absent:
            raise FrankenError(
                f"{len(absent)} tensors of the index are in no shard, e.g. {sorted(absent)[0]}"
            )
    elif (folder / SINGLE).exists():
        yield from _file_tensors(folder / SINGLE, model_type)
    elif any(next(folder.glob(pattern), None) for pattern in PICKLES):
        raise FrankenError(
            f"{folder} holds pickled weights only",
            why="a pickle can run code when it is read",
            fix="convert it with transformers' save_pretrained, which writes safetensors",
        )
    else:
        raise FrankenError(f"no weights in {folder}", why=f"there is neither {SINGLE} nor {INDEX}")


def file_entries(file: Path) -> Iterator[tuple[str, str, tuple[int, ...], int, int]]:
    """(name, dtype, shape, start, stop) of every tensor of a safetensors file, in the order of the
    bytes.

    Raises FrankenError for a file that is cut off or is something else.
    """
    size = file.stat().st_size
    with file.open("rb") as opened:
        length = struct.unpack("<Q", opened.read(8))[0] if size >= 8 else MAX_HEADER + 1
        if length > min(MAX_HEADER, size - 8):
            raise _broken(file, "the header is cut off")
        try:
            header = json.loads(opened.read(length))
        except (json.JSONDecodeError, UnicodeDecodeError) as e:
            raise _broken(file, "the header is not JSON") from e
    base = 8 + length
    tensors = {name: info for name, info in header.items() if name != "__metadata__"}
    for name, info in sorted(tensors.items(), key=lambda item: item[1]["data_offsets"]):
        start, stop = (base + offset for offset in info["data_offsets"])
        shape = tuple(info["shape"])
        expected = int(np.prod(shape, dtype=np.int64)) * ITEM_BYTES.get(info["dtype"], 0)
        if stop > size:
            raise _broken(file, f"{name} ends at byte {stop}, the file at {size}")
        if stop - start != expected:
            raise _broken(
                file, f"{name} has {stop - start} bytes, its shape and type need {expected}"
            )
        yield name, info["dtype"], shape, start, stop


def _file_tensors(file: Path, model_type: str) -> Iterator[TensorEntry]:
    for name, dtype, shape, start, stop in file_entries(file):
        spot = place(name, model_type)
        yield TensorEntry(name, canonical(name, model_type), file, dtype, shape, start, stop, spot)


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
            fix=f"check the path, or fetch the model: hf download {repo} (diff, probe and eval take --download)",
        ) from e


def _read_json(path: Path, why: str) -> dict[str, Any]:
    try:
        return json.loads(path.read_text())
    except FileNotFoundError as e:
        raise UsageError(
            f"{path.parent} has no {path.name}", why=why, fix="give the folder of a model"
        ) from e
    except json.JSONDecodeError as e:
        raise FrankenError(f"{path} is not JSON", why=str(e), fix="fetch the file again") from e


def _broken(file: Path, why: str) -> FrankenError:
    return FrankenError(
        f"{file.name} is truncated or not safetensors", why=why, fix="fetch the file again"
    )
