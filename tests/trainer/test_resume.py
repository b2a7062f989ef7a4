"""Runs that are killed at random moments end as one that nobody killed; 24 kills are in
benchmarks/results/resume.md.
"""

from kill_and_resume import main
from processes import start


def test_killed_runs_resume_bit_for_bit(tmp_path):
    process = start(tmp_path / "said", main, ["--kills", "3", "--seed", "1"])
    assert process.wait() == 0, process.stdout + process.stderr
    assert "all equal, bit for bit" in process.stdout
    assert "| 3 | " in process.stdout
