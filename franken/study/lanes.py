"""Lanes that run the steps of a study side by side, resumably.

Verbs run inside a worker that lives as long as its lane (franken/cli/worker.py), since importing
torch and transformers takes longer than many a step; other commands, such as a training run, in
processes of their own. Steps wait for those that they need. One that fails does not stop the
others; those that need it fail with it.

Ctrl-C interrupts the children, waits for them to save what they do, and ends; no process is left
behind.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from types import FrameType
from typing import IO, NamedTuple

from franken.devices import first_of
from franken.errors import FrankenError
from franken.runs import atomic_write_text
from franken.study.steps import (
    Measured,
    Outcome,
    Record,
    Step,
    filled,
    key_of,
    placed,
    record_of,
    stored,
    typed,
)
from franken.study.verbs import Process

# called with a step's id, its state (start, progress, done, skipped, left out, failed), a text
Report = Callable[[str, str, str], None]
CostOf = Callable[[Step], Measured]
GRACE = 30.0  # seconds that an interrupted child gets to save its state
WORKER = "franken.cli.worker"


class Done(NamedTuple):
    """What a child answered: run folders, or an error."""

    folders: tuple[str, ...] = ()
    error: str | None = None


def run_steps(
    steps: Sequence[Step],
    *,
    folder: Path,
    jobs: int = 2,
    report: Report | None = None,
    cost_of: CostOf | None = None,
    budget: float | None = None,
    devices: Sequence[str] = (),
) -> list[Outcome]:
    """Run the steps in `jobs` lanes and return their outcomes in the order given. Records go to
    `folder/steps/`.

    With `devices` there is a lane for each, and its verbs run there; results are kept under the
    command line as the step has it, whichever lane it was.

    What `cost_of` says of a step is stored beside its seconds, if it ran from beginning to end, for
    later estimates. After `budget` seconds optional steps that have not started are left out; what
    runs goes on to its end. With more than one lane every child computes with one thread, unless
    OMP_NUM_THREADS says otherwise. Raises KeyboardInterrupt after the children have been stopped.
    """
    (folder / "steps").mkdir(parents=True, exist_ok=True)
    board = _Board(list(steps), folder, report or (lambda *_: None), cost_of, budget)
    places = list(devices) or [None] * max(1, jobs)
    if len(places) > 1:
        board.environment.setdefault("OMP_NUM_THREADS", "1")
    lanes = [
        threading.Thread(target=_lane, args=(board, i, place), daemon=True)
        for i, place in enumerate(places)
    ]
    with _terminations_interrupt():
        for lane in lanes:
            lane.start()
        try:
            while any(lane.is_alive() for lane in lanes):
                for lane in lanes:
                    lane.join(0.1)
        finally:
            board.stop()
            for lane in lanes:
                lane.join(GRACE)
    if board.crash is not None:
        raise board.crash
    return [board.outcomes[s.id] for s in steps]


def check_present(devices: Sequence[str]) -> None:
    """Raises UsageError for a device of a lane that is not there, before anything runs."""
    if any(first_of(device) != "cpu" for device in devices):
        from franken.models.placement import shares_of  # imports torch

        for device in devices:
            shares_of(device, 0)


class _Board:
    """What is waiting, running and done; shared by the lanes under one lock."""

    def __init__(
        self,
        steps: list[Step],
        folder: Path,
        report: Report,
        cost_of: CostOf | None,
        budget: float | None,
    ) -> None:
        self.waiting, self.folder, self.report, self.cost_of = steps, folder, report, cost_of
        self.budget, self.began = budget, time.monotonic()
        self.environment = dict(os.environ)  # of the children
        self.outcomes: dict[str, Outcome] = {}
        self.children: set[subprocess.Popen[str]] = set()
        self.stopped = False
        self.crash: BaseException | None = None
        self.lock = threading.Condition()

    def take(self) -> Step | None:
        """The heaviest step that is ready, and then the lightest optional one; waits while others
        run; None when nothing is left.
        """
        with self.lock:
            while not self.stopped and self.waiting:
                for step in [s for s in self.waiting if self._broken(s)]:
                    self.waiting.remove(step)
                    self._close(Outcome(step, error=f"needs {self._broken(step)}, which failed"))
                ready = [
                    s for s in self.waiting if all(n in self.outcomes for n in (*s.needs, *s.reads))
                ]
                if ready:
                    step = max(ready, key=lambda s: (not s.kind, -s.weight if s.kind else s.weight))
                    self.waiting.remove(step)
                    return step
                self.lock.wait(0.5)
            return None

    def overrun(self, step: Step) -> str | None:
        """Why a step that could start now is left out."""
        used = time.monotonic() - self.began
        if self.budget is None or not step.kind or used < self.budget:
            return None
        return f"the budget of {self.budget:.0f} s was used up after {used:.0f} s"

    def argv(self, step: Step) -> list[str]:
        """The command line of a step, now that those it reads have run; empty for a process."""
        if isinstance(step.does, Process):
            return []
        with self.lock:
            return filled(step.does, self.outcomes)

    def close(self, outcome: Outcome) -> None:
        with self.lock:
            self._close(outcome)

    def _close(self, outcome: Outcome) -> None:
        self.outcomes[outcome.step.id] = outcome
        states = {"failed": outcome.error, "left out": outcome.left_out, "skipped": outcome.skipped}
        state = next((name for name, holds in states.items() if holds), "done")
        text = outcome.error or outcome.left_out or f"{outcome.seconds:.0f} s"
        self.report(outcome.step.id, state, text)
        self.lock.notify_all()

    def _broken(self, step: Step) -> str | None:
        return next((n for n in step.needs if n in self.outcomes and self.outcomes[n].error), None)

    def stop(self) -> None:
        """Take no further steps and end what runs: ask first, then insist."""
        with self.lock:
            self.stopped = True
            self.lock.notify_all()
            children = list(self.children)
        for child in children:
            _signal(child, signal.SIGINT)
        deadline = time.monotonic() + GRACE
        for child in children:
            try:
                child.wait(max(0.1, deadline - time.monotonic()))
            except subprocess.TimeoutExpired:
                _signal(child, signal.SIGKILL)
                child.wait()


def _lane(board: _Board, number: int, device: str | None) -> None:
    worker: _Worker | None = None
    try:
        while (step := board.take()) is not None:
            argv = board.argv(step)
            try:
                key = key_of(step, argv) if argv else ""
            except FrankenError as e:
                board.close(Outcome(step, error=". ".join(x for x in (e.what, e.why) if x)))
                continue
            if outcome := stored(step, board.folder, key):
                board.close(outcome)
                continue
            if why := board.overrun(step):
                board.close(Outcome(step, left_out=why))
                continue
            where = f" on {device}" if device and argv else ""
            board.report(step.id, "start", step.what + where)
            argv = placed(argv, device)
            began, mark = time.monotonic(), record_of(step, board.folder).with_suffix(".started")
            whole = not mark.exists()  # else an earlier call did a part of it
            mark.touch()
            if isinstance(step.does, Process):
                argv = step.does.words()
                done = _run_process(board, step, step.does, argv)
            else:
                if worker is None or not worker.alive():
                    worker = _Worker(board, number)
                done = worker.do(argv)
            if board.stopped:
                return
            seconds = round(time.monotonic() - began, 1)
            outcome = Outcome(step, done.folders, seconds, typed(argv), done.error)
            if not done.error:
                new = whole and all(_is_new(Path(run), mark) for run in done.folders)
                _write_record(board, outcome, key, new)
                mark.unlink()
            board.close(outcome)
    except (FrankenError, OSError) as e:  # also a full disk under the records
        board.crash = e
        board.stopped = True
    finally:
        if worker:
            worker.close()


def _write_record(board: _Board, outcome: Outcome, key: str, whole: bool) -> None:
    """Record a step that ended well; with its cost, if all of it was done in this call."""
    step = outcome.step
    cost = None
    if board.cost_of and whole and not isinstance(step.does, Process):
        cost = board.cost_of(step)
    record = Record(
        key=key,
        folders=list(outcome.folders),
        seconds=outcome.seconds,
        command=outcome.command,
        cost=cost,
    )
    content = record.model_dump_json(indent=1, exclude_none=True)
    atomic_write_text(record_of(step, board.folder), content)


def _is_new(run: Path, mark: Path) -> bool:
    """Whether a run was finished after the step began, and is not one that was there already."""
    return (run / "run.json").stat().st_mtime >= mark.stat().st_mtime


def _run_process(board: _Board, step: Step, process: Process, argv: list[str]) -> Done:
    """Run a command; its lines go to the step's log and, as progress, to the reporter."""
    log = record_of(step, board.folder).with_suffix(".log")
    with log.open("w") as file:
        child = _start(board, argv, subprocess.STDOUT)
        assert child.stdout is not None
        last = ""
        for line in child.stdout:
            file.write(line)
            last = line.strip() or last
            board.report(step.id, "progress", line.rstrip())
        code = child.wait()
        board.children.discard(child)
    if code == 0 and process.is_done():
        return Done()
    return Done(error=f"exit code {code}: {last or 'no output'} (see {log})")


