"""A run folder under construction: found by what changes its numbers, filled part by part,
finished by its manifest.

A run that is not finished is written by one process at a time: `with open_run(…) as run:` holds the
folder's lock (`franken.lock`), and a second process is refused with the pid of the first.
"""

import hashlib
import json
import shutil
import sys
import time
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from franken import bounds, plugins
from franken.errors import UsageError
from franken.lock import locked
from franken.outputs import output_folder
from franken.runs.files import atomic_write_text, read_parquet, sweep, write_parquet
from franken.runs.manifest import SCHEMA, Manifest
from franken.runs.provenance import portable, provenance
from franken.runs.record import Models
from franken.runs.rows import LAYER_COLUMNS, LayerRow
from franken.secrets import redact, without_keys

IDENTITY = "identity.json"


@dataclass
class Run:
    """A run that is being made. `identity` is everything that changes its numbers, `config` all of
    its options, `models` their labels and where they are.
    """

    folder: Path
    verb: str
    label: str
    identity: Mapping[str, object]
    config: Mapping[str, object]
    models: Models
    started: float = field(default_factory=time.time)
    _lock: ExitStack = field(default_factory=ExitStack, init=False, repr=False)

    def __enter__(self) -> "Run":
        """Become the folder's one writer, unless the run is finished and only read.

        Raises UsageError while another process writes it.
        """
        if not self.is_complete():
            self._lock.enter_context(locked(self.folder))
            for folder in (self.folder, self.folder / "parts"):
                sweep(folder)
        return self

    def __exit__(self, *_: object) -> None:
        self._lock.close()

    def is_complete(self) -> bool:
        """Whether the manifest is there."""
        return (self.folder / "run.json").exists()

    def rows(self) -> list[dict[str, Any]]:
        """All rows stored so far, in the order of writing."""
        import pandas as pd

        parts = self._parts()
        if not parts and (self.folder / "samples.parquet").exists():
            parts = [self.folder / "samples.parquet"]
        frames = [read_parquet(part) for part in parts]
        if not frames:
            return []
        table = pd.concat(frames, ignore_index=True).astype(object)
        return table.where(table.notna(), None).to_dict("records")  # pyright: ignore[reportReturnType] - columns have names

    def append(self, rows: Sequence[Mapping[str, object]]) -> None:
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
        layers: Sequence[LayerRow] | None,
        *,
        n_requested: int,
        warnings: Sequence[str] = (),
        extra: Mapping[str, object] | None = None,
    ) -> Path:
        """Merge the parts, write the summary, then the manifest with the verb's own results in
        `extra`. Returns the folder.
        """
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
        config = {
            name: value if name == "data" else portable(value, self.folder)
            for name, value in self.config.items()
        }
        content = {
            "schema": SCHEMA,
            "verb": self.verb,
            "label": self.label,
            "argv": [Path(sys.argv[0]).name, *map(redact, sys.argv[1:])],
            "config": config,
            "identity": self.identity,
            "models": portable(self.models, self.folder),
            **provenance(),
            "n_requested": n_requested,
            "n_ok": len(samples) - failed,
            "n_failed": failed,
            "seconds": round(time.time() - self.started, 1),
            "warnings": list(warnings),
            **{name: portable(value, self.folder) for name, value in (extra or {}).items()},
        }
        text = without_keys(json.dumps(content, indent=2, default=str))
        Manifest.model_validate_json(text)  # what cannot be read again is not written
        atomic_write_text(self.folder / "run.json", text)
        shutil.rmtree(self.folder / "parts", ignore_errors=True)
        return self.folder

    def _parts(self) -> list[Path]:
        return sorted((self.folder / "parts").glob("[0-9]*.parquet"))


def open_run(
    verb: str,
    label: str,
    identity: Mapping[str, object],
    out: str | Path,
    *,
    config: Mapping[str, object],
    models: Models | None = None,
) -> Run:
    """Create, or open for resuming, the folder of a run.

    `identity` is everything that changes the numbers. Raises UsageError if the folder holds
    something else, or cannot be made or written.
    """
    canonical = json.dumps(
        {**identity, **plugins.identity(), **bounds.identity()}, sort_keys=True, default=str
    )
    digest = hashlib.sha256(canonical.encode()).hexdigest()[:8]
    safe = "".join(c if c.isalnum() or c in "._-" else "-" for c in label) or "run"
    folder = output_folder(Path(out) / verb / f"{safe}-{digest}", finished="run.json")
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
    if not mark.exists():
        atomic_write_text(mark, canonical)
    return Run(folder, verb, label, json.loads(canonical), config, models or {})
