"""The processes of --gpus N listen to this machine alone: torch's launcher would unpickle what any other sends."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

HOUSE = Path(__file__).resolve().parents[2]
WORK = """
import os, sys
from vertebra.engine import distributed
if "RANK" not in os.environ:
    sys.exit(distributed.relaunch(2, device="cpu"))
with distributed.started("cpu") as world:
    world.gather_objects(world.rank)
    if world.is_main:
        for process in (os.getpid(), os.getppid()):
            folder = f"/proc/{process}/fd"
            links = {os.readlink(one.path) for one in os.scandir(folder) if os.path.islink(one.path)}
            for kind in ("tcp", "tcp6"):
                for line in open(f"/proc/net/{kind}").readlines()[1:]:
                    words = line.split()
                    if words[3] == "0A" and f"socket:[{words[9]}]" in links:
                        print("LISTENS", words[1].partition(":")[0], flush=True)
    world.gather_objects(world.rank)
"""
LOOPBACK = ("0100007F", "00000000000000000000000001000000", "0000000000000000FFFF00000100007F")


@pytest.mark.skipif(not Path("/proc/net/tcp").exists(), reason="reads Linux's list of sockets")
def test_launched_processes_listen_on_loopback_alone(tmp_path: Path):
    (tmp_path / "work.py").write_text(WORK)
    environment = {**os.environ, "PYTHONPATH": str(HOUSE), "OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""}
    command = [sys.executable, str(tmp_path / "work.py")]
    done = subprocess.run(command, capture_output=True, text=True, env=environment, timeout=180)
    assert done.returncode == 0, done.stderr[-3000:]
    places = [line.split()[1] for line in done.stdout.splitlines() if line.startswith("LISTENS")]
    assert len(places) >= 2 and set(places) <= set(LOOPBACK), places
