"""What a command says when something goes wrong, and folders that results cannot go to."""

import errno
import json
import os
from pathlib import Path

import pytest

from franken.cli import run_command
from franken.errors import UsageError
from franken.outputs import output_folder

TWO = ["creature:base", "creature:sft"]


def run(capsys, *arguments):
    code = run_command([str(a) for a in arguments], debug=False)
    printed = capsys.readouterr()
    return code, printed.out, printed.err


@pytest.mark.parametrize(
    ("arguments", "code"),
    [
        (["diff", "nowhere", "nowhere"], 2),
        (["merge", "--no-such-option"], 2),
        (["no-such-verb"], 2),
        (["merge", *TWO, "--layers", "2-400", "--dry-run"], 2),
    ],
)
def test_with_json_an_error_is_one_object(capsys, arguments, code):
    found, out, err = run(capsys, *arguments, "--json")
    said = json.loads(out)
    assert found == said["code"] == code
    assert said.keys() == {"what", "why", "fix", "code"}
    assert said["what"]
    assert said["what"] in err


def test_frozen_layers_that_moved_are_one_object_too(capsys, tmp_path):
    out = ("--out", tmp_path, "--no-figures", "--json")
    code, printed, _ = run(capsys, "diff", *TWO, "--expect-frozen", "text", *out)
    assert json.loads(printed)["code"] == code == 4


def unforeseen(*_):
    raise KeyError("a key of ours")


def test_what_nobody_foresaw_is_one_line_with_the_details_in_a_file(capsys, monkeypatch):
    monkeypatch.setattr("franken.merge.plan.open_all", unforeseen)
    code, out, err = run(capsys, "merge", *TWO, "--layers", "2-4")
    assert (code, out) == (1, "")
    assert len(err.splitlines()) == 1
    assert "fault of franken" in err
    assert "report" in err
    details = Path(err.split("details: ")[1].split(";")[0])
    assert "a key of ours" in details.read_text()
    assert "Traceback" in details.read_text()
    assert details.stat().st_mode & 0o077 == 0
    details.unlink()
    with pytest.raises(KeyError):
        run_command(["merge", *TWO, "--layers", "2-4"], debug=True)


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EROFS, errno.EACCES, errno.EIO])
def test_what_the_system_says_is_told_in_three_lines(capsys, monkeypatch, number):
    def fail(*_):
        raise OSError(number, os.strerror(number), "/some/place")

    monkeypatch.setattr("franken.merge.plan.open_all", fail)
    code, _, err = run(capsys, "merge", *TWO, "--layers", "2-4")
    assert code == 1
    assert [line.split(":")[0].strip() for line in err.splitlines()] == ["error", "why", "fix"]
    assert "/some/place" in err


def test_memory_that_is_not_there_is_told(capsys, monkeypatch):
    def fail(*_):
        raise MemoryError

    monkeypatch.setattr("franken.merge.plan.open_all", fail)
    code, _, err = run(capsys, "merge", *TWO, "--layers", "2-4")
    assert code == 1
    assert "not enough memory" in err


@pytest.fixture
def place(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "file").write_text("x")
    (tmp_path / "dangling").symlink_to(tmp_path / "nowhere")
    (tmp_path / "loop").symlink_to(tmp_path / "loop")
    os.mkfifo(tmp_path / "pipe")
    return tmp_path


BAD = [
    "file",
    "file/below",
    "dangling",
    "dangling/below",
    "loop",
    "loop/below",
    "pipe/below",
    "/dev/null/below",
    "a" * 250,
    "a" * 5000,
    "/".join(["b" * 100] * 50),
    "~no-such-user-here/below",
]


@pytest.mark.parametrize("out", BAD)
@pytest.mark.parametrize("verb", ["diff", "merge"])
def test_folders_that_cannot_be_made_are_refused_before_any_work(capsys, place, verb, out):
    before = sorted(os.listdir(place))
    options = ["--no-figures"] if verb == "diff" else ["--layers", "2-4"]
    code, _, err = run(capsys, verb, *TWO, *options, "--out", out)
    assert code == 2
    assert "why:" in err
    assert "fix:" in err
    assert sorted(os.listdir(place)) == before


def test_home_is_expanded_and_here_has_a_name(place, monkeypatch):
    monkeypatch.setenv("HOME", str(place))
    assert output_folder(Path("~/runs")) == place / "runs"
    assert output_folder(Path(".")) == place
    assert output_folder(Path("runs/more")) == Path("runs/more")
    with pytest.raises(UsageError):
        output_folder(Path("file"))


@pytest.mark.skipif(os.getuid() == 0, reason="root may write anywhere")
def test_a_parent_that_cannot_be_written_is_refused(place):
    (place / "closed").mkdir(mode=0o555)
    with pytest.raises(UsageError, match="cannot write"):
        output_folder(place / "closed" / "runs")