class _Worker:
    """A process that runs one verb after the other; it answers in JSON lines on standard output."""

    def __init__(self, board: _Board, number: int) -> None:
        self.board = board
        self.log = board.folder / "steps" / f"worker-{number}.log"
        self.errors: IO[str] = self.log.open("a")
        self.child = _start(board, [sys.executable, "-m", WORKER], self.errors)

    def alive(self) -> bool:
        return self.child.poll() is None

    def do(self, argv: Sequence[str]) -> Done:
        assert self.child.stdin is not None
        assert self.child.stdout is not None
        with contextlib.suppress(BrokenPipeError):
            self.child.stdin.write(json.dumps(argv) + "\n")
            self.child.stdin.flush()
        if line := self.child.stdout.readline():
            answer = json.loads(line)
            return Done(tuple(answer.get("folders", ())), answer.get("error"))
        self.errors.flush()
        lines = [x for x in self.log.read_text().splitlines() if x.strip()]
        last = lines[-1] if lines else "no output"
        return Done(error=f"the worker ended: {last} (see {self.log})")

    def close(self) -> None:
        assert self.child.stdin is not None
        with contextlib.suppress(BrokenPipeError):
            self.child.stdin.close()
        self.child.wait()
        self.board.children.discard(self.child)
        self.errors.close()


def _start(board: _Board, argv: list[str], errors: int | IO[str]) -> subprocess.Popen[str]:
    """A child in a session of its own, so that ctrl-C reaches it once, from here."""
    with board.lock:
        if board.stopped:
            raise FrankenError(
                "interrupted", "the study is being stopped", "run it again; it resumes"
            )
        child = subprocess.Popen(
            argv,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=errors,
            text=True,
            env=board.environment,
            start_new_session=True,
            bufsize=1,
        )
        board.children.add(child)
        return child


def _signal(child: subprocess.Popen[str], number: int) -> None:
    if child.poll() is None:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(child.pid, number)


@contextlib.contextmanager
def _terminations_interrupt() -> Iterator[None]:
    """SIGTERM ends the study as ctrl-C does, children included; only where signals can be
    handled.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def stop(number: int, frame: FrameType | None) -> None:
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGTERM, stop)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)
