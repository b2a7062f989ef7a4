"""Lanes: order, resumption, failures, and no child left behind."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from franken.study.lanes import Done, run_steps
from franken.study.steps import Step
from franken.study.verbs import Comparing, Evaluation, Process


def shell(name: str, code: str, folder: Path, **options) -> Step:
    """A step that runs Python `code` and is done when its file is there."""
    mark = folder / f"{name}.done"
    argv = [sys.executable, "-c", f"{code}\nopen({str(mark)!r}, 'w').close()"]
    return Step(name, name, Process("command", "", lambda: argv, mark.exists), **options)


def evaluation(n: int) -> Evaluation:
    return Evaluation(
        model="m", label="m", n=n, tasks=("read",), samples=1, seed=0, out="runs", device="cpu"
    )


def test_steps_run_after_what_they_need_and_are_skipped_next_time(tmp_path):
    said = []
    steps = [
        shell(
            "b", f"assert open({str(tmp_path / 'a.done')!r})", tmp_path, needs=("a",), weight=9.0
        ),
        shell("a", "print('hello')", tmp_path),
    ]
    first = run_steps(steps, folder=tmp_path, jobs=2, report=lambda *x: said.append(x))
    assert [(o.step.id, o.error, o.skipped) for o in first] == [
        ("b", None, False),
        ("a", None, False),
    ]
    assert ("a", "progress", "hello") in said
    again = run_steps(steps, folder=tmp_path, jobs=2)
    assert all(o.skipped for o in again)


def test_a_failed_step_takes_only_its_dependants_with_it(tmp_path):
    steps = [
        shell("bad", "import sys; sys.exit('no such thing')", tmp_path),
        shell("child", "pass", tmp_path, needs=("bad",)),
        shell("other", "pass", tmp_path),
    ]
    errors = {o.step.id: o.error for o in run_steps(steps, folder=tmp_path, jobs=1)}
    assert "exit code 1: no such thing" in errors["bad"]
    assert errors["child"] == "needs bad, which failed"
    assert errors["other"] is None


def test_two_lanes_work_at_the_same_time(tmp_path):
    wait = (
        "import time, pathlib\nfor _ in range(600):\n  if pathlib.Path({!r}).exists(): break\n  "
        "time.sleep(.05)\nelse: 1/0"
    )
    meet = [
        shell(
            a,
            f"open({str(tmp_path / (a + '.here'))!r}, 'w')\n"
            + wait.format(str(tmp_path / f"{b}.here")),
            tmp_path,
        )
        for a, b in (("x", "y"), ("y", "x"))
    ]
    assert [o.error for o in run_steps(meet, folder=tmp_path, jobs=2)] == [None, None]


def test_a_worker_answers_with_errors_and_lives_on(tmp_path):
    nothing = Comparing(("a", "b"), 0, str(tmp_path / "runs"))
    runs = [str(tmp_path / name) for name in "ab"]
    before = [shell(name, "pass", tmp_path) for name in "ab"]
    steps = [*before, Step("one", "one", nothing, weight=0.5), Step("two", "two", nothing)]
    outcomes = run_steps(steps, folder=tmp_path, jobs=1)[2:]
    assert runs
    assert all("ended with exit code 2" in (o.error or "") for o in outcomes)
    assert not (tmp_path / "steps" / "one.json").exists()


def test_a_checkpoint_that_cannot_be_read_fails_its_step(tmp_path):
    step = Step("one", "one", evaluation(1), inputs=(str(tmp_path / "nothing"),))
    (outcome,) = run_steps([step], folder=tmp_path, jobs=1)
    assert "no checkpoint" in (outcome.error or "")


PARENT = """
import signal, sys, json
from pathlib import Path
signal.signal(signal.SIGINT, signal.default_int_handler)  # ignored in a shell's background job
from franken.study.lanes import Done, run_steps
from franken.study.steps import Step
from franken.study.verbs import Process
folder = Path(sys.argv[1])
code = "import os, time; open({!r}, 'w').write(str(os.getpid())); time.sleep(60)".format(str(folder / 'pid'))
slow = Process("command", "", lambda: [sys.executable, "-c", code], lambda: False)
step = Step("slow", "slow", slow)
try:
    run_steps([step], folder=folder, jobs=1)
except KeyboardInterrupt:
    sys.exit(130)
"""


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupt_ends_the_children(tmp_path, number):
    parent = subprocess.Popen([sys.executable, "-c", PARENT, str(tmp_path)], start_new_session=True)
    pid = None
    for _ in range(400):
        if (tmp_path / "pid").exists() and (tmp_path / "pid").read_text():
            pid = int((tmp_path / "pid").read_text())
            break
        time.sleep(0.05)
    assert pid
    os.kill(parent.pid, number)
    assert parent.wait(30) == 130
    with pytest.raises(ProcessLookupError):
        os.kill(pid, 0)


def test_records_are_good_only_for_the_same_arguments_and_existing_runs(tmp_path, monkeypatch):
    from franken.study import lanes as module

    asked = []

    class Worker:
        def __init__(self, *_):
            pass

        def alive(self):
            return True

        def do(self, argv):
            n = int(argv[argv.index("--n") + 1])
            asked.append(n)
            folder = tmp_path / f"run-{n}"
            folder.mkdir(exist_ok=True)
            (folder / "run.json").write_text("{}")
            return Done((str(folder),))

        def close(self):
            pass

    monkeypatch.setattr(module, "_Worker", Worker)

    def go(n):
        (outcome,) = run_steps([Step("one", "one", evaluation(n))], folder=tmp_path, jobs=1)
        return outcome.skipped

    assert [go(1), go(1), go(2), go(1)] == [False, True, False, False]
    (tmp_path / "run-1" / "run.json").unlink()
    assert go(1) is False
    assert json.loads((tmp_path / "steps" / "one.json").read_text())["folders"] == [
        str(tmp_path / "run-1")
    ]
    assert asked == [1, 2, 1, 1]


def test_every_lane_has_its_device_and_results_are_found_on_any(tmp_path, monkeypatch):
    from franken.study import lanes

    ran = []

    class Worker:
        def __init__(self, board, number):
            self.number = number

        def alive(self):
            return True

        def do(self, argv):
            ran.append((self.number, argv[argv.index("--device") + 1]))
            time.sleep(0.1)  # so that the other lane takes the next
            run = tmp_path / f"run-{argv[argv.index('--n') + 1]}"
            run.mkdir()
            (run / "run.json").touch()
            return Done((str(run),))

        def close(self):
            pass

    monkeypatch.setattr(lanes, "_Worker", Worker)
    steps = [Step(f"s{n}", "ask", evaluation(n)) for n in range(4)]
    devices, said = ("cuda:0", "cuda:1"), []
    ended = run_steps(steps, folder=tmp_path, devices=devices, report=lambda *x: said.append(x))
    assert set(ran) == {(0, "cuda:0"), (1, "cuda:1")}
    assert {f"--device {device}" for device in devices} == {
        o.command[o.command.index("--device") :].partition(" --dtype")[0] for o in ended
    }
    assert {text for _, state, text in said if state == "start"} == {
        "ask on cuda:0",
        "ask on cuda:1",
    }
    assert all(o.skipped for o in run_steps(steps, folder=tmp_path, jobs=1))
