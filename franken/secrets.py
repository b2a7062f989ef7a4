"""Keys of endpoints: where they come from, and a text without them.

A key is in an environment variable, or in the file that the variable with `_FILE` behind its name
gives. It is never an option, because command lines are recorded. What is printed or stored goes
through `redact` where it may hold a key or an address with one in it.
"""

import os
import re
from collections.abc import Iterator
from pathlib import Path

from franken.errors import UsageError

VARIABLES = ("OPENAI_API_KEY", "FRANKEN_JUDGE_KEY", "FRANKEN_EMBEDDING_KEY", "HF_TOKEN")
SHORTEST = 8  # characters: shorter ones are words that servers without keys are given (EMPTY, x)
LARGEST_FILE = 16 * 2**10  # bytes
MARK = "***"
WORD = re.compile(r"[^\s'\"]+")


def find_key(variable: str) -> str:
    """The key of an environment variable or its file, without spaces around it; empty without one.

    Raises UsageError for a file that cannot be read, and for a key with characters in it that no
    header may have. The message names the place and never the key.
    """
    key, place = os.environ.get(variable, "").strip(), variable
    if not key and (file := os.environ.get(f"{variable}_FILE", "").strip()):
        key, place = _in_file(Path(file).expanduser(), variable), file
    if key and not re.fullmatch(r"[\x21-\x7e]+", key):
        why = "it holds spaces or other characters that no header may have"
        raise UsageError(f"{place} holds no key", why, "write it anew, on one line")
    return key


def redact(text: str) -> str:
    """The text without any key of this process, and without what stands in addresses before an `@`
    or behind a `?`, `#` or `;`.
    """
    return without_keys(WORD.sub(lambda word: _bare(word[0]), text))


def _bare(word: str) -> str:
    """A word without what it says before an `@` or behind an address, in time linear in its
    length: errors repeat whatever was given.
    """
    before, at, host = word.rpartition("@")  # a careless password holds @ and slashes
    if at and "://" in before:
        word = f"{before.partition('://')[0]}://{MARK}@{host}"
    elif at and (start := _start_of_pair(before)) is not None:
        word = f"{before[:start]}{MARK}@{host}"
    scheme, colon, rest = word.partition("://")
    if colon and (end := re.search(r"[?#;]", rest)):
        secret = rest[end.end() :]
        if secret and not re.match(r"MODEL\b", secret):
            return f"{scheme}://{rest[: end.start()]}{MARK}"
    return word


def _start_of_pair(text: str) -> int | None:
    """Where `user:password` begins; None where there is no such pair."""
    for colon in re.finditer(":", text):
        at = colon.start()
        if at and text[at - 1] != "/" and text[at + 1 : at + 3] != "//":
            return text.rfind("/", 0, at) + 1
    return None


def without_keys(text: str) -> str:
    """The text without any key of this process."""
    for key in _keys():
        text = text.replace(key, MARK)
    return text


def _keys() -> Iterator[str]:
    for variable in VARIABLES:
        try:
            key = find_key(variable)
        except UsageError:  # what is no key may still be a secret
            key = os.environ.get(variable, "").strip()
        if len(key) >= SHORTEST:
            yield key


def _in_file(path: Path, variable: str) -> str:
    fix = f"check {variable}_FILE"
    try:
        if not path.is_file():  # a pipe would be waited for
            raise UsageError(f"{path} is no file with a key", "there is no such file", fix)
        with path.open("rb") as file:
            content = file.read(LARGEST_FILE + 1)
    except OSError as e:
        raise UsageError(f"{path} cannot be read", e.strerror or str(e), fix) from e
    if len(content) > LARGEST_FILE:
        raise UsageError(f"{path} is no file with a key", "it is too large", fix)
    return content.decode(errors="replace").strip()
