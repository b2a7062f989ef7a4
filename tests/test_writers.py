"""One writer a run folder: two processes with one command line never keep rows twice, and a reader
is told that a run is being written.
"""

import json
import os
import re
import signal
import subprocess
import sys
from pathlib import Path

import pandas as pd
import pytest

from franken.errors import FrankenError
from franken.lock import locked
from franken.report.tables.kinds import accounts
from franken.runs import load_run, open_run, open_runs

FRANKEN = Path(__file__).parents[1] / "franken"
LINES = {
    "probe": "probe creature:base --method zero --samples 2 --tasks read --no-figures",
    "diff": "diff creature:base creature:sft --no-figures",
    "eval": "eval creature:base --tasks read --samples 2 --n 1 --k 1 --no-compare",
}
KEYS = {
    "probe": ["method", "sample", "layer", "metric", "component"],
    "diff": ["tensor", "method"],
    "eval": ["method", "sample", "draw"],
}
ROW = {"model": "m", "method": "image", "task": "read", "sample": "a", "error": None}
PAUSED = """
import sys, time
from franken.cli import main
from franken.runs.folder import Run

append = Run.append

def slowly(self, rows):
    append(self, rows)
    print("stored", flush=True)
    sys.stdin.readline()

Run.append = slowly
main(sys.argv[1:])
"""
"""A franken that waits for a line of input whenever it stored rows."""


def start(words):
    return subprocess.Popen(
        [sys.executable, "-c", PAUSED, *words],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def until_it_stored(process):
    for line in process.stdout:
        if line == "stored\n":
            return
    pytest.fail(process.stderr.read())


@pytest.mark.parametrize("verb", LINES)
def test_of_two_processes_on_one_folder_the_second_is_refused_and_rows_are_kept_once(
    tmp_path, verb
):
    words = [*LINES[verb].split(), "--out", str(tmp_path)]
    first = start(words)
    try:
        until_it_stored(first)
        second = subprocess.run(
            [sys.executable, "-m", "franken.cli", *words], capture_output=True, text=True
        )
        assert second.returncode == 2
        assert "is in use" in second.stderr
        assert f"process {first.pid} is writing there" in second.stderr
        assert "Traceback" not in second.stderr
        [folder] = (tmp_path / verb).glob("[!.]*")
        with pytest.raises(FrankenError, match="not a finished run yet") as e:
            load_run(folder)
        assert e.value.why == f"process {first.pid} is writing it"
        first.communicate("\n" * 1000)
        assert first.returncode == 0
    finally:
        if first.poll() is None:
            os.kill(first.pid, signal.SIGKILL)
        first.wait()
    samples = load_run(folder).samples
    keys = [name for name in KEYS[verb] if name in samples]
    assert len(samples)
    assert not samples.duplicated(keys).any()
    assert list((tmp_path / verb).iterdir()) == [folder]  # no lock is left


def test_what_a_killed_writer_left_is_taken_over_and_swept(tmp_path):
    words = [*LINES["diff"].split(), "--out", str(tmp_path)]
    first = start(words)
    until_it_stored(first)
    os.kill(first.pid, signal.SIGKILL)
    first.communicate()
    again = subprocess.run(
        [sys.executable, "-m", "franken.cli", *words, "--json"], capture_output=True
    )
    assert again.returncode == 0, again.stderr
    folder = Path(json.loads(again.stdout)["folder"])
    assert not load_run(folder).samples.duplicated(KEYS["diff"]).any()
    assert [p for p in tmp_path.rglob(".*")] == []


def test_a_table_says_which_runs_are_being_written(tmp_path):
    with open_run("eval", "done", {"x": 1}, tmp_path, config={}) as run:
        run.append([ROW])
        run.finish([], n_requested=1)
    with open_run("eval", "other", {"x": 2}, tmp_path, config={}) as run:
        [line] = accounts(open_runs(tmp_path))
        assert f"{run.folder.name} (process {os.getpid()} is writing it)" in line
    [line] = accounts(open_runs(tmp_path))
    assert line.endswith(run.folder.name)


def test_a_finished_run_is_read_while_somebody_holds_its_folder(tmp_path):
    def opened():
        return open_run("eval", "m", {"x": 1}, tmp_path, config={})

    with opened() as run:
        run.append([ROW])
        folder = run.finish([], n_requested=1)
    with locked(folder), opened() as run:
        assert run.is_complete()
        assert isinstance(load_run(folder).samples, pd.DataFrame)


def test_every_verb_holds_its_folder_while_it_writes():
    """A run that is opened without `with` would not be locked."""
    bare = [
        f"{file.relative_to(FRANKEN)}: {line.strip()}"
        for file in sorted(FRANKEN.rglob("*.py"))
        for line in file.read_text().splitlines()
        if re.search(r"\bopen_run\(", line) and not re.search(r"\bwith open_run\(|\bdef ", line)
    ]
    assert bare == []
