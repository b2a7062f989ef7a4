"""Fingerprints of files and folders: what must change them, and what must not."""

import os
import shutil
import time

import pytest

from franken.checkpoints import fingerprint, open_checkpoint
from franken.contents import WHOLE, of_file, of_path
from franken.models import creature


def flip(path, at: int) -> None:
    """Another value for one byte of a file."""
    with path.open("r+b") as opened:
        opened.seek(at)
        byte = opened.read(1)
        opened.seek(at)
        opened.write(bytes([byte[0] ^ 1]))


def test_one_byte_anywhere_in_a_small_file_even_with_the_same_time(tmp_path):
    path = tmp_path / "a"
    path.write_bytes(os.urandom(300_000))
    stat, before = path.stat(), of_file(path)
    for at in (0, 150_001, 299_999):
        flip(path, at)
        os.utime(path, ns=(stat.st_atime_ns, stat.st_mtime_ns))
        assert of_file(path) != before
        flip(path, at)
    os.utime(path)
    assert of_file(path) == before
    assert of_file(shutil.copyfile(path, tmp_path / "b")) == before


def test_one_byte_in_the_middle_of_a_large_file(tmp_path):
    path = tmp_path / "large"
    with path.open("wb") as opened:
        opened.truncate(20 * WHOLE)
    before = of_file(path)
    assert of_file(path) == before
    time.sleep(0.02)  # clocks of file systems tick some hundred times a second
    flip(path, 10 * WHOLE + 12_345)
    assert of_file(path) != before


def test_large_files_differ_by_size_and_sampled_bytes_too(tmp_path):
    seen = set()
    for size, end in ((2 * WHOLE, b"a"), (2 * WHOLE, b"b"), (2 * WHOLE + 1, b"a")):
        path = tmp_path / "large"
        with path.open("wb") as opened:
            opened.seek(size - 1)
            opened.write(end)
        os.utime(path, ns=(0, 0))
        seen.add(of_file(path))
    assert len(seen) == 3


def test_a_folder_by_names_and_contents(tmp_path):
    (tmp_path / "sub").mkdir()
    (tmp_path / "sub" / "a").write_text("1")
    (tmp_path / "b").write_text("2")
    prints = [of_path(tmp_path)]
    (tmp_path / ".hidden").write_text("3")
    assert of_path(tmp_path) == prints[0]
    (tmp_path / "sub" / "a").write_text("4")
    prints.append(of_path(tmp_path))
    (tmp_path / "b").rename(tmp_path / "c")
    prints.append(of_path(tmp_path))
    (tmp_path / "d").write_text("")
    prints.append(of_path(tmp_path))
    assert len(set(prints)) == 4
    assert of_path(tmp_path / "c") == of_file(tmp_path / "c")


@pytest.mark.parametrize("share", [0.3, 0.5, 0.9])
def test_a_checkpoint_by_every_byte(tmp_path, share):
    creature.save(creature.build_model(0), tmp_path)
    before = fingerprint(open_checkpoint(tmp_path))
    assert fingerprint(open_checkpoint(tmp_path)) == before
    weights = tmp_path / "model.safetensors"
    flip(weights, int(weights.stat().st_size * share))
    assert fingerprint(open_checkpoint(tmp_path)) != before
