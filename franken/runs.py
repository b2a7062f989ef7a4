"""The run folder: what every command that measures leaves behind, and how it resumes.

    out/<verb>/<label>-<hash8>/
      parts/00000.parquet …   rows, written while the run goes on; an interrupt loses at most one
                              part
      samples.parquet         all rows
      layers.parquet          the tidy summary
      run.json                the manifest, written last: its existence proves completion

The hash covers everything that changes the numbers, so that a resumed run can only reuse rows that
mean the same. A failed sample is a row with its `error`.
"""

import hashlib
import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Any

from franken import plugins
from franken.errors import FrankenError, UsageError, did_you_mean

if TYPE_CHECKING:
    import pandas as pd

SCHEMA = 1
LAYER_COLUMNS = (
    "model",
    "method",
    "part",
    "layer",
    "component",
    "task",
    "metric",
    "value",
    "ci_low",
    "ci_high",
    "n",
    "p_adjusted",
)
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
IDENTITY = "identity.json"


@dataclass
class Run:
    """A run folder under construction."""

    folder: Path
    verb: str
    label: str
    identity: dict[str, Any]
    config: dict[str, Any]
    models: dict[str, str]
    started: float = field(default_factory=time.time)

    def is_complete(self) -> bool:
        """Whether the manifest is there."""
        return (self.folder / "run.json").exists()

    def rows(self) -> list[dict[str, Any]]:
        """All rows stored so far, in the order of writing."""
        import pandas as pd

        parts = self._parts()
        if not parts and (self.folder / "samples.parquet").exists():
            parts = [self.folder / "samples.parquet"]
        frames = [pd.read_parquet(part) for part in parts]
        if not frames:
            return []
        table = pd.concat(frames, ignore_index=True).astype(object)
        return table.where(table.notna(), None).to_dict("records")

    def append(self, rows: Sequence[Mapping[str, Any]]) -> None:
        """Store rows as one more part."""
        if not rows:
            return
        import pandas as pd

        parts = self._parts()
        number = int(parts[-1].stem) + 1 if parts else 0
        (self.folder / "parts").mkdir(exist_ok=True)
        write_parquet(pd.DataFrame(rows), self.folder / "parts" / f"{number:05d}.parquet")

    def finish(
        self,
        layers: Sequence[Mapping[str, Any]] | None,
        *,
        n_requested: int,
        warnings: Sequence[str] = (),
        extra: Mapping[str, Any] | None = None,
    ) -> Path:
        """Merge the parts, write the summary, then the manifest. Returns the folder."""
        import pandas as pd

        rows = self.rows()
        samples = pd.DataFrame(rows)
        write_parquet(samples, self.folder / "samples.parquet")
        table = pd.DataFrame(list(layers or []), columns=list(LAYER_COLUMNS))
        table["layer"] = table["layer"].astype("Int64")
        for column in ("value", "ci_low", "ci_high", "p_adjusted"):
            table[column] = table[column].astype("float64")
        write_parquet(table, self.folder / "layers.parquet")
        failed = sum(row.get("error") is not None for row in rows)
        manifest = {
            "schema": SCHEMA,
            "verb": self.verb,
            "label": self.label,
            "argv": [Path(sys.argv[0]).name, *sys.argv[1:]],
            "config": portable(self.config, self.folder)
            | {k: v for k, v in self.config.items() if k == "data"},
            "identity": self.identity,
            "models": portable(self.models, self.folder),
            **provenance(),
            "n_requested": n_requested,
            "n_ok": len(samples) - failed,
            "n_failed": failed,
            "seconds": round(time.time() - self.started, 1),
            "warnings": list(warnings),
            **portable(dict(extra or {}), self.folder),
        }
        atomic_write_text(self.folder / "run.json", json.dumps(manifest, indent=2, default=str))
        shutil.rmtree(self.folder / "parts", ignore_errors=True)
        return self.folder

    def _parts(self) -> list[Path]:
        return sorted((self.folder / "parts").glob("[0-9]*.parquet"))


@dataclass(frozen=True)
class LoadedRun:
    """A finished run."""

    folder: Path
    manifest: dict[str, Any]
    samples: "pd.DataFrame"
    layers: "pd.DataFrame"


def open_run(
    verb: str,
    label: str,
    identity: Mapping[str, Any],
    out: Path,
    *,
    config: Mapping[str, Any],
    models: Mapping[str, str] | None = None,
) -> Run:
    """Create, or open for resuming, the folder of a run.

    `identity` is everything that changes the numbers. Raises UsageError if the folder holds
    something else.
    """
    canonical = json.dumps({**identity, **plugins.identity()}, sort_keys=True, default=str)
    digest = hashlib.sha256(canonical.encode()).hexdigest()[:8]
    safe = "".join(c if c.isalnum() or c in "._-" else "-" for c in label) or "run"
    folder = out / verb / f"{safe}-{digest}"
    mark = folder / IDENTITY
    if folder.exists() and any(folder.iterdir()) and not mark.exists():
        raise UsageError(
            f"{folder} holds something else",
            why="it is not a run folder of this command",
            fix="choose another --out, or move it away",
        )
    folder.mkdir(parents=True, exist_ok=True)
    if mark.exists() and mark.read_text() != canonical:
        raise UsageError(
            f"{folder} belongs to another run",
            why="its identity differs",
            fix="choose another --out",
        )
    atomic_write_text(mark, canonical)
    return Run(folder, verb, label, json.loads(canonical), dict(config), dict(models or {}))


