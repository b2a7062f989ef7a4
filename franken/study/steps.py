"""Steps of a study, and the records by which finished ones are found again.

A step is the command line of a verb of franken (franken/study/verbs.py), or a process of its own.
What is complete is recorded under `steps/` and skipped next time, as long as the command line and
the contents of its checkpoints are the same. How steps run: franken/study/lanes.py.
"""

from __future__ import annotations

import hashlib
import json
import shlex
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from pydantic import BaseModel

from franken import plugins
from franken.checkpoints import fingerprint, open_checkpoint
from franken.errors import FrankenError
from franken.study.verbs import READS, Process, Verb


class Measured(BaseModel):
    """How much work a step did here: what later estimates go by."""

    machine: str
    group: str
    work: float


class Record(BaseModel):
    """`steps/<id>.json`: what a step that ended well left."""

    key: str
    folders: list[str]
    seconds: float
    command: str = ""
    cost: Measured | None = None


@dataclass(frozen=True)
class Step:
    """One thing to do: a verb with its command line, or a process.

    `model` is the label of its rows on the page; `inputs` are checkpoint folders whose contents the
    result depends on; `needs` are steps that have to end well before. `weight` orders the work:
    heavy steps first. `kind` names the optional part of a study that a step belongs to; such steps
    come last, light ones first.
    """

    id: str
    what: str
    does: Verb | Process
    model: str | None = None
    inputs: tuple[str, ...] = ()
    needs: tuple[str, ...] = ()
    weight: float = 1.0
    kind: str = ""

    @property
    def verb(self) -> str:
        """What kind of thing it does."""
        return self.does.verb

    @property
    def reads(self) -> tuple[str, ...]:
        """The steps whose run folders are in its command line. It waits for all of them, and does
        with those that ended well.
        """
        if isinstance(self.does, Process):
            return ()
        return tuple(word[len(READS) :] for word in self.does.argv if word.startswith(READS))

    @property
    def command(self) -> str:
        """What a person would type, as far as it is known before it runs."""
        return self.does.command if isinstance(self.does, Process) else typed(self.does.argv)


class Outcome(NamedTuple):
    """How a step ended: its run folders, how long it took, the command line that ran, and the
    error, or why it was left out. `skipped`: an earlier call did it.
    """

    step: Step
    folders: tuple[str, ...] = ()
    seconds: float = 0.0
    command: str = ""
    error: str | None = None
    skipped: bool = False
    left_out: str | None = None


def typed(argv: Sequence[str]) -> str:
    """Words as a person types them: `franken eval …`."""
    interpreter = [sys.executable, "-m", "franken.cli"]
    words = argv[3:] if list(argv[:3]) == interpreter else argv
    return shlex.join(["franken", *words])


def filled(does: Verb, outcomes: Mapping[str, Outcome]) -> list[str]:
    """The command line of a step, with the run folders of those that it reads."""
    argv: list[str] = []
    for word in does.argv:
        if word.startswith(READS):
            step = outcomes.get(word[len(READS) :])
            argv += step.folders if step else ()
        else:
            argv.append(word)
    return argv


def placed(argv: Sequence[str], device: str | None) -> list[str]:
    """A command line on the device of a lane; as it is where it names none."""
    words = list(argv)
    if device and "--device" in words:
        words[words.index("--device") + 1] = device
    return words


def key_of(step: Step, argv: Sequence[str]) -> str:
    """A hash of all that a result depends on: the command line, the contents of the checkpoints,
    the plugins. Raises FrankenError for a checkpoint that cannot be read.
    """
    contents = [fingerprint(open_checkpoint(path)) for path in step.inputs]
    content = json.dumps([argv, contents, *plugins.identity().values()], default=str)
    return hashlib.sha256(content.encode()).hexdigest()[:16]


def record_of(step: Step, folder: Path) -> Path:
    """Where the record of a step is, in the folder of its study."""
    return folder / "steps" / f"{step.id}.json"


def stored(step: Step, folder: Path, key: str) -> Outcome | None:
    """The outcome of an earlier call, if it is still good."""
    path = record_of(step, folder)
    record = Record.model_validate_json(path.read_text()) if path.exists() else None
    if isinstance(step.does, Process):
        if not step.does.is_done():
            return None
        record = record or Record(key="", folders=[], seconds=0.0, command=step.command)
    elif record is None or record.key != key:
        return None
    if not all((Path(run) / "run.json").exists() for run in record.folders):
        return None
    return Outcome(step, tuple(record.folders), record.seconds, record.command, skipped=True)


def stored_steps(steps: Sequence[Step], folder: Path) -> dict[str, Outcome]:
    """The outcomes of those steps that are complete, as `run_steps` would find them; nothing is
    run.
    """
    complete: dict[str, Outcome] = {}
    for step in steps:
        if not all(i in complete for i in step.reads):
            continue
        try:
            does = step.does
            key = "" if isinstance(does, Process) else key_of(step, filled(does, complete))
        except FrankenError:  # a checkpoint that is yet to be made
            continue
        if outcome := stored(step, folder, key):
            complete[step.id] = outcome
    return complete
