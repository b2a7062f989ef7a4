"""One writer a run folder: two processes with one command line never keep rows twice, and a reader
is told that a run is being written.
"""

import json
import os
import re
import signal
from contextlib import suppress
from pathlib import Path

import pandas as pd
import pytest
from processes import SERVER, command_line, franken, start

from franken.errors import FrankenError
from franken.lock import locked
from franken.report.tables.kinds import accounts
from franken.runs import load_run, open_run, open_runs
from franken.runs.folder import Run

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


def write_slowly(words, told):
    """A franken that waits for a word whenever it stored rows."""
    append = Run.append

    def slowly(self, rows):
        append(self, rows)
        told.send("stored")
        if told.poll(None):
            told.recv()

    Run.append = slowly
    command_line(words)


def start_slowly(folder, words):
    """The process, once it has stored its first rows, and the line on which it waits."""
    here, there = SERVER.Pipe()
    process = start(folder, write_slowly, words, there)
    there.close()
    while not here.poll(0.1):
        assert process.process.is_alive(), process.stderr
    assert here.recv() == "stored"
    return process, here


def let_go(line):
    """Answer until the process has ended."""
    with suppress(EOFError, OSError):
        while True:
            line.send("go on")
            line.recv()


@pytest.mark.parametrize("verb", LINES)
def test_of_two_processes_on_one_folder_the_second_is_refused_and_rows_are_kept_once(
    tmp_path, verb
):
    words = [*LINES[verb].split(), "--out", str(tmp_path / "runs")]
    first, line = start_slowly(tmp_path / "first", words)
    try:
        second = franken(tmp_path / "second", words)
        assert second.wait() == 2
        assert "is in use" in second.stderr
        assert f"process {first.pid} is writing there" in second.stderr
        assert "Traceback" not in second.stderr
        [folder] = (tmp_path / "runs" / verb).glob("[!.]*")
        with pytest.raises(FrankenError, match="not a finished run yet") as e:
            load_run(folder)
        assert e.value.why == f"process {first.pid} is writing it"
        let_go(line)
        assert first.wait() == 0
    finally:
        first.process.kill()
    samples = load_run(folder).samples
    keys = [name for name in KEYS[verb] if name in samples]
    assert len(samples)
    assert not samples.duplicated(keys).any()
    assert list((tmp_path / "runs" / verb).iterdir()) == [folder]  # no lock is left


def test_what_a_killed_writer_left_is_taken_over_and_swept(tmp_path):
    words = [*LINES["diff"].split(), "--out", str(tmp_path / "runs")]
    first, _ = start_slowly(tmp_path / "first", words)
    os.kill(first.pid, signal.SIGKILL)
    assert first.wait() == -signal.SIGKILL
    again = franken(tmp_path / "again", [*words, "--json"])
    assert again.wait() == 0, again.stderr
    folder = Path(json.loads(again.stdout)["folder"])
    assert not load_run(folder).samples.duplicated(KEYS["diff"]).any()
    assert [p for p in (tmp_path / "runs").rglob(".*")] == []


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
