"""Changes of a checkpoint in two shards, each of which makes it one that must be refused."""

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from random import Random

from attacks.parts import INDEX, SINGLE
from franken.models.creature import creature_path


class Shards:
    """A checkpoint in two shards and an index."""

    def __init__(self, path: Path, rng: Random) -> None:
        self.path, self.rng = path, rng
        self.index = json.loads((path / INDEX).read_text())
        self.map: dict[str, object] = self.index["weight_map"]

    def write(self) -> None:
        """Write the index."""
        (self.path / INDEX).write_text(json.dumps(self.index))

    def put(self, shard: object) -> None:
        """Say that a drawn tensor is in `shard`."""
        self.map[self.rng.choice(sorted(self.map))] = shard
        self.write()


def split(path: Path) -> None:
    """Make two shards of a single file."""
    from safetensors.numpy import load_file, save_file

    tensors = load_file(path / SINGLE)
    names, where = sorted(tensors), {}
    for number, chosen in enumerate((names[::2], names[1::2])):
        shard = f"model-0000{number + 1}-of-00002.safetensors"
        save_file({name: tensors[name] for name in chosen}, path / shard, {"format": "pt"})
        where |= dict.fromkeys(chosen, shard)
    (path / SINGLE).unlink()
    total = sum(t.nbytes for t in tensors.values())
    index = {"metadata": {"total_size": total}, "weight_map": where}
    (path / INDEX).write_text(json.dumps(index))


ONE = "model-00001-of-00002.safetensors"


def _shard_as(make: Callable[[Path], object]) -> Callable[[Shards], object]:
    return lambda s: ((s.path / ONE).unlink(), make(s.path / ONE))


def _through_a_link(s: Shards) -> None:
    (s.path / ONE).rename(s.path.parent / ONE)
    (s.path / ONE).symlink_to(s.path.parent / ONE)


def _through_a_folder(s: Shards) -> None:
    (s.path.parent / "outside").mkdir()
    (s.path / ONE).rename(s.path.parent / "outside" / ONE)
    (s.path / "in").symlink_to(s.path.parent / "outside")
    s.index["weight_map"] = {n: f"in/{ONE}" if v == ONE else v for n, v in s.map.items()}
    s.write()


def _second_copy(s: Shards) -> None:
    shutil.copy(s.path / ONE, s.path / "model-00003-of-00002.safetensors")
    s.map.update({f"{name}.x": "model-00003-of-00002.safetensors" for name in list(s.map)[:1]})
    s.write()


def _index_as(content: object) -> Callable[[Shards], object]:
    return lambda s: (s.path / INDEX).write_text(json.dumps(content))


SHARDED: dict[str, Callable[[Shards], object]] = {
    "shard: through a link": _through_a_link,
    "shard: through a linked folder": _through_a_folder,
    "shard: absent": _shard_as(lambda f: None),
    "shard: a pipe": _shard_as(os.mkfifo),
    "shard: a device": _shard_as(lambda f: f.symlink_to("/dev/zero")),
    "shard: empty": _shard_as(lambda f: f.write_bytes(b"")),
    "shard: the other one": _shard_as(
        lambda f: shutil.copy(f.with_name(ONE.replace("00001", "00002", 1)), f)
    ),
    "index: a number": lambda s: s.put(1),
    "index: a list": lambda s: s.put([ONE]),
    "index: an absolute path": lambda s: s.put("/etc/passwd"),
    "index: the folder above": lambda s: s.put(f"../{ONE}"),
    "index: a folder": lambda s: s.put("."),
    "index: no name": lambda s: s.put(""),
    "index: a NUL": lambda s: s.put(f"{ONE}\0"),
    "index: too long": lambda s: s.put("a" * 5000),
    "index: the wrong shard": lambda s: s.put(ONE.replace("00001", "00003")),
    "index: more than there is": lambda s: (s.map.update({"model.more": ONE}), s.write()),
    "index: less than there is": lambda s: (s.map.pop(sorted(s.map)[3]), s.write()),
    "index: no map": _index_as({"metadata": {}}),
    "index: an empty map": _index_as({"weight_map": {}}),
    "index: a list as map": _index_as({"weight_map": [ONE]}),
    "index: null": _index_as(None),
    "index: deep": lambda s: (s.path / INDEX).write_text('{"a":' * 10**5),
    "index: a pipe": lambda s: ((s.path / INDEX).unlink(), os.mkfifo(s.path / INDEX)),
    "a copy of a shard": _second_copy,
    "one file beside the shards": lambda s: shutil.copy(creature_path("base") / SINGLE, s.path),
}
