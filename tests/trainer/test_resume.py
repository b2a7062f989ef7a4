"""Runs that are killed at random moments end as one that nobody killed; 24 kills are in
benchmarks/results/resume.md.
"""

import os
import subprocess
import sys
from pathlib import Path

SCRIPT = Path(__file__).with_name("kill_and_resume.py")


def test_killed_runs_resume_bit_for_bit(tmp_path):
    environment = {
        **os.environ,
        "OMP_NUM_THREADS": "1",
        "TMPDIR": str(tmp_path),
        "HF_HUB_OFFLINE": "1",
    }
    environment["PYTHONPATH"] = str(SCRIPT.parents[2])
    command = [sys.executable, str(SCRIPT), "--kills", "3", "--seed", "1"]
    found = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert found.returncode == 0, found.stdout + found.stderr
    assert "all equal, bit for bit" in found.stdout
    assert "| 3 | " in found.stdout
