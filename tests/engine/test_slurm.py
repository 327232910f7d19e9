"""Jobs on a cluster: handed in once, behind those that they need, and found again by a watcher that was killed."""

from __future__ import annotations

import io
import os
import shutil
import signal
import subprocess
import sys
import textwrap
import time
from importlib.util import find_spec
from pathlib import Path

import pytest

from tests.engine import fake_slurm
from vertebra.engine.jobs import slurm
from vertebra.engine.jobs.jobs import Job, run_at
from vertebra.engine.jobs.slurm import Cluster
from vertebra.ground.errors import UserError


def has_slurm() -> bool:
    if not shutil.which("sbatch") or not shutil.which("sinfo"):
        return False
    try:
        answer = subprocess.run(["sinfo", "--noheader", "--format", "%T"], capture_output=True, text=True, timeout=5)
    except subprocess.TimeoutExpired:
        return False
    return any(state in answer.stdout for state in ("idle", "mixed", "allocated"))


needs_submitit = pytest.mark.skipif(
    find_spec("submitit") is None, reason="submitit is not installed: pip install submitit"
)
PLACES = [
    pytest.param("fake", id="fake", marks=needs_submitit),
    pytest.param(
        "slurm",
        id="slurm",
        marks=[needs_submitit, pytest.mark.skipif(not has_slurm(), reason="there is no SLURM with a free node here")],
    ),
]


@pytest.fixture
def queue(request, tmp_path, monkeypatch) -> str:
    """A queue that the commands find: the cluster's own, or one in small."""
    if request.param == "fake":
        fake_slurm.install(tmp_path / "bin")
        monkeypatch.setenv("PATH", f"{tmp_path / 'bin'}:{os.environ['PATH']}")
        monkeypatch.setattr(slurm, "QUEUE_PERIOD_S", 0.2)
    return request.param


def cluster(tmp_path: Path) -> Cluster:
    return Cluster({"time": "5"}, tmp_path / "slurm", tmp_path / "consoles", gpus=0, cores=1)


def job(tmp_path: Path, name: str, code: str, after: tuple[str, ...] = ()) -> Job:
    return Job(name, tmp_path / name, (sys.executable, "-c", textwrap.dedent(code)), 1, after=after)


@pytest.mark.parametrize("queue", PLACES, indirect=True)
def test_jobs_come_after_those_that_they_need_and_a_failure_loses_no_others(tmp_path, queue):
    order = f"open({str(tmp_path / 'order')!r}, 'a').write"
    jobs = [
        job(tmp_path, "first", f"import time; time.sleep(1); {order}('1')"),
        job(tmp_path, "second", f"{order}('2')", after=("first",)),
        job(tmp_path, "broken", "import sys; sys.exit('error: no such image')"),
        job(tmp_path, "lost", f"{order}('x')", after=("broken",)),
    ]
    stream = io.StringIO()
    outcome = run_at(cluster(tmp_path), jobs, stream=stream)
    assert (tmp_path / "order").read_text() == "12"
    assert outcome.failed == {"broken": 1}
    assert outcome.not_run == {"lost": "it needs broken, which failed"}
    assert "broken ended with 1: error: no such image" in stream.getvalue()


WATCHER = """
import sys
from pathlib import Path
from tests.engine.test_slurm import cluster, job
from vertebra.engine.jobs.jobs import run_at
place = Path(sys.argv[1])
code = f'''
import time
open({str(place / "started")!r}, "a").write("+")
while not __import__("os").path.exists({str(place / "go")!r}):
    time.sleep(0.05)
'''
outcome = run_at(cluster(place), [job(place, "a", code), job(place, "b", "pass", after=("a",))])
print(outcome.failed, outcome.not_run)
sys.exit(128 + outcome.stopped_by if outcome.stopped_by else 0)
"""


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
@pytest.mark.parametrize("queue", PLACES, indirect=True)
def test_a_watcher_that_is_killed_finds_its_jobs_again_and_doubles_none(tmp_path, queue, number):
    def watch() -> subprocess.Popen:
        command = [sys.executable, "-c", WATCHER, str(tmp_path)]
        return subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=Path(__file__).parents[2])

    watcher, deadline = watch(), time.monotonic() + 120
    while not (tmp_path / "started").exists():
        assert watcher.poll() is None and time.monotonic() < deadline
        time.sleep(0.05)
    watcher.send_signal(number)
    assert watcher.wait(timeout=60) == (-signal.SIGKILL if number == signal.SIGKILL else 128 + signal.SIGTERM)
    again = watch()
    while not again.stdout.readline().startswith("0 of 2 finished"):
        assert again.poll() is None
    (tmp_path / "go").touch()
    out, _ = again.communicate(timeout=240)
    assert again.returncode == 0 and out.endswith("{} {}\n") and "2 of 2 finished" in out
    assert (tmp_path / "started").read_text() == "+", "it was started once"


@pytest.mark.parametrize("queue", PLACES[:1], indirect=True)
def test_a_job_at_its_time_limit_saves_goes_back_into_the_queue_and_continues(tmp_path, queue):
    code = f"""
        import pathlib, signal, sys, time
        place = pathlib.Path({str(tmp_path)!r})
        if (place / "saved").exists():
            sys.exit(0)
        signal.signal(signal.SIGTERM, lambda *_: ((place / "saved").touch(), sys.exit(143)))
        (place / "ready").touch()
        time.sleep(60)
    """
    place = cluster(tmp_path)

    class Warned(Cluster):
        def poll(self):
            if (tmp_path / "ready").exists() and not (tmp_path / "saved").exists():
                (job,) = fake_slurm.jobs(tmp_path / "bin").values()
                os.killpg(job["process"], signal.SIGUSR2)  # SLURM's warning, as submitit asks for it
                time.sleep(0.5)
            return super().poll()

    place.__class__ = Warned
    outcome = run_at(place, [job(tmp_path, "a", code)], stream=io.StringIO())
    assert outcome.failed == {} and (tmp_path / "saved").exists()


def test_without_the_library_the_mend_is_said(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "submitit", None)
    with pytest.raises(UserError, match=r'not installed: pip install "vertebra\[slurm\]"'):
        cluster(tmp_path)


@needs_submitit
@pytest.mark.skipif(shutil.which("srun") is not None, reason="there is a SLURM here")
def test_without_a_cluster_that_is_said(tmp_path):
    with pytest.raises(UserError, match="there is no SLURM here"):
        cluster(tmp_path)


def test_words_go_to_submitit_or_to_sbatch():
    known = {"partition", "time", "mem", "account"}
    parameters = slurm._parameters({"partition": "gpu", "time": "240", "reservation": "ours"}, known)
    assert parameters == {
        "partition": "gpu",
        "time": 240,
        "additional_parameters": {"kill-on-invalid-dep": "yes", "reservation": "ours"},
    }
    with pytest.raises(UserError, match=r"--slurm partitoin=gpu: did you mean partition\?"):
        slurm._parameters({"partitoin": "gpu"}, known)
