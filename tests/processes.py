"""franken in processes of its own, for what one process cannot show: locks, signals, limits of the
system, terminals. They are forked from a server that has imported what the verbs need, so that a
start costs a fork and not the 10 s of importing torch and transformers.
"""

import os
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from multiprocessing import get_context
from multiprocessing.process import BaseProcess
from pathlib import Path

PRELOAD = [
    "trainer.loop",
    "trainer.watch",
    "franken.models.loading",
    "franken.diff.run",
    "franken.probe.run",
    "franken.evaluate.run",
    "franken.report.figures.diff",
]
SERVER = get_context("forkserver")
SERVER.set_forkserver_preload(PRELOAD)


@dataclass
class Started:
    """A running process and the files that hold what it prints."""

    process: BaseProcess
    folder: Path

    @property
    def pid(self) -> int:
        assert self.process.pid
        return self.process.pid

    @property
    def stdout(self) -> str:
        return (self.folder / "stdout").read_text()

    @property
    def stderr(self) -> str:
        return (self.folder / "stderr").read_text()

    def wait(self, seconds: float = 280) -> int:
        """Its exit status; minus the signal's number where one ended it."""
        self.process.join(seconds)
        assert self.process.exitcode is not None, f"still running after {seconds} s"
        return self.process.exitcode


def start(
    folder: Path,
    call: Callable[..., object],
    *arguments: object,
    environment: Mapping[str, str] | None = None,
) -> Started:
    """Call `call(*arguments)` in a process that prints into `folder`. What it returns as a whole
    number is the exit status, as is the code of a SystemExit.
    """
    folder.mkdir(parents=True, exist_ok=True)
    process = SERVER.Process(
        target=_run, args=(str(folder), dict(environment or {}), call, arguments)
    )
    process.start()
    return Started(process, folder)


def franken(folder: Path, words: list[str]) -> Started:
    """A command line in a process of its own."""
    return start(folder, command_line, words)


def command_line(words: list[str]) -> None:
    from franken.cli import main

    main(words)


def _run(folder, environment, call, arguments):
    for name, stream in (("stdout", sys.stdout), ("stderr", sys.stderr)):
        file = os.open(Path(folder) / name, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
        os.dup2(file, stream.fileno())
        os.close(file)
    os.environ |= environment
    status = call(*arguments)
    sys.exit(status if isinstance(status, int) else 0)
