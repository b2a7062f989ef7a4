"""Disks that fill up, folders that cannot be written, paths that are none: every verb says what,
why and how to mend it, leaves nothing that looks finished, and goes on once there is room.
"""

import io
import json
import os
import resource
import sys
from contextlib import redirect_stderr, redirect_stdout

import pytest
from processes import start

from franken.cli import run_command
from franken.errors import FrankenError
from franken.runs import files, load_run, open_run
from franken.runs.files import write_parquet

VERBS = {
    "diff": "diff creature:base creature:sft --layers 0-1",
    "probe": "probe creature:base --method zero --samples 2 --tasks read --layers 0-1",
    "eval": "eval creature:base --tasks read --samples 2 --n 1 --k 1",
    "train": "train creature-grpo --set stages.0.steps=1 --set stages.0.prompts=2",
}
FULL = [  # bytes that a file may have: a disk that fills at this point
    *(("diff", 0), ("diff", 3_000), ("probe", 0), ("eval", 3_000), ("train", 0)),
]


def run_with_little_room(line, limit, place):
    """The command where no file may be longer than `limit`, and again without a limit: its status,
    what it said, and the files that are there.
    """
    steps = []
    for size in (limit, resource.RLIM_INFINITY):
        out, err = io.StringIO(), io.StringIO()
        with redirect_stdout(out), redirect_stderr(err):
            resource.setrlimit(resource.RLIMIT_FSIZE, (size, resource.RLIM_INFINITY))
            code = run_command([*line.split(), "--out", str(place / "out")], False)
            resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY,) * 2)
        files = sorted(str(p.relative_to(place)) for p in place.rglob("*") if p.is_file())
        steps.append([code, err.getvalue(), files])
    sys.stdout.write(json.dumps(steps))


def test_a_full_disk_is_told_and_the_same_command_goes_on_once_there_is_room(tmp_path):
    for verb, limit in FULL:
        place = tmp_path / f"{verb}-{limit}"
        place.mkdir()
        child = start(tmp_path / "said", run_with_little_room, VERBS[verb], limit, place)
        assert child.wait() == 0, child.stderr
        full, again = json.loads(child.stdout)
        (code, err, written), case = full, (verb, limit, full, again)
        assert "Traceback" not in err, case
        assert "fault of franken" not in err, case
        if code:
            assert code == 1, case
            assert "error: " in err, case
            assert "why: " in err, case
            assert "fix: " in err, case
        if limit < 3_000:
            assert code == 1, case
            ends = ("run.json", "train.json")
            assert not any(name.endswith(ends) for name in written), case
        assert again[0] in (0, 3), case
        hidden = [name for name in again[2] if any(p.startswith(".") for p in name.split("/"))]
        assert hidden == [], case


@pytest.fixture
def place(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / "file").write_text("x")
    (tmp_path / "dangling").symlink_to(tmp_path / "nowhere")
    (tmp_path / "loop").symlink_to(tmp_path / "loop")
    return tmp_path


BAD = ["file", "file/below", "dangling", "dangling/below", "loop", "/dev/null/x", "a" * 250]
BAD += ["/proc/x", "/proc/x/y", "/sys/x"]
BAD += ["/".join(["b" * 100] * 50), "~no-such-user-here/below"]


@pytest.mark.parametrize("out", BAD)
@pytest.mark.parametrize("verb", VERBS)
def test_a_folder_that_cannot_be_made_is_refused_before_any_work(capsys, place, verb, out):
    before = sorted(os.listdir(place))
    code = run_command([*VERBS[verb].split(), "--out", out], False)
    err = capsys.readouterr().err
    assert code == 2, err
    assert "error: cannot write to" in err
    assert "why: " in err
    assert "fix: " in err
    assert sorted(os.listdir(place)) == before


def test_home_is_expanded_by_run_folders(place):
    with open_run("eval", "m", {"x": 1}, "~/runs", config={}) as run:
        assert run.folder.is_relative_to(place / "runs")


