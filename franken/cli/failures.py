"""What a command line says when something went wrong: three lines for people, one object for
programs, and one line where it is franken's own fault.
"""

import errno
import json as json_module
import os
import platform
import re
import sys
import tempfile
import traceback

from typer.exceptions import TyperException

from franken.errors import FrankenError, UsageError
from franken.secrets import redact


class Fault(FrankenError):
    """Something that nobody foresaw: franken's own fault."""


OUT_OF_MEMORY = re.compile(r"^OutOfMemoryError |^RuntimeError .*can't allocate memory")  # torch's
FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
FIXES = {
    **dict.fromkeys(FULL, "free some space; the same command goes on from here"),
    errno.EACCES: "choose another folder, or change its permissions",
    errno.EPERM: "choose another folder, or change its permissions",
    errno.EROFS: "choose a folder on a disk that can be written",
    errno.ENAMETOOLONG: "choose a shorter name",
    errno.EMFILE: "raise the limit of open files (ulimit -n), or use fewer --jobs",
}


def as_franken_error(error: Exception) -> FrankenError:
    """What a user is told of any exception: its own words, those of the system, or that franken is
    to blame.
    """
    if isinstance(error, FrankenError):
        return error
    if isinstance(error, TyperException):
        text = getattr(error, "format_message", lambda: str(error))()
        return UsageError(text, why="the command line cannot be read", fix="add --help")
    if isinstance(error, OSError) and error.errno is not None:
        return _of_the_system(error)
    if isinstance(error, MemoryError) or OUT_OF_MEMORY.search(f"{type(error).__name__} {error}"):
        return FrankenError(
            "there is not enough memory",
            why=(str(error) or "the system gave no more").splitlines()[0][:300],
            fix="use fewer --jobs, a smaller batch, or another --device",
        )
    kind = f"{type(error).__name__}: {error}".splitlines()[0][:200]
    return Fault(
        f"this is a fault of franken, not yours ({kind})",
        why=f"details: {_details(error)}",
        fix="to report it, open an issue with that file; --debug shows the traceback",
    )


def tell(error: FrankenError, json: bool) -> None:
    """Print an error in lines on stderr, and with `json` as the one object on stdout."""
    what, why, fix = (redact(str(text)) for text in (error.what, error.why, error.fix))
    if json:
        content = {"what": what, "why": why, "fix": fix, "code": error.exit_code}
        print(json_module.dumps(content, indent=2))
    if isinstance(error, Fault):
        print("error: " + "; ".join((what, why, fix)), file=sys.stderr)
        return
    lines = [f"error: {what}"]
    lines += [f"  why: {why}"] if why else []
    lines += [f"  fix: {fix}"] if fix else []
    print("\n".join(lines), file=sys.stderr)


def _of_the_system(error: OSError) -> FrankenError:
    place = error.filename2 or error.filename
    what = "the disk is full" if error.errno in FULL else "a file cannot be read or written"
    fix = FIXES.get(error.errno or 0, "look at that path; franken --debug … shows where it is used")
    return FrankenError(f"{what}{f': {place}' if place else ''}", error.strerror or str(error), fix)


def _details(error: Exception) -> str:
    """A new file with the traceback and the versions, readable by its owner alone."""
    text = redact("".join(traceback.format_exception(error)))
    try:
        descriptor, path = tempfile.mkstemp(prefix="franken-fault-", suffix=".txt")
        with os.fdopen(descriptor, "w", encoding="utf-8", errors="replace") as file:
            file.write(f"{platform.platform()}, Python {platform.python_version()}\n{text}")
    except OSError:
        return "none, no file can be written"
    return path
