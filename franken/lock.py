"""One writer for a folder: a lock file beside it, with the pid of its holder.

The kernel holds the lock, so that it ends with its process however that ends, and a file that was
left behind locks nothing. It lies beside the folder, `.NAME.lock`, because what is in a result is
its own, and goes when the work is done. Left out: file systems that know no locks; there two
writers are not told apart.
"""

import errno
import hashlib
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from filelock import FileLock, Timeout

from franken.errors import UsageError

UNABLE = (errno.ENOLCK, errno.ENOTSUP, errno.ENOSYS)


@contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Be the only one to write `folder`. Raises UsageError, with the other's pid, when another
    process does.
    """
    folder = folder.resolve()
    file = _place(folder)
    lock = FileLock(file, blocking=False, fallback_to_soft=False)
    try:
        lock.acquire()
    except Timeout as e:
        why = f"process {_holder(file) or '(just started)'} is writing there"
        fix = "wait until it is done, or choose another --out"
        raise UsageError(f"{folder} is in use", why, fix) from e
    except OSError as e:
        if e.errno not in UNABLE:
            raise
    file.write_text(f"{os.getpid()}\n")
    try:
        yield
    finally:
        file.unlink(missing_ok=True)  # while it is locked: who waits for this file finds it gone
        lock.release()


def writer(folder: Path) -> str:
    """`process 123` while one writes `folder`, else an empty string: for readers, who never
    wait.
    """
    file = _place(folder.resolve(), make=False)
    if not file.exists():
        return ""
    lock = FileLock(file, blocking=False, fallback_to_soft=False)
    try:
        with lock:
            return ""  # what a killed writer left behind
    except Timeout:
        return f"process {_holder(file)}".strip()
    except OSError:  # not ours to lock: another user's, or on a disk that is only read
        return ""


def _holder(file: Path) -> str:
    """The pid in a lock file, empty where its holder has just come or gone."""
    try:
        return file.read_text().strip()
    except FileNotFoundError:
        return ""


def _place(folder: Path, *, make: bool = True) -> Path:
    """Beside the folder; where nothing can be written there (a mounted volume), in the directory of
    temporary files.
    """
    try:
        if make:
            folder.parent.mkdir(parents=True, exist_ok=True)
        writable = os.access(folder.parent, os.W_OK)
    except OSError:
        writable = False
    if writable:
        return folder.parent / f".{folder.name}.lock"
    digest = hashlib.sha256(str(folder).encode()).hexdigest()[:16]
    return Path(os.environ.get("TMPDIR") or "/tmp") / f"franken-{digest}.lock"
