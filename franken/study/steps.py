"""Steps of a study and the lanes that run them side by side, resumably.

A step is either one verb of franken, run inside a worker process that lives as long as its lane
(importing torch and transformers takes longer than many a step), or a command of its own, such as a
training run. Steps wait for the steps they need. What is complete is recorded under `steps/` and
skipped next time, as long as its arguments and checkpoints are the same. One failed step does not
stop the others; those that need it fail with it.

Ctrl-C interrupts the children, waits for them to save what they do, and ends; no process is left
behind.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import IO, Any

from franken import plugins
from franken.checkpoints import fingerprint, open_checkpoint
from franken.errors import FrankenError
from franken.runs import atomic_write_text

Report = Callable[
    [str, str, str], None
]  # step id, state (start, progress, done, skipped, failed), text
GRACE = 30.0  # seconds that an interrupted child gets to save its state


@dataclass(frozen=True)
class Step:
    """One thing to do.

    `verb` and `args` go to a worker (franken.study.worker); a step with `argv` runs that command
    instead, and
    `is_done` tells whether it is complete. `inputs` are checkpoint folders whose contents the
    result depends on.
    `command` is what a person would type to do the same. `cost` orders the work: dear steps first.
    `kind` names the optional
    part of a study that a step belongs to; such steps come last, cheap ones first. `reads` are
    steps whose run folders the worker gets as the argument `folders` (step → folders); it waits for
    all of them and does with those that ended well.
    """

    id: str
    what: str
    verb: str
    args: Mapping[str, Any] = field(default_factory=dict)
    command: str = ""
    model: str | None = None
    inputs: tuple[str, ...] = ()
    needs: tuple[str, ...] = ()
    cost: float = 1.0
    kind: str = ""
    reads: tuple[str, ...] = ()
    argv: Callable[[], list[str]] | None = None
    is_done: Callable[[], bool] | None = None


@dataclass(frozen=True)
class Outcome:
    """How a step ended: its run folders (as given by the verb), how long it took, the error, or why
    it was left out.
    """

    step: Step
    folders: tuple[str, ...] = ()
    seconds: float = 0.0
    error: str | None = None
    skipped: bool = False
    left_out: str | None = None


def run_steps(
    steps: Sequence[Step],
    *,
    folder: Path,
    jobs: int = 2,
    report: Report | None = None,
    cost_of: Callable[[Step], Mapping[str, Any]] | None = None,
    budget: float | None = None,
) -> list[Outcome]:
    """Run the steps in `jobs` lanes and return their outcomes in the order given. Records go to
    `folder/steps/`.

    What `cost_of` says of a step is stored beside its seconds, if it ran from beginning to end, for
    later estimates. After `budget` seconds optional steps that have not started are left out; what
    runs goes on to its end. With more than one lane every child computes with one thread, unless
    OMP_NUM_THREADS says otherwise. Raises KeyboardInterrupt after the children have been stopped.
    """
    (folder / "steps").mkdir(parents=True, exist_ok=True)
    board = _Board(list(steps), folder, report or (lambda *_: None), cost_of, budget)
    environment = dict(os.environ)
    if jobs > 1:
        environment.setdefault("OMP_NUM_THREADS", "1")
    lanes = [
        threading.Thread(target=_lane, args=(board, i, environment), daemon=True)
        for i in range(max(1, jobs))
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


class _Board:
    """What is waiting, running and done; shared by the lanes under one lock."""

    def __init__(
        self,
        steps: list[Step],
        folder: Path,
        report: Report,
        cost_of: Callable[[Step], Mapping[str, Any]] | None,
        budget: float | None,
    ) -> None:
        self.waiting, self.folder, self.report, self.cost_of = steps, folder, report, cost_of
        self.budget, self.began = budget, time.monotonic()
        self.outcomes: dict[str, Outcome] = {}
        self.children: set[subprocess.Popen[str]] = set()
        self.stopped = False
        self.crash: BaseException | None = None
        self.lock = threading.Condition()

    def take(self) -> Step | None:
        """The dearest step that is ready, and then the cheapest optional one; waits while others
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
                    step = max(ready, key=lambda s: (not s.kind, -s.cost if s.kind else s.cost))
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

    def filled(self, step: Step) -> Step:
        """The step with the run folders that it reads."""
        if not step.reads:
            return step
        with self.lock:
            return with_folders(step, self.outcomes)

    def close(self, outcome: Outcome) -> None:
        with self.lock:
            self._close(outcome)

    def _close(self, outcome: Outcome) -> None:
        self.outcomes[outcome.step.id] = outcome
        state = (
            "failed"
            if outcome.error
            else "left out"
            if outcome.left_out
            else "skipped"
            if outcome.skipped
            else "done"
        )
        self.report(
            outcome.step.id, state, outcome.error or outcome.left_out or f"{outcome.seconds:.0f} s"
        )
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


