"""Errors that say what happened, why, and how to fix it. Each class has its exit code."""

import difflib
from collections.abc import Iterable


class FrankenError(Exception):
    """Anything a user can be told about. `what` happened, `why`, and the `fix`."""

    exit_code = 1

    def __init__(self, what: str, why: str = "", fix: str = "") -> None:
        super().__init__(what)
        self.what, self.why, self.fix = what, why, fix


class UsageError(FrankenError):
    """The request itself is wrong: exit code 2."""

    exit_code = 2


class VerificationError(FrankenError):
    """A result does not hold what it promises: exit code 4."""

    exit_code = 4


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """`did you mean 'x'?`, or an empty string when nothing is close."""
    close = difflib.get_close_matches(name, list(known), n=1)
    return f"did you mean {close[0]!r}?" if close else ""


def unknown(
    what: str, name: str, known: Iterable[str], *, why: str = "", fix: str = "pick one"
) -> UsageError:
    """The error for a name that is none of `known`: which there are, and the nearest one."""
    known = [word for word in known if word]
    return UsageError(
        f"unknown {what} {name!r}",
        why or f"there are {', '.join(known)}",
        did_you_mean(name, known) or fix,
    )


def check_known(
    what: str, names: Iterable[str], known: Iterable[str], *, why: str = "", fix: str = "pick one"
) -> None:
    """Raises `unknown` for the first of `names` that is none of `known`."""
    known = list(known)
    for name in names:
        if name not in known:
            raise unknown(what, name, known, why=why, fix=fix)


def check_positive(option: str, number: int) -> None:
    """Raises UsageError for a number below 1."""
    if number < 1:
        raise UsageError(
            f"{option} {number} is not positive", fix=f"give {option} a number from 1 up"
        )
