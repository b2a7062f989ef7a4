"""A sound checkpoint, taken apart to be changed and put together again."""

import json
import shutil
import struct
from collections.abc import Callable
from pathlib import Path
from random import Random

from franken.models.creature import creature_path

SINGLE, INDEX, CONFIG = "model.safetensors", "model.safetensors.index.json", "config.json"
BIG = (2**31, 2**32 + 1, 2**63 - 1, 2**63, 2**64, 10**30)
ODD = (None, True, -1, 1.5, "x", [], [1], {}, {"a": 1}, 10**30, "\0", float("1e308"))


class Parts:
    """A copy of a sound checkpoint, taken apart: header, data and configuration."""

    def __init__(self, path: Path, rng: Random) -> None:
        self.path, self.rng = path, rng
        whole = (path / SINGLE).read_bytes()
        length = struct.unpack("<Q", whole[:8])[0]
        self.header, self.data = json.loads(whole[8 : 8 + length]), whole[8 + length :]
        self.header.pop("__metadata__", None)
        self.config = json.loads((path / CONFIG).read_text())

    def tensor(self, containing: str = "") -> str:
        """A tensor of the decoder or the tower, drawn."""
        return self.rng.choice([n for n in sorted(self.header) if containing in n])

    def matrix(self) -> str:
        """A matrix of a layer that is not square."""
        shapes = {n: i["shape"] for n, i in self.header.items()}
        names = [n for n, s in shapes.items() if len(s) == 2 and s[0] != s[1] and ".layers." in n]
        return self.rng.choice(sorted(names))

    def text(self) -> bytes:
        """The header as JSON."""
        return json.dumps(self.header).encode()

    def write(
        self, header: bytes | None = None, data: bytes | None = None, length: int | None = None
    ) -> None:
        """Put it together again, with another header, data or stated length."""
        text = self.text() if header is None else header
        size = struct.pack("<Q", (len(text) if length is None else length) % 2**64)
        (self.path / SINGLE).write_bytes(size + text + (self.data if data is None else data))
        (self.path / CONFIG).write_text(json.dumps(self.config))


Change = Callable[[Parts], object]


def copied(path: Path) -> Path:
    """A sound creature in `path`."""
    return Path(shutil.copytree(creature_path("sft"), path))
