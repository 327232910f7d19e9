"""Jobs on a real Ray cluster of several nodes in this machine: placed, lost with a node, found again, and stopped."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import textwrap
import time
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path

import pytest

from vertebra.engine.jobs import on_ray
from vertebra.ground.errors import UserError

ROOT = Path(__file__).parents[2]
pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="looks into /proc")
has_ray = pytest.mark.skipif(find_spec("ray") is None, reason="Ray is not installed: pip install ray")
needs_ray = lambda test: pytest.mark.slow(has_ray(test))  # noqa: E731  # a minute together, three on a busy machine

# Two nodes on this machine; it prints the address and the process to kill that is the second node.
CLUSTER = """
import sys, threading
from ray.cluster_utils import Cluster
size = dict(node_ip_address="127.0.0.1", object_store_memory=80 << 20, num_cpus=2, num_gpus=2, include_dashboard=False)
cluster = Cluster(initialize_head=True, head_node_args=size)
second = cluster.add_node(**size).all_processes["raylet"][0].process
threading.Thread(target=second.wait, daemon=True).start()  # to Ray's workers a dead process that nobody asks for lives
print(cluster.address, second.pid, flush=True)
sys.stdin.read()
cluster.shutdown()
"""
# Of such a cluster and who connects to it: it listens on loopback alone; a loaded machine may take its time.
LOOPBACK = {
    "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0",
    "RAY_raylet_start_wait_time_s": "120",
    "RAY_USAGE_STATS_ENABLED": "0",
}

# What a user's command does: a study on the cluster, of jobs whose code and needs are given.
DRIVER = """
import sys
from pathlib import Path
from vertebra.engine.jobs.jobs import Job, run_at
from vertebra.engine.jobs.on_ray import RayCluster
address, place, gpus, *codes = sys.argv[1:]
place = Path(place)
cluster = RayCluster(address, place / "consoles", processes=1, cores=1, gpus=int(gpus), wanted="auto")
jobs = [Job(name, place / name, (sys.executable, "-c", code), 1) for name, code in zip("abc", codes)]
outcome = run_at(cluster, jobs)
print(outcome.failed, outcome.not_run, list(outcome.reasons.values()), flush=True)
sys.exit(128 + outcome.stopped_by if outcome.stopped_by else 0)
"""

# A training in small: notes that it began and its process, saves at SIGTERM, and goes on until it may end.
TRAINING = """
import os, signal, sys, time
from pathlib import Path
place = Path({place!r})
def save(*_):
    (place / "{name}.saved").touch()
    sys.exit(143)
signal.signal(signal.SIGTERM, save)
with open(place / "{name}.begun", "a") as file:
    file.write(f"{{os.getpid()}} {{os.environ.get('CUDA_VISIBLE_DEVICES')}}\\n")
while not (place / "go").exists():
    time.sleep(0.05)
"""


def start(code: str, *arguments: object) -> subprocess.Popen:
    environment = {**os.environ, **LOOPBACK, "PYTHONPATH": str(ROOT)}
    environment.pop("CUDA_VISIBLE_DEVICES", None)
    command = [sys.executable, "-c", textwrap.dedent(code), *map(str, arguments)]
    pipe = subprocess.PIPE
    return subprocess.Popen(command, stdin=pipe, stdout=pipe, text=True, env=environment, cwd=ROOT)


@contextmanager
def two_nodes() -> Iterator[tuple[str, int]]:
    """A cluster's address, and the process to kill with which its second node is lost."""
    process = start(CLUSTER)
    address, second = process.stdout.readline().split()
    try:
        yield address, int(second)
    finally:
        process.communicate(timeout=120)


@pytest.fixture(scope="module")
def cluster() -> Iterator[tuple[str, int]]:
    with two_nodes() as found:
        yield found


def training(place: Path, name: str) -> str:
    return TRAINING.format(place=str(place), name=name)


def begun(place: Path, name: str) -> list[list[str]]:
    """Process and GPUs of each time that the job began."""
    path = place / f"{name}.begun"
    return [line.split() for line in path.read_text().splitlines()] if path.exists() else []


def wait_for(condition, *processes: subprocess.Popen, seconds: float = 120) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert all(process.poll() is None for process in processes), [one.communicate() for one in processes]
        assert time.monotonic() < deadline, "it did not happen"
        time.sleep(0.05)


def is_alive(process: str) -> bool:
    try:
        return Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0] not in "ZX"
    except OSError:
        return False


