"""Where results go: a folder that can be made, or the reason why not, before any work is done."""

import os
from pathlib import Path

from franken.errors import UsageError

KERNEL = ("/proc", "/sys")  # which root may write to, it says
SPARE = 24  # characters that names beside the result add to its own: .NAME.partial, NAME.FAILED


def output_folder(path: Path, *, finished: str = "") -> Path:
    """The folder with `~` expanded. Raises UsageError where none can be made: under a file or a
    dangling link, in a folder that cannot be written, or with a name that is too long.

    A folder that has the file `finished` is only read, and need not be writable.
    """
    try:
        given = path.expanduser()
        folder = Path(os.path.abspath(given))
        nearest = next(p for p in (folder, *folder.parents) if os.path.lexists(p))
        limit = os.pathconf(nearest if nearest.is_dir() else nearest.parent, "PC_NAME_MAX")
    except (OSError, RuntimeError, ValueError) as e:  # not allowed, too long, no such user, a NUL
        raise _unusable(path, getattr(e, "strerror", None) or str(e)) from e
    if nearest.is_symlink() and not nearest.exists():
        raise _unusable(path, f"{nearest} is a link to nothing")
    if not nearest.is_dir():
        raise _unusable(path, f"{nearest} is not a folder")
    longest = max((len(os.fsencode(part)) for part in folder.parts), default=0)
    if longest + SPARE > limit or len(os.fsencode(folder)) + 8 * SPARE > 4096:
        raise _unusable(path, "the name is too long")
    if any(nearest.is_relative_to(place) for place in KERNEL):
        raise _unusable(path, f"{nearest} holds no files")
    complete = bool(finished) and (folder / finished).exists()
    if not complete and not os.access(nearest, os.W_OK | os.X_OK):
        raise _unusable(path, f"{nearest} cannot be written")
    return given if given.name not in ("", "..") else folder


def output_file(path: Path) -> Path:
    """A file to write, with `~` expanded; its folder is made. Raises UsageError where there can be
    none: for a folder, a device, a pipe, a link to nothing, or below what is no folder.
    """
    given = path.parent / path.name
    folder = output_folder(given.parent)
    file = folder / given.name
    try:
        if os.path.lexists(file) and not file.is_file():
            raise _unusable(path, "there is something that is no file")
        folder.mkdir(parents=True, exist_ok=True)
        if len(os.fsencode(file.name)) > os.pathconf(folder, "PC_NAME_MAX"):
            raise _unusable(path, "the name is too long")
    except (OSError, ValueError) as e:
        raise _unusable(path, getattr(e, "strerror", None) or str(e)) from e
    return file


def refuse_other(out: Path, mark: str) -> None:
    """Raises UsageError for a folder that holds something, but no file `mark`."""
    if out.exists() and any(out.iterdir()) and not (out / mark).exists():
        raise UsageError(
            f"{out} holds something else",
            why=f"it has no {mark}",
            fix="choose another --out, or move it away",
        )


def _unusable(path: Path, why: str) -> UsageError:
    return UsageError(f"cannot write to {path}", why=why, fix="choose another --out")
