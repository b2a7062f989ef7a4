"""One attack: a command line in a forked process, with what it may do, and what it did.

The parent has imported franken and torch, so that a case costs a fork. A case is `bad` for one of
five reasons: a traceback (or franken's own admission of one), a wrong success, a hang, a leak of
the marked key, or too much memory.
"""

import os
import resource
import shutil
import signal
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

SECRET = "MARKED"
SECONDS, GRACE = 10.0, 60.0  # of CPU, and of the clock: the machine may be busy
MEMORY = 2 << 30  # bytes resident, of which torch and transformers take 0.5 GiB
Expected = Literal["refused", "told", "any"]
Words = list[str]


@dataclass(frozen=True)
class Done:
    """What a process did: `status` is its exit code, minus a signal; `seconds` of CPU."""

    status: int
    said: str
    seconds: float
    clock: float
    memory: int


@dataclass(frozen=True)
class Case:
    """An attack of a row of the table. `prepare` writes its files into an empty folder and returns
    the command line; `before` runs in the process itself, to start a server say.

    `expected`: refused ends with 1 or 2, told with 0 or 3 and `check`, any with any of them.
    `check` gets the folder and what was done, and says what is wrong, or an empty text.
    """

    row: str
    name: str
    prepare: Callable[[Path], Words]
    expected: Expected = "refused"
    check: Callable[[Path, Done], str] | None = None
    before: Callable[[], None] | None = None


@dataclass
class Tally:
    """What came of the cases of one row."""

    tries: int = 0
    bad: dict[str, list[str]] = field(default_factory=dict)
    seconds: float = 0.0
    longest: float = 0.0
    slowest: str = ""
    memory: int = 0

    def add(self, case: Case, done: Done, wrong: str) -> None:
        """Count a case."""
        self.tries += 1
        self.seconds += done.seconds
        if done.seconds > self.longest:
            self.longest, self.slowest = done.seconds, case.name
        self.memory = max(self.memory, done.memory)
        if wrong:
            kind = wrong.partition(":")[0]
            self.bad.setdefault(kind, []).append(f"{case.name}: {wrong}")


def attack(case: Case, folder: Path) -> tuple[Done, str]:
    """Run a case in `folder`, which is emptied. Returns what it did, and what is wrong with
    that.
    """
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    words = case.prepare(folder)
    done = run(words, folder, before=case.before)
    return done, verdict(case, folder, done)


def run(
    words: Words,
    folder: Path,
    *,
    before: Callable[[], None] | None = None,
    patience: float = GRACE,
) -> Done:
    """The command line in a process of its own, whose working folder is `folder`. It is ended after
    `patience` seconds.
    """
    return wait(start(words, folder, before=before, patience=patience), patience)


def start(
    words: Words,
    folder: Path,
    *,
    before: Callable[[], None] | None = None,
    patience: float = GRACE,
) -> tuple[int, int]:
    """(pid, the pipe in which it says something): a file would fill up with the disk."""
    source, sink = os.pipe()
    pid = os.fork()
    if pid:
        os.close(sink)
        os.set_blocking(source, False)
        return pid, source
    status = 70
    try:
        _become_a_process_of_its_own(folder, sink, patience)
        if before:
            before()
        status = _command(words)
    except BaseException:  # noqa: BLE001 - the child must never return into the parent's loop
        import traceback

        traceback.print_exc()
    finally:
        with suppress(Exception):
            sys.stdout.flush()
            sys.stderr.flush()
        os._exit(status)


def wait(child: tuple[int, int], patience: float = GRACE) -> Done:
    """Wait for a process, and end it when it takes too long."""
    pid, source = child
    started, content = time.monotonic(), bytearray()
    while True:
        content += _read(source)
        ended, status, usage = os.wait4(pid, os.WNOHANG)
        if ended:
            break
        if time.monotonic() - started > patience:
            os.kill(pid, signal.SIGKILL)
        time.sleep(0.01)
    code = os.waitstatus_to_exitcode(status)
    content += _read(source)
    os.close(source)
    said = content.decode(errors="replace")
    clock, memory = time.monotonic() - started, usage.ru_maxrss * 1024
    return Done(code, said, usage.ru_utime + usage.ru_stime, clock, memory)


def _read(source: int) -> bytes:
    """What is in a pipe now."""
    read = bytearray()
    with suppress(BlockingIOError):
        while part := os.read(source, 1 << 16):
            read += part
    return bytes(read)


def verdict(case: Case, folder: Path, done: Done) -> str:
    """What is wrong with what a case did: `KIND: detail`, or an empty text."""
    if done.clock > GRACE or done.seconds > SECONDS:
        return f"hang: {done.seconds:.0f} s of CPU, {done.clock:.0f} s by the clock"
    if "Traceback" in done.said or "a fault of franken" in done.said:
        return f"traceback: {_last(done.said)}"
    if done.status not in (0, 1, 2, 3, 4):
        return f"traceback: exit code {done.status}: {_last(done.said)}"
    if done.memory > MEMORY:
        return f"memory: {done.memory >> 20} MiB"
    if SECRET in done.said or (case.row == "endpoints" and SECRET in _written(folder)):
        return "leak: the marked key"
    if case.expected == "refused" and done.status in (0, 3):
        return f"wrong success: {_last(done.said)}"
    if case.expected == "told" and done.status not in (0, 3):
        return f"refused: {_last(done.said)}"
    told = ("error:" in done.said and "why:" in done.said) or "Usage:" in done.said
    if done.status in (1, 2) and not told:
        return f"untold: exit code {done.status} without what and why: {_last(done.said)}"
    return case.check(folder, done) if case.check else ""


def _become_a_process_of_its_own(folder: Path, sink: int, patience: float) -> None:
    os.setsid()
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
    os.dup2(sink, 1)
    os.dup2(sink, 2)
    os.chdir(folder)
    os.environ["TMPDIR"] = str(folder.parent)
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    limit = _address_space() + 2 * MEMORY
    resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
    resource.setrlimit(resource.RLIMIT_CPU, (int(patience), int(patience) + 5))


def _address_space() -> int:
    pages = int(Path("/proc/self/statm").read_text().split()[0])
    return pages * resource.getpagesize()


def _command(words: Words) -> int:
    from franken.cli import run_command

    sys.argv = ["franken", *words]
    return run_command(list(words), False)


def _last(said: str) -> str:
    lines = [line for line in said.strip().splitlines() if line.strip()]
    told = [line for line in lines if "error:" in line or "fault" in line or "Error" in line]
    return " ".join((told or lines or ["nothing said"])[-1].split())[:300]


def _written(folder: Path) -> str:
    from test_secrets import written

    return written(folder)
