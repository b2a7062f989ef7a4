"""Fingerprints of files: equal where the contents are, and fast where they are large.

A run resumes only where its inputs are the same, so a changed file must never look equal. A file of
up to 16 MiB is hashed whole; its time says nothing, so that copies are equal. A larger one gives
its size, when it was last written, and 256 blocks spread over it: a change anywhere writes the time
anew, and a copy made with another time is, on the safe side, another file.
"""

import hashlib
import os
from pathlib import Path

WHOLE = 16 * 2**20
BLOCKS, BLOCK = 256, 1024


def of_file(path: Path) -> str:
    """A hash of a file, 16 hexadecimal digits. Raises OSError."""
    with path.open("rb") as opened:
        found = os.fstat(opened.fileno())
        digest = hashlib.sha256(str(found.st_size).encode())
        if found.st_size <= WHOLE:
            digest.update(opened.read())
        else:
            digest.update(str(found.st_mtime_ns).encode())
            for i in range(BLOCKS):
                opened.seek((found.st_size - BLOCK) * i // (BLOCKS - 1))
                digest.update(opened.read(BLOCK))
    return digest.hexdigest()[:16]


def of_path(path: Path) -> str:
    """A hash of a file, or of all files below a folder with their names; hidden ones are left out.
    Raises OSError.
    """
    if path.is_file():
        return of_file(path)
    digest = hashlib.sha256()
    for name in sorted(p.relative_to(path) for p in path.rglob("*") if p.is_file()):
        if not any(part.startswith(".") for part in name.parts):
            digest.update(f"{name.as_posix()}\0{of_file(path / name)}\0".encode())
    return digest.hexdigest()[:16]
