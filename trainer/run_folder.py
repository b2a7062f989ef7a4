"""The folder of a training run (franken/runs/training.py), as the loop claims and resumes it."""

import json
from pathlib import Path

from franken.errors import UsageError
from franken.runs import TrainingRun, atomic_write_text
from franken.runs.training import METRICS, RECIPE
from trainer.checkpoint_files import Position


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
    last = {update.stage: update.cpu_seconds or 0.0 for update in TrainingRun(out).updates}
    return round(sum(last.values()), 1)