def load_run(folder: str | Path) -> LoadedRun:
    """Read a finished run. Raises FrankenError if it is not finished."""
    import pandas as pd

    folder = Path(folder)
    if not (folder / "run.json").exists():
        raise FrankenError(
            f"{folder} is not a finished run",
            why="it has no run.json",
            fix="run its command again; it resumes",
        )
    return LoadedRun(
        folder,
        json.loads((folder / "run.json").read_text()),
        pd.read_parquet(folder / "samples.parquet"),
        pd.read_parquet(folder / "layers.parquet"),
    )


def load_runs(
    root: str | Path,
    *,
    verb: str | Sequence[str] = (),
    model: str | Sequence[str] = (),
    samples: bool = False,
) -> "pd.DataFrame":
    """All finished runs below `root` as one tidy table, with the columns run, verb and label in
    front.

    A row a measurement (the columns of layers.parquet), or with `samples` a row an answer, those
    that failed included, with their `error`. What is not known is null. `verb` and `model` keep
    only those. Raises UsageError for a folder that is not there, and for a verb or model that no
    run has.
    """
    import pandas as pd

    if not Path(root).is_dir():
        raise UsageError(f"there is no folder {root}", fix="give a folder that holds run folders")
    runs = [load_run(manifest.parent) for manifest in sorted(Path(root).rglob("run.json"))]
    wanted = [verb] if isinstance(verb, str) and verb else list(verb)
    _known(wanted, {run.manifest["verb"] for run in runs}, "verb")
    frames = []
    for run in (r for r in runs if not wanted or r.manifest["verb"] in wanted):
        frame = (run.samples if samples else run.layers).copy()
        for place, name in enumerate(("run", "verb", "label")):
            frame.insert(place, name, run.folder.name if name == "run" else run.manifest[name])
        frames.append(frame)
    empty = pd.DataFrame(columns=["run", "verb", "label", *LAYER_COLUMNS])
    table: Any = (
        pd.concat([f for f in frames if len(f)], ignore_index=True)
        if any(map(len, frames))
        else empty
    )
    models = [model] if isinstance(model, str) and model else list(model)
    if models:
        _known(models, set(table["model"].dropna()) if "model" in table else set(), "model")
        table = table[table["model"].isin(models)].reset_index(drop=True)
    return table


def _known(wanted: Sequence[str], known: set[str], what: str) -> None:
    for name in wanted:
        if name not in known:
            there = f"there are {', '.join(sorted(known)) or 'none'}"
            raise UsageError(f"no run has the {what} {name!r}", there, did_you_mean(name, known))


def portable(value: Any, folder: Path) -> Any:
    """`value` with the absolute paths in it as a manifest may hold them: runs are moved and sent,
    machines are not.

    What lies beside the folder of the runs is relative to the run `folder`; the shipped checkpoints
    and the hub's cache are called by their names, as on the command line; anything else by its last
    part (identity.json has its content's hash). A run's
    `data` is not passed through here: regrading and the galleries read it again, so it stays as it
    was typed.
    """
    if isinstance(value, Mapping):
        return {key: portable(item, folder) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [portable(item, folder) for item in value]
    if not isinstance(value, str | Path) or not Path(value).is_absolute():
        return value
    path, home = (
        Path(value),
        folder.resolve().parents[2] if len(folder.resolve().parents) > 3 else None,
    )
    if path.parent == Path(__file__).parent / "models" / "weights" / "creature":
        return f"creature:{path.name}"
    hub = next((part for part in path.parts if part.startswith("models--")), None)
    if hub:
        return hub.removeprefix("models--").replace("--", "/")
    if home and path.is_relative_to(home):
        return os.path.relpath(path, folder.resolve())
    return path.name


def layer_row(**values: Any) -> dict[str, Any]:
    """One row of layers.parquet; what is not given is null."""
    unknown = set(values) - set(LAYER_COLUMNS)
    if unknown:
        raise ValueError(f"not columns of layers.parquet: {sorted(unknown)}")
    return {**dict.fromkeys(LAYER_COLUMNS), "component": "all", **values}


def atomic_write_text(path: Path, text: str) -> None:
    """Write a text file so that it is there whole or not at all."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    temporary.write_text(text)
    os.replace(temporary, path)


def write_parquet(table: "pd.DataFrame", path: Path) -> None:
    """Write a Parquet file so that it is there whole or not at all."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    table.to_parquet(temporary, index=False)
    os.replace(temporary, path)


def provenance() -> dict[str, Any]:
    """Versions of what computed the numbers: franken, its commit, Python, packages, threads."""
    return {
        "franken": _version("franken"),
        "git": _git(),
        "python": sys.version.split()[0],
        "packages": {name: _version(name) for name in PACKAGES},
        "threads": os.environ.get("OMP_NUM_THREADS"),
        "time": time.strftime("%Y-%m-%dT%H:%M:%S%z"),
    }


def _version(package: str) -> str | None:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None


def _git() -> dict[str, Any] | None:
    def ask(*args: str) -> str:
        command = ["git", "-C", str(Path(__file__).parent), *args]
        return subprocess.run(
            command, capture_output=True, text=True, check=True, timeout=10
        ).stdout.strip()

    try:
        return {
            "commit": ask("rev-parse", "HEAD"),
            "dirty": bool(ask("status", "--porcelain", "--", ".")),
        }
    except (OSError, subprocess.SubprocessError):
        return None
