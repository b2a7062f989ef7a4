"""One writer for a folder: a lock file beside it, with the pid of its holder.

The kernel holds the lock (flock), so that it ends with its process however that ends, and a file
that was left behind locks nothing. It lies beside the folder, `.NAME.lock`, because what is in a
result is its own, and goes when the work is done. Left out: file systems that know no locks; there
two writers are not told apart.
"""

from __future__ import annotations

import errno
import fcntl
import hashlib
import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from franken.errors import UsageError

UNABLE = (errno.ENOLCK, errno.ENOTSUP, errno.ENOSYS)


@contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Be the only one to write `folder`. Raises UsageError, with the other's pid, when another
    process does.
    """
    folder = folder.resolve()
    file = _place(folder)
    descriptor = _acquire(file, folder)
    os.truncate(descriptor, 0)
    os.write(descriptor, f"{os.getpid()}\n".encode())
    try:
        yield
    finally:
        file.unlink(missing_ok=True)
        os.close(descriptor)


def _place(folder: Path) -> Path:
    """Beside the folder; where nothing can be written there (a mounted volume), in the directory of
    temporary files.
    """
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        writable = os.access(folder.parent, os.W_OK)
    except OSError:
        writable = False
    if writable:
        return folder.parent / f".{folder.name}.lock"
    digest = hashlib.sha256(str(folder).encode()).hexdigest()[:16]
    return Path(tempfile.gettempdir()) / f"franken-{digest}.lock"


def _acquire(file: Path, folder: Path) -> int:
    """An open, locked descriptor of `file`, and of no file that its last holder has just removed."""
    while True:
        descriptor = os.open(file, os.O_RDWR | os.O_CREAT, 0o644)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as e:
            holder = os.read(descriptor, 20).decode().strip()
            os.close(descriptor)
            why = f"process {holder or '(just started)'} is writing there"
            raise UsageError(
                f"{folder} is in use", why, "wait until it is done, or choose another --out"
            ) from e
        except OSError as e:
            if e.errno not in UNABLE:
                os.close(descriptor)
                raise
        if file.exists() and file.stat().st_ino == os.fstat(descriptor).st_ino:
            return descriptor
        os.close(descriptor)
