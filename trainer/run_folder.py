"""The folder of a training run: claimed for one recipe, with its metrics and proofs of freezing."""

import json
from pathlib import Path
from typing import Any

from franken.errors import UsageError
from franken.runs import atomic_write_text
from trainer.state import Position

RECIPE, METRICS, PROOFS, SUMMARY = "recipe.json", "metrics.jsonl", "freeze.json", "train.json"


def claim(out: Path, identity: str) -> None:
    """Make the folder this run's own. Raises UsageError where it holds something else, or a run of
    another recipe.
    """
    mark = out / RECIPE
    if out.exists() and not out.is_dir():
        raise UsageError(
            f"{out} is a file", why="a training run is a folder", fix="choose another --out"
        )
    if mark.exists() and mark.read_text() != identity:
        raise UsageError(
            f"{out} holds another training run",
            why="its recipe differs",
            fix="choose another --out",
        )
    if (
        not mark.exists()
        and out.exists()
        and any(not p.name.startswith(f".{mark.name}.") for p in out.iterdir())
    ):
        raise UsageError(
            f"{out} holds something else",
            why="it is not a training run",
            fix="choose another --out",
        )
    out.mkdir(parents=True, exist_ok=True)
    if not mark.exists():
        atomic_write_text(mark, identity)


def trim_metrics(out: Path, position: Position) -> None:
    """Drop the lines of updates that happened after the checkpoint and will be done again."""
    log = out / METRICS
    if log.exists():
        lines = [line for line in log.read_text().splitlines(keepends=True) if line.endswith("\n")]
        before = [line for line in lines if json.loads(line)["update"] <= position.updates]
        atomic_write_text(log, "".join(before))


def cpu_seconds(out: Path) -> float:
    """CPU seconds of training over all stages, from the metrics."""
    last: dict[int, float] = {}
    for line in (out / METRICS).read_text().splitlines():
        row = json.loads(line)
        last[row["stage"]] = row["cpu_seconds"]
    return round(sum(last.values()), 1)


def load_proofs(out: Path) -> dict[str, Any]:
    """By stage: what it froze, and the proof that it did not move."""
    file = out / PROOFS
    return json.loads(file.read_text()) if file.exists() else {}


def write_proofs(out: Path, proofs: dict[str, Any]) -> None:
    """Write them beside the metrics."""
    atomic_write_text(out / PROOFS, json.dumps(proofs, indent=1))
