"""The lock of a folder: one holder, named to others, gone with its process."""

import fcntl
import os
import signal
import subprocess
import sys

import pytest

from franken.errors import UsageError
from franken.lock import UNABLE, locked

HOLD = """
import sys, time
from pathlib import Path
from franken.lock import locked
with locked(Path(sys.argv[1])):
    print("held", flush=True)
    time.sleep(60)
"""


def test_a_second_writer_is_refused_with_the_pid_of_the_first_until_it_is_killed(tmp_path):
    child = subprocess.Popen(
        [sys.executable, "-c", HOLD, str(tmp_path / "out")], stdout=subprocess.PIPE, text=True
    )
    try:
        assert child.stdout
        assert child.stdout.readline() == "held\n"
        with pytest.raises(UsageError, match="is in use") as e, locked(tmp_path / "out"):
            pass
        assert f"process {child.pid} " in e.value.why
    finally:
        os.kill(child.pid, signal.SIGKILL)
        child.wait()
    assert (tmp_path / ".out.lock").exists()  # a killed holder leaves the file, which locks nothing
    with locked(tmp_path / "out"):
        assert (tmp_path / ".out.lock").read_text() == f"{os.getpid()}\n"
    assert list(tmp_path.iterdir()) == []


def test_it_is_one_lock_by_any_name_and_is_given_back_after_an_error(tmp_path):
    (tmp_path / "out").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "out")
    with pytest.raises(ZeroDivisionError), locked(tmp_path / "out"):
        with pytest.raises(UsageError), locked(tmp_path / "link"):
            pass
        raise ZeroDivisionError
    with locked(tmp_path / "link"), locked(tmp_path / "other"):
        pass


@pytest.mark.parametrize("number", UNABLE)
def test_a_file_system_without_locks_is_written_to(tmp_path, monkeypatch, number):
    def flock(*_):
        raise OSError(number, "no locks here")

    monkeypatch.setattr(fcntl, "flock", flock)
    with locked(tmp_path / "out"):
        (tmp_path / "out").mkdir()
    assert [p.name for p in tmp_path.iterdir()] == ["out"]


RACE = """
import sys, time
from pathlib import Path
from franken.errors import UsageError
from franken.lock import locked
folder, turns = Path(sys.argv[1]), 0
until = time.monotonic() + 3
while time.monotonic() < until:
    try:
        with locked(folder):
            folder.mkdir()  # fails where somebody else is inside
            folder.rmdir()
            turns += 1
    except UsageError:
        pass
print(turns)
"""


def test_writers_that_come_and_go_never_share_a_folder(tmp_path):
    """Each removes the lock file when it is done, while others try to lock that very file."""
    children = [
        subprocess.Popen(
            [sys.executable, "-c", RACE, str(tmp_path / "out")], stdout=subprocess.PIPE, text=True
        )
        for _ in range(3)
    ]
    turns = [int(child.communicate()[0]) for child in children]
    assert [child.returncode for child in children] == [0, 0, 0]
    assert all(turns)
    assert not (tmp_path / ".out.lock").exists()