@needs_ray
def test_a_job_gets_its_gpus_on_one_node_and_goes_on_elsewhere_when_that_is_killed(cluster, tmp_path):
    """Two nodes with two GPUs each: three jobs of two GPUs are two at a time, and one when a node is gone."""
    address, second = cluster
    driver = start(DRIVER, address, tmp_path, 2, *(training(tmp_path, name) for name in "abc"))
    wait_for(lambda: begun(tmp_path, "a") and begun(tmp_path, "b"), driver)
    assert not begun(tmp_path, "c"), "there is room for two"
    processes = {name: begun(tmp_path, name)[0] for name in "ab"}
    assert [gpus for _, gpus in processes.values()] == ["0,1", "0,1"]
    os.kill(second, signal.SIGKILL)
    wait_for(lambda: not all(is_alive(process) for process, _ in processes.values()), driver)
    (lost,) = (name for name, (process, _) in processes.items() if not is_alive(process))
    (tmp_path / "go").touch()
    out, _ = driver.communicate(timeout=120)
    assert driver.returncode == 0 and "3 of 3 finished" in out and out.endswith("{} {} []\n"), out
    assert f"{lost}: its node was lost, or its process killed there; it is started again (1 of 3 times)" in out
    assert {name: len(begun(tmp_path, name)) for name in "abc"} == {"a": 1, "b": 1, "c": 1, lost: 2}


@needs_ray
def test_a_driver_that_is_killed_finds_its_jobs_again_and_one_that_is_stopped_ends_them(cluster, tmp_path):
    address, _ = cluster
    arguments = (address, tmp_path, 0, training(tmp_path, "a"))
    driver = start(DRIVER, *arguments)
    wait_for(lambda: begun(tmp_path, "a"), driver)
    driver.kill()
    driver.communicate()
    again = start(DRIVER, *arguments)
    while not again.stdout.readline().startswith("0 of 1 finished, 1 running"):
        assert again.poll() is None
    ((process, _),) = begun(tmp_path, "a")
    assert is_alive(process), "it went on, and was started once"
    again.terminate()
    out, _ = again.communicate(timeout=60)
    assert again.returncode == 128 + signal.SIGTERM and (tmp_path / "a.saved").exists() and not is_alive(process), out


@needs_ray
def test_a_failure_has_its_sentence_and_what_listens_does_so_on_loopback(tmp_path):
    """Ray of this machine alone; `ss` names all that listens."""
    code = "import subprocess, sys; subprocess.run(['ss', '-ltnup']); sys.exit('error: no such image')"
    driver = start(DRIVER, "local", tmp_path, 0, code)
    out, _ = driver.communicate(timeout=240)
    assert driver.returncode == 0 and out.rstrip().endswith(
        f"{{'a': 1}} {{}} ['ended with 1: error: no such image ({tmp_path / 'consoles' / 'a.txt'})']"
    )
    rows = [line.split() for line in (tmp_path / "consoles" / "a.txt").read_text().splitlines()]
    listening = [row[4] for row in rows if "ray" in row[-1] or "gcs" in row[-1]]
    assert listening and all("127.0.0.1" in address for address in listening), listening


def test_a_directory_that_a_node_does_not_see_is_said(tmp_path):
    (tmp_path / "consoles").mkdir()
    mark = tmp_path / "consoles" / ".shared"
    arguments = (
        (sys.executable, "-c", ""),
        str(tmp_path / "consoles" / "a.txt"),
        (str(mark), "own"),
        str(tmp_path),
        {},
    )
    for other in (None, "another machine's"):
        if other:
            mark.write_text(other)
        assert f"does not see {tmp_path}: give an --output that all nodes share" in on_ray.Runner(*arguments).poll()
    mark.write_text("own")
    runner = on_ray.Runner(*arguments)
    wait_for(lambda: runner.poll() == 0)


def test_what_is_asked_of_a_node_is_what_one_has(capsys):
    nodes = [
        {"Alive": True, "Resources": {"CPU": 8.0, "GPU": 2.0}},
        {"Alive": True, "Resources": {"CPU": 64.0}},
        {"Alive": False, "Resources": {"CPU": 99.0, "GPU": 8.0}},
    ]
    assert on_ray._fitting(nodes, gpus=2, cores=24, wanted="auto") == (2, 8)
    assert on_ray._fitting(nodes, gpus=0, cores=24, wanted="cpu") == (0, 24)
    assert on_ray._fitting(nodes[1:], gpus=2, cores=6, wanted="auto") == (0, 6)
    assert not capsys.readouterr().err
    assert on_ray._fitting(nodes[1:], gpus=2, cores=6, wanted="cuda") == (2, 6)
    assert "no node of Ray's has 2 GPUs and a core; the jobs wait until one joins" in capsys.readouterr().err


def test_without_ray_the_hint_says_how_to_get_it(monkeypatch):
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(UserError, match=r'not installed: pip install "vertebra\[ray\]"'):
        on_ray._connect("auto")