def _lane(board: _Board, number: int, environment: dict[str, str]) -> None:
    worker: _Worker | None = None
    try:
        while (taken := board.take()) is not None:
            step = board.filled(taken)
            record = board.folder / "steps" / f"{step.id}.json"
            log = board.folder / "steps" / f"{step.id}.log"
            try:
                key = "" if step.argv else _key(step)
            except FrankenError as e:
                board.close(Outcome(step, error=". ".join(x for x in (e.what, e.why) if x)))
                continue
            stored = _stored(step, record, key)
            if stored is not None:
                board.close(stored)
                continue
            if why := board.overrun(step):
                board.close(Outcome(step, left_out=why))
                continue
            board.report(step.id, "start", step.what)
            began, mark = time.monotonic(), record.with_suffix(".started")
            whole = not mark.exists()  # else an earlier call did a part of it
            mark.touch()
            if step.argv is not None:
                folders, error = _command(board, step, log, environment)
            else:
                worker = (
                    worker if worker and worker.alive() else _Worker(board, number, environment)
                )
                folders, error = worker.do(step)
            if board.stopped:
                return
            outcome = Outcome(step, tuple(folders), round(time.monotonic() - began, 1), error)
            if not error:
                content: dict[str, Any] = {
                    "key": key,
                    "folders": folders,
                    "seconds": outcome.seconds,
                }
                if (
                    board.cost_of
                    and not step.argv
                    and whole
                    and all(_is_new(Path(f), mark) for f in folders)
                ):
                    content["cost"] = dict(board.cost_of(taken))
                atomic_write_text(record, json.dumps(content, indent=1))
                mark.unlink()
            board.close(outcome)
    except (FrankenError, OSError) as e:  # also a full disk under the records
        board.crash = e
        board.stopped = True
    finally:
        if worker:
            worker.close()


def with_folders(step: Step, outcomes: Mapping[str, Outcome]) -> Step:
    """The step with the argument `folders`: of each step that it reads and that ended well, its run
    folders.
    """
    found = {
        i: list(outcomes[i].folders) for i in step.reads if i in outcomes and outcomes[i].folders
    }
    return replace(step, args={**step.args, "folders": found})


def _key(step: Step) -> str:
    """A hash of everything a step's result depends on: its verb, its arguments, the contents of its
    checkpoints.
    """
    prints = [fingerprint(open_checkpoint(path)) for path in step.inputs]
    asked = [step.verb, step.args, prints, *plugins.identity().values()]
    content = json.dumps(asked, sort_keys=True, default=str)
    return hashlib.sha256(content.encode()).hexdigest()[:16]


def _stored(step: Step, record: Path, key: str) -> Outcome | None:
    """The outcome of an earlier call, if it is still good."""
    if step.argv is not None:
        seconds = json.loads(record.read_text())["seconds"] if record.exists() else 0.0
        return Outcome(step, (), seconds, skipped=True) if step.is_done and step.is_done() else None
    if not record.exists():
        return None
    stored = json.loads(record.read_text())
    whole = all((Path(f) / "run.json").exists() for f in stored["folders"])
    if stored["key"] != key or not whole:
        return None
    return Outcome(step, tuple(stored["folders"]), stored["seconds"], skipped=True)


def _is_new(run: Path, mark: Path) -> bool:
    """Whether a run was finished after the step began, and is not one that was there already."""
    return (run / "run.json").stat().st_mtime >= mark.stat().st_mtime


def stored_steps(steps: Sequence[Step], folder: Path) -> dict[str, Outcome]:
    """The outcomes of those steps that are complete, as `run_steps` would find them; nothing is
    run.
    """
    found: dict[str, Outcome] = {}
    for step in steps:
        if not all(i in found for i in step.reads):
            continue
        filled = with_folders(step, found) if step.reads else step
        try:
            stored = _stored(
                filled, folder / "steps" / f"{step.id}.json", "" if step.argv else _key(filled)
            )
        except FrankenError:  # a checkpoint that is yet to be made
            continue
        if stored is not None:
            found[step.id] = stored
    return found


def _command(
    board: _Board, step: Step, log: Path, environment: dict[str, str]
) -> tuple[list[str], str | None]:
    """Run a step's own command; its lines go to the log and, as progress, to the reporter."""
    assert step.argv is not None
    with log.open("w") as file:
        child = _start(board, step.argv(), environment, subprocess.STDOUT)
        assert child.stdout is not None
        last = ""
        for line in child.stdout:
            file.write(line)
            last = line.strip() or last
            board.report(step.id, "progress", line.rstrip())
        code = child.wait()
        board.children.discard(child)
    done = step.is_done() if step.is_done else True
    if code == 0 and done:
        return [], None
    return [], f"exit code {code}: {last or 'no output'} (see {log})"


class _Worker:
    """A process that does one step after the other; answers come as JSON lines on its standard
    output.
    """

    def __init__(self, board: _Board, number: int, environment: dict[str, str]) -> None:
        self.board = board
        self.log = board.folder / "steps" / f"worker-{number}.log"
        self.errors: IO[str] = self.log.open("a")
        argv = [sys.executable, "-m", "franken.study.worker"]
        self.child = _start(board, argv, environment, self.errors)

    def alive(self) -> bool:
        return self.child.poll() is None

    def do(self, step: Step) -> tuple[list[str], str | None]:
        assert self.child.stdin is not None
        assert self.child.stdout is not None
        request = {"id": step.id, "verb": step.verb, "args": dict(step.args)}
        with contextlib.suppress(BrokenPipeError):
            self.child.stdin.write(json.dumps(request) + "\n")
            self.child.stdin.flush()
        for line in self.child.stdout:
            answer = json.loads(line)
            if "progress" in answer:
                self.board.report(step.id, "progress", answer["progress"])
            else:
                return answer.get("folders", []), answer.get("error")
        self.errors.flush()
        lines = [x for x in self.log.read_text().splitlines() if x.strip()]
        return [], f"the worker ended: {lines[-1] if lines else 'no output'} (see {self.log})"

    def close(self) -> None:
        assert self.child.stdin is not None
        with contextlib.suppress(BrokenPipeError):
            self.child.stdin.close()
        self.child.wait()
        self.board.children.discard(self.child)
        self.errors.close()


def _start(
    board: _Board, argv: list[str], environment: dict[str, str], errors: int | IO[str]
) -> subprocess.Popen[str]:
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
            env=environment,
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
    """SIGTERM ends the study as ctrl-C does, children included; only where signals can be handled."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def stop(number: int, frame: Any) -> None:
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGTERM, stop)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)
