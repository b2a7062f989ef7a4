"""Which checkpoints training runs left on their way, in their order: headers only.

A run is a folder of `franken train` (its `checkpoints/`, and `final/` where that is a later
update), or any folder of checkpoints whose names end in the number of an update (`step-00000040`,
`checkpoint-500`, `global_step_100`). LoRA adapters stand for what they make of the start.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from franken.adapters import open_adapter
from franken.checkpoints import ADAPTER, UNFINISHED, is_adapter, open_checkpoint, resolve
from franken.diff.plan import DiffPlan, Stages, pair
from franken.errors import UsageError
from franken.runs import TrainingRun

KEPT, FINAL = "checkpoints", "final"
START = "start"
_NUMBERED = re.compile(r"(\d{1,12})$")


@dataclass(frozen=True)
class Run:
    """The checkpoints of one run: their folders and after which updates they were taken."""

    name: str
    folder: Path
    updates: tuple[int, ...]
    checkpoints: tuple[Path, ...]

    @property
    def stages(self) -> list[str]:
        """What the plan calls them."""
        return [f"{self.name}@{update}" for update in self.updates]


@dataclass(frozen=True)
class AlongPlan:
    """A start and the runs that went on from it; `tensors` pairs all their checkpoints."""

    start: Path
    runs: tuple[Run, ...]
    tensors: DiffPlan

    @property
    def updates(self) -> list[tuple[int, ...]]:
        """Of every run's checkpoints."""
        return [run.updates for run in self.runs]


def plan_along(
    start: str | Path,
    runs: Sequence[str | Path],
    *,
    layers: str = "",
    parts: Sequence[str] = (),
    components: Sequence[str] = (),
    download: bool = False,
) -> AlongPlan:
    """Open the headers of a start and of everything on the way of one or more runs from it.

    Raises UsageError for a folder without checkpoints on the way, and where nothing can be
    compared.
    """
    folder = resolve(start, download=download)
    opened: Stages = {START: open_checkpoint(folder)}
    found: list[Run] = []
    for path in runs:
        run = find_run(Path(path), taken=[run.name for run in found])
        for stage, checkpoint in zip(run.stages, run.checkpoints, strict=True):
            adapter = is_adapter(checkpoint)
            opened[stage] = (
                open_adapter(checkpoint, opened[START]) if adapter else open_checkpoint(checkpoint)
            )
        found.append(run)
    paired = pair(opened, layers=layers, parts=parts, components=components)
    return AlongPlan(folder, tuple(found), paired)


def find_run(path: Path, *, taken: Sequence[str] = ()) -> Run:
    """The checkpoints of a run's folder, in the order of their updates. A name that is `taken` gets
    a number behind it. Raises UsageError.
    """
    if not path.is_dir():
        raise UsageError(f"there is no folder {path}", fix="give the folder of a training run")
    run = path.parent if path.name == KEPT else path
    folder = run / KEPT if (run / KEPT).is_dir() else path
    by_update = _numbered(folder)
    training = TrainingRun(run)
    if by_update and training.is_complete() and training.final.is_dir():
        by_update.setdefault(training.manifest.updates, training.final)
    if len(by_update) < 2:
        raise UsageError(
            f"{path} holds {len(by_update) or 'no'} checkpoint{'s' * (not by_update)} on the way",
            why="a trajectory needs two or more, in folders whose names end in an update's number",
            fix="train with --set 'keep={every: 10, at_most: 20}'",
        )
    updates = tuple(sorted(by_update))
    name = base = run.name or "run"
    for number in range(2, len(taken) + 3):
        if name not in taken:
            break
        name = f"{base}-{number}"
    return Run(name, run, updates, tuple(by_update[update] for update in updates))


def _numbered(folder: Path) -> dict[int, Path]:
    """Update → checkpoint. Raises UsageError where two have one number."""
    found: dict[int, Path] = {}
    for child in sorted(folder.iterdir()):
        number = _NUMBERED.search(child.name)
        holds = (child / "config.json").exists() or (child / ADAPTER).exists()
        if number is None or not holds or UNFINISHED.fullmatch(child.name):
            continue
        update = int(number[1])
        if update in found:
            raise UsageError(
                f"two checkpoints of update {update} in {folder}",
                why=f"{found[update].name} and {child.name}",
                fix="move one of them away",
            )
        found[update] = child
    return found