def test_a_finished_run_is_found_where_nothing_can_be_written(tmp_path, monkeypatch):
    with open_run("eval", "m", {"x": 1}, tmp_path, config={}) as run:
        run.append([{"sample": "a", "error": None}])
        run.finish([], n_requested=1)
    monkeypatch.setattr(os, "access", lambda *_: False)
    with open_run("eval", "m", {"x": 1}, tmp_path, config={}) as again:
        assert again.is_complete()
    with pytest.raises(FrankenError, match="cannot write"):
        open_run("eval", "m", {"x": 2}, tmp_path, config={})


def test_a_file_that_fails_half_way_leaves_nothing(tmp_path):
    import pandas as pd

    with pytest.raises(ZeroDivisionError), files.whole(tmp_path / "a") as temporary:
        temporary.write_text("half")
        raise ZeroDivisionError
    with pytest.raises(OSError, match="directory"):
        write_parquet(pd.DataFrame({"a": [1]}), tmp_path / "missing" / "a.parquet")
    assert list(tmp_path.iterdir()) == []


def test_what_a_killed_writer_left_goes_when_its_run_goes_on(tmp_path):
    run = open_run("eval", "m", {"x": 1}, tmp_path, config={})
    run.append([{"sample": "a", "error": None}])
    for name in ("samples.parquet", ".samples.parquet.123", "parts/.00001.parquet.7", "parts/.x"):
        if name.startswith((".", "parts")):
            (run.folder / name).write_text("half")
    with open_run("eval", "m", {"x": 1}, tmp_path, config={}) as again:
        assert [p.name for p in again.folder.rglob(".*")] == [".x"]  # not one of ours


@pytest.mark.parametrize("name", ["samples.parquet", "layers.parquet"])
@pytest.mark.parametrize("damage", ["truncated", "text", "empty", "folder", "columns"])
def test_tables_that_are_damaged_are_one_error(tmp_path, capsys, name, damage):
    import pandas as pd

    with open_run("eval", "m", {"x": 1}, tmp_path, config={}) as run:
        row = {"model": "m", "method": "image", "task": "read", "sample": "a", "error": None}
        row |= {"draw": -1, "output": None, "score": None}
        run.append([row])
        folder = run.finish([], n_requested=1)
    file = folder / name
    content = file.read_bytes()
    file.unlink()
    if damage == "folder":
        file.mkdir()
    elif damage == "columns":
        pd.DataFrame({"x": [1]}).to_parquet(file)
    else:
        file.write_bytes({"truncated": content[:-9], "text": b"x" * 99, "empty": b""}[damage])
    for verb in ("show", "regrade") if name.startswith("samples") else ("show",):
        code = run_command([verb, str(folder)], False)
        err = capsys.readouterr().err
        assert "fault of franken" not in err, err
        assert code in (1, 2), err
    run = load_run(folder)
    with pytest.raises(FrankenError, match="damaged"):
        _ = run.answers("model", "method") if name.startswith("samples") else run.layers


MANIFESTS = ["", "{", "[]", "null", "7", '{"schema": 1}', '{"schema": "1"}', "\xff\xfe", "[" * 9999]
MANIFESTS += ['{"schema": 1, "verb": 3, "label": [], "n_requested": "x"}', '{"schema": 1e999}']
MANIFESTS += ['{"schema": 1, "schema": 1}']


@pytest.mark.parametrize("text", MANIFESTS)
def test_manifests_that_are_damaged_are_one_error(tmp_path, text):
    with open_run("eval", "m", {"x": 1}, tmp_path, config={}) as run:
        run.append([{"sample": "a", "error": None}])
        folder = run.finish([], n_requested=1)
    (folder / "run.json").write_bytes(text.encode("latin-1"))
    with pytest.raises(FrankenError) as e:
        load_run(folder)
    assert e.value.why


def test_parts_that_are_damaged_are_one_error(tmp_path):
    run = open_run("eval", "m", {"x": 1}, tmp_path, config={})
    run.append([{"sample": "a", "error": None}])
    (run.folder / "parts" / "00000.parquet").write_bytes(b"PAR1")
    with pytest.raises(FrankenError, match="damaged"):
        run.rows()
