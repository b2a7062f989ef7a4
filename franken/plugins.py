"""Your own task, probe, reward, advantage or model family, from one Python file that is named on
the command line.

    franken --plugin mine.py eval creature:sft --tasks mine

The file is run once, as a module, and calls `register`. Only local files that the user names are
run, never one that a checkpoint or a data set brings. What was registered is found by the rooms
under its name, beside what is built in; the file's contents become part of what a run is known by.
Worker processes learn of the files from the environment variable FRANKEN_PLUGINS. Left out: entry
points of installed packages, which would run code that nobody named.
"""

import hashlib
import importlib.util
import os
import sys
from collections.abc import Container, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from franken.errors import FrankenError, UsageError, check_known

KINDS = ("task", "probe", "reward", "advantage", "loss", "family", "names")
VARIABLE = "FRANKEN_PLUGINS"

_built_in: dict[str, dict[str, Any]] = {kind: {} for kind in KINDS}
_own: dict[str, dict[str, Any]] = {kind: {} for kind in KINDS}  # of plugins
_files: dict[str, str] = {}  # resolved path → SHA-256 of its contents
_filling = _own


def register(kind: str, name: str, thing: object) -> None:
    """Make `thing` known as `name`. Kinds, and what `thing` is (docs/extending.md has a template of
    each):

    task        a `franken.tasks.Puzzle`
    probe       `measure(loaded, prompt, reply)` → a dictionary of numbers a decoder layer; or a
                `franken.probe.method.Method`, which franken's own are
    reward      `reward(replies, rows, context)` → a number a reply
    advantage   `advantage(rewards, groups, **options)` → `[prompts, group]`, or a third dimension
                of tokens
    loss        `loss(tokens, **options)` → the policy loss of every token, `[rows, tokens]`
    family      a `franken.models.families.Family`, under its `model_type`
    names       rules for a family's tensor names, as in franken/names.py, under its `model_type`

    Raises UsageError for another kind, a name that is taken, or a thing that cannot be called where
    it has to be.
    """
    check_known("kind of plugin", [kind], KINDS)
    if name in _filling[kind]:
        raise UsageError(
            f"the {kind} {name!r} is registered twice",
            "two plugins, or one twice",
            "rename one of them",
        )
    is_method = kind == "probe" and callable(getattr(thing, "measure", None))
    if kind in ("probe", "reward", "advantage", "loss") and not (callable(thing) or is_method):
        raise UsageError(
            f"the {kind} {name!r} is not a function", f"it is a {type(thing).__name__}"
        )
    _filling[kind][name] = thing


@contextmanager
def built_in() -> Iterator[None]:
    """While it lasts, what is registered is franken's own, and no plugin's."""
    global _filling
    before, _filling = _filling, _built_in
    try:
        yield
    finally:
        _filling = before


def find(kind: str, name: str, taken: Container[str] = ()) -> Any | None:
    """What is registered under `name`, or None. Raises UsageError for a plugin's name that is built
    in as well, registered or `taken`.
    """
    own = _own[kind].get(name)
    if own is not None and (name in _built_in[kind] or name in taken):
        raise UsageError(
            f"the plugin's {kind} {name!r} has the name of a built-in one", fix="rename it"
        )
    return own or _built_in[kind].get(name)


def names(kind: str) -> list[str]:
    """What is registered, franken's own first, each in that order."""
    return list(_built_in[kind] | _own[kind])


def use(path: str | Path) -> None:
    """Run a plugin file, once a process. Raises UsageError where there is none, FrankenError with
    what it raised.
    """
    file = Path(path).expanduser().resolve()
    if str(file) in _files:
        return
    if file.suffix != ".py" or not file.is_file():
        raise UsageError(
            f"no plugin at {path}", why="it is no Python file", fix="give --plugin FILE.py"
        )
    known = {kind: dict(things) for kind, things in _own.items()}
    digest = hashlib.sha256(file.read_bytes()).hexdigest()
    name = f"franken_plugin_{digest[:12]}"
    spec = importlib.util.spec_from_file_location(name, file)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module  # dataclasses and pickles look their module up
    try:
        spec.loader.exec_module(module)
    except Exception as e:  # noqa: BLE001 - a plugin may be anyone's code: whatever it raises is reported, with its file
        _own.update(known)
        del sys.modules[name]
        what = e.what if isinstance(e, FrankenError) else f"{type(e).__name__}: {e}"
        raise FrankenError(
            f"the plugin {path} failed", why=what, fix="--debug shows the traceback"
        ) from e
    _files[str(file)] = digest
    os.environ[VARIABLE] = os.pathsep.join(_files)


def use_named() -> None:
    """Run the files of FRANKEN_PLUGINS, which is how a worker learns of them."""
    for path in filter(None, os.environ.get(VARIABLE, "").split(os.pathsep)):
        use(path)


def identity() -> dict[str, list[str]]:
    """What plugins add to the identity of a run: the hashes of their files; nothing without any."""
    return {"plugins": sorted(_files.values())} if _files else {}


def forget() -> None:
    """Undo every `use` and every plugin's `register` of this process."""
    for things in _own.values():
        things.clear()
    _files.clear()
    os.environ.pop(VARIABLE, None)
