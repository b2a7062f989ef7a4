"""What the command line prints, whatever a model, a file or a terminal brings."""

import os
import subprocess
import sys

import pytest

from franken import console
from franken.runs import layer_row, open_run
from franken.runs.training import Progress, Update

REPLY = "a [/answer] of [red]x[/red] [/"


def test_square_brackets_of_a_reply_are_no_markup(capsys):
    console.print_table(["task", REPLY], [[REPLY, 3]])
    out = capsys.readouterr().out
    assert out.count(REPLY) == 2


def test_a_task_with_brackets_in_its_name_is_regraded(tmp_path, capsys):
    from franken.cli import run_command

    run = open_run("eval", "m", {"x": 1}, tmp_path, config={"seed": 0, "data": None})
    task = {"model": "m", "method": "image", "task": "read", "sample": "s", "draw": -1}
    run.append(
        [
            {
                **task,
                "output": REPLY,
                "answer": REPLY,
                "gold": "1",
                "score": 0.0,
                "reason": "x",
                "error": None,
                "ineligible": None,
                "strategy": None,
                "well_formed": False,
                "truncated": False,
            }
        ]
    )
    folder = run.finish(
        [
            layer_row(
                model="m",
                method=REPLY,
                task="read",
                metric="acc@1",
                value=0.5,
                ci_low=0.1,
                ci_high=0.9,
                n=1,
            )
        ],
        n_requested=1,
    )
    assert console.finish_run(folder, False, rows="metric", columns="task", metrics=None) == 0
    assert REPLY in capsys.readouterr().out
    assert run_command(["show", str(folder)], False) == 0


def test_progress_takes_brackets(monkeypatch):
    monkeypatch.setenv("FORCE_COLOR", "1")
    monkeypatch.setenv("TERM", "xterm")
    with console.progress_bar(True) as tick:
        tick(1, 2, REPLY)


@pytest.mark.parametrize("encoding", ["ascii", "utf-8"])
def test_a_terminal_that_cannot_print_a_character_does_not_end_the_run(encoding, tmp_path):
    run = open_run("probe", "m", {"x": 1}, tmp_path, config={})
    run.finish([layer_row(model="m→n", method="zero", layer=0, metric="x", n=3)], n_requested=3)
    command = [sys.executable, "-c", "from franken.cli import main; main()", "show", str(tmp_path)]
    environment = os.environ | {"PYTHONIOENCODING": encoding}
    result = subprocess.run(command, env=environment, capture_output=True, timeout=60)
    assert result.returncode == 0, result.stderr
    assert ("m→n" if encoding == "utf-8" else "m\\u2192n") in result.stdout.decode(encoding)


@pytest.mark.parametrize(
    ("steps", "seconds", "said"), [(40, None, "sft 10/40"), (None, 60.0, "sft 10 (12 of 60 CPU-s)")]
)
def test_a_training_says_how_far_it_is(steps, seconds, said, capsys):
    line = {"step": 10, "update": 10, "cpu_seconds": 12.3, "loss": 0.5, "held_out": None}
    report = console.training_lines()
    report(Progress("sft", Update.model_validate(line), steps, seconds))
    line |= {"step": 11, "held_out": {"acc@1": 0.25, "acc@4": 0.5}}
    report(Progress("sft", Update.model_validate(line), steps, seconds))
    first, second = capsys.readouterr().err.splitlines()
    assert first == f"{said}  loss 0.500"
    assert second.endswith("held-out acc@1 0.250 acc@4 0.500")
