"""Pictures in an archive beside the table, as data sets of many small files are published.

Members are read one at a time, into memory, and never written: no name in an archive can point
anywhere. Taken are `.zip` and `.tar`, in the folder of the data. A compressed tar has no index, so
that every picture would cost a pass over all of it: it is named, and left out.
"""

import tarfile
import zipfile
import zlib
from collections.abc import Callable, Iterator
from functools import lru_cache
from pathlib import Path, PurePosixPath
from typing import NamedTuple

from franken.errors import FrankenError

KINDS = (".zip", ".tar")
COMPRESSED = (".tar.gz", ".tgz", ".tar.bz2", ".tar.xz", ".tar.zst")
LARGEST = 2**28  # bytes of one picture
BROKEN = (OSError, zipfile.BadZipFile, tarfile.TarError, RuntimeError, ValueError, zlib.error)


class Archive(NamedTuple):
    """The members of one archive, by their names, with their sizes in bytes."""

    path: Path
    sizes: dict[str, int]
    read: Callable[[str], bytes]


def member(folder: Path, name: str) -> bytes | None:
    """The bytes of a picture that some archive of the folder holds under this name, with or without
    the archive's own name in front; None where there is none.

    Raises FrankenError for what cannot be read, and where pictures may lie in a compressed tar.
    """
    wanted = _normal(name)
    for archive in _archives(folder):
        inside = archive.path.name.partition(".")[0]
        for spelling in (wanted, f"{inside}/{wanted}", wanted.removeprefix(f"{inside}/")):
            if spelling in archive.sizes:
                return _read(archive, spelling, name)
    packed = [f.name for f in _files(folder) if f.name.endswith(COMPRESSED)]
    if packed:
        raise FrankenError(
            f"{name} is not here, and {packed[0]} cannot be read one picture at a time",
            fix=f"unpack {packed[0]}, or pack it anew as .zip or .tar",
        )
    return None


def _read(archive: Archive, name: str, wanted: str) -> bytes:
    if archive.sizes[name] > LARGEST:
        raise FrankenError(f"{wanted} has {archive.sizes[name]} bytes in {archive.path.name}")
    try:
        return archive.read(name)
    except BROKEN as e:
        raise FrankenError(f"{wanted} cannot be read from {archive.path.name}: {e}") from e


def _normal(name: str) -> str:
    return PurePosixPath(name.replace("\\", "/")).as_posix()


def _files(folder: Path) -> Iterator[Path]:
    return (f for f in sorted(folder.iterdir()) if f.is_file() and not f.name.startswith("."))


@lru_cache(maxsize=16)
def _archives(folder: Path) -> tuple[Archive, ...]:
    """The archives of a folder, opened once; their files stay open for as long as they are used."""
    return tuple(_opened(f) for f in _files(folder) if f.suffix in KINDS)


def _opened(path: Path) -> Archive:
    try:
        return _zip(path) if path.suffix == ".zip" else _tar(path)
    except BROKEN as e:
        raise FrankenError(f"{path.name} cannot be read: {e}", fix="fetch it again") from e


def _zip(path: Path) -> Archive:
    opened = zipfile.ZipFile(path)
    sizes = {_normal(i.filename): i.file_size for i in opened.infolist() if not i.is_dir()}
    names = {_normal(name): name for name in opened.namelist()}

    def read(name: str) -> bytes:
        with opened.open(names[name]) as file:  # a header that lies ends in an error, not in memory
            data = file.read(sizes[name] + 1)
        if len(data) != sizes[name]:
            raise ValueError(f"it has not the {sizes[name]} bytes that its header says")
        return data

    return Archive(path, sizes, read)


def _tar(path: Path) -> Archive:
    with tarfile.open(path, "r:") as opened:
        places = {
            _normal(i.name): (i.offset_data, i.size) for i in opened if i.isreg() and not i.sparse
        }

    def read(name: str) -> bytes:
        start, size = places[name]
        with path.open("rb") as file:
            file.seek(start)
            data = file.read(size)
        if len(data) != size:
            raise ValueError("it is cut off")
        return data

    return Archive(path, {name: size for name, (_, size) in places.items()}, read)
