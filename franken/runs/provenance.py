"""What computed the numbers, and paths as a record may hold them."""

import os
import subprocess
import sys
import time
from collections.abc import Mapping
from importlib import metadata
from pathlib import Path
from typing import TypedDict

from franken.distribution import NAME

PACKAGES = (
    "torch",
    "transformers",
    "safetensors",
    "mergekit",
    "nnsight",
    "transformer-lens",
    "numpy",
    "pandas",
)
CREATURE = Path(__file__).parents[1] / "models" / "weights" / "creature"


class Commit(TypedDict):
    """The commit of franken's source, and whether files in it were changed since."""

    commit: str
    dirty: bool


class Provenance(TypedDict):
    """Versions of what computed a run; null is what is not installed."""

    franken: str | None
    git: Commit | None
    python: str
    packages: dict[str, str | None]
    threads: str | None
    time: str


def provenance() -> Provenance:
    """Versions of franken, its commit, Python and packages; the number of threads; the time."""
    return {
        "franken": _version(NAME),
        "git": _git(),
        "python": sys.version.split()[0],
        "packages": {name: _version(name) for name in PACKAGES},
        "threads": os.environ.get("OMP_NUM_THREADS"),
        "time": time.strftime("%Y-%m-%dT%H:%M:%S%z"),
    }


def portable(value: object, folder: Path) -> object:
    """`value` with the absolute paths in it as a manifest may hold them: runs are moved and sent,
    machines are not.

    What lies beside the folder of the runs is relative to the run `folder`; the shipped checkpoints
    and the hub's cache are called by their names, as on the command line; anything else by its last
    part (identity.json has its content's hash). A run's `data` is not passed through here:
    regrading and the galleries read it again, so it stays as it was typed.
    """
    if isinstance(value, Mapping):
        return {key: portable(item, folder) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [portable(item, folder) for item in value]
    if not isinstance(value, str | Path) or not Path(value).is_absolute():
        return value
    path, above = Path(value), folder.resolve().parents
    if path.parent == CREATURE:
        return f"creature:{path.name}"
    hub = next((part for part in path.parts if part.startswith("models--")), None)
    if hub:
        return hub.removeprefix("models--").replace("--", "/")
    if len(above) > 3 and path.is_relative_to(above[2]):
        return os.path.relpath(path, folder.resolve())
    return path.name


def _version(package: str) -> str | None:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None


def _git() -> Commit | None:
    def git(*arguments: str) -> str:
        command = ["git", "-C", str(Path(__file__).parents[1]), *arguments]
        return subprocess.run(
            command, capture_output=True, text=True, check=True, timeout=10
        ).stdout.strip()

    try:
        return {
            "commit": git("rev-parse", "HEAD"),
            "dirty": bool(git("status", "--porcelain", "--", ".")),
        }
    except (OSError, subprocess.SubprocessError):
        return None
