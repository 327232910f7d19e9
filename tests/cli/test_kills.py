"""Trainings that are killed outright at random moments: ten of those of benchmarks/kills.py, two of each kind."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

from tests.cli.conftest import ENVIRONMENT, TOOLS


@pytest.mark.skipif(sys.platform != "linux", reason="forks a process that has imported torch")
def test_ten_killed_and_resumed_trainings_end_as_the_undisturbed_to_the_bit(tmp_path):
    result = tmp_path / "kills.json"
    benchmark = TOOLS.parent / "benchmarks" / "kills.py"
    command = [sys.executable, benchmark, "--kills", "10", "--seed", "0", "--at-once", "2", "--output", result]
    done = subprocess.run(list(map(str, command)), capture_output=True, text=True, env=ENVIRONMENT, timeout=1200)
    assert done.returncode == 0 and "10 of 10 equal to the bit" in done.stdout, done.stdout + done.stderr
    fell = json.loads(result.read_text())["fell"]
    assert set(fell) == {"start", "step", "save", "evaluation", "end"}, fell
