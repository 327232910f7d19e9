"""A disk that fills up in mid-training: a real small one, a tmpfs in a mount namespace of its own."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from tests.engine.conftest import ROOT
from tests.engine.test_resume import final_state
from tests.engine.toy import draw_figure, job
from vertebra.engine.checkpoint import Checkpoints
from vertebra.ground.files import DiskFull

DISK_KB = 400
ALONE = ("unshare", "--map-root-user", "--mount")


def train_on(disk: Path) -> None:
    """Train, fill the disk before the save after iteration 6's evaluation, make room, train on; print what happened."""
    ballast = disk / "ballast"

    def fill(iteration: int) -> dict[str, float]:
        with open(ballast, "wb", buffering=0) as file:
            try:
                while True:
                    file.write(bytes(4096))
            except OSError:
                return draw_figure(iteration)

    try:
        job(disk / "run", evaluate=fill)
    except DiskFull as error:
        print(error.strerror)
    newest = Checkpoints(disk / "run" / "checkpoints").latest()
    print("newest:", newest and newest["iteration"], sorted(path.name for path in disk.glob("run/checkpoints/*")))
    ballast.unlink()
    job(disk / "run", resume=True)
    state = final_state(disk / "run")
    print("end:", state["iteration"], float(sum(tensor.double().sum() for tensor in state["model"].values())))


def test_a_full_disk_stops_a_training_with_a_sentence_and_costs_nothing(tmp_path):
    disk = tmp_path / "disk"
    disk.mkdir()
    mount = f"mount -t tmpfs -o size={DISK_KB}k none {disk}"
    if subprocess.run([*ALONE, "sh", "-c", mount], capture_output=True).returncode:
        pytest.skip("no mounts in a namespace of one's own here")
    train = f"{sys.executable} -m tests.engine.test_full_disk {disk}"
    environment = {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", "PATH": "/usr/bin:/bin"}
    done = subprocess.run(
        [*ALONE, "sh", "-c", f"{mount} && {train}"], capture_output=True, text=True, cwd=ROOT, env=environment
    )
    assert done.returncode == 0, done.stderr
    sentence, newest, end = done.stdout.splitlines()
    assert sentence.startswith("The disk is full: ") and "0000006.pt could not be written" in sentence
    assert "Free some space and run the same command again, with --resume" in sentence
    assert newest == "newest: 6 ['0000004.pt', '0000006.pt']", "that of before the evaluation, and nothing half-written"
    job(tmp_path / "whole")
    state = final_state(tmp_path / "whole")
    assert end == f"end: 12 {float(sum(tensor.double().sum() for tensor in state['model'].values()))}"


if __name__ == "__main__":
    train_on(Path(sys.argv[1]))
