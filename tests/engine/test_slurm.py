"""Jobs on a cluster: handed in once, behind those that they need, and found again by a watcher that was killed."""

from __future__ import annotations

import io
import shutil
import signal
import subprocess
import sys
import textwrap
import time
from importlib.util import find_spec
from pathlib import Path

import pytest

from vertebra.engine.jobs import slurm
from vertebra.engine.jobs.jobs import Job, run_at
from vertebra.engine.jobs.slurm import Cluster
from vertebra.ground.errors import UserError


def has_slurm() -> bool:
    if not shutil.which("sbatch") or not shutil.which("squeue"):
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
    pytest.param("local", id="local", marks=needs_submitit),
    pytest.param(
        "slurm",
        id="slurm",
        marks=[needs_submitit, pytest.mark.skipif(not has_slurm(), reason="there is no SLURM with a free node here")],
    ),
]


def cluster(tmp_path: Path, kind: str) -> Cluster:
    options = {"cluster": "local"} if kind == "local" else {"time": "5"}
    return Cluster(options, directory=tmp_path / "slurm", consoles=tmp_path / "consoles", gpus=0, cores=1, at_once=2)


def job(tmp_path: Path, name: str, code: str, after: tuple[str, ...] = ()) -> Job:
    return Job(name, tmp_path / name, (sys.executable, "-c", textwrap.dedent(code)), 1, after=after)


@pytest.mark.parametrize("kind", PLACES)
def test_jobs_come_after_those_that_they_need_and_a_failure_loses_no_others(tmp_path, kind):
    order = f"open({str(tmp_path / 'order')!r}, 'a').write"
    jobs = [
        job(tmp_path, "first", f"import time; time.sleep(1); {order}('1')"),
        job(tmp_path, "second", f"{order}('2')", after=("first",)),
        job(tmp_path, "broken", "import sys; sys.exit('error: no such image')"),
        job(tmp_path, "lost", f"{order}('x')", after=("broken",)),
    ]
    stream = io.StringIO()
    outcome = run_at(cluster(tmp_path, kind), jobs, stream=stream)
    assert (tmp_path / "order").read_text() == "12"
    assert outcome.failed == {"broken": 1}
    assert outcome.not_run == {"lost": "it needs broken, which failed"}
    assert "broken ended with 1: error: no such image" in stream.getvalue()


WATCHER = """
import sys
from pathlib import Path
from tests.engine.test_slurm import cluster, job
from vertebra.engine.jobs.jobs import run_at
place, kind = Path(sys.argv[1]), sys.argv[2]
code = f'''
import time
open({str(place / "started")!r}, "a").write("+")
while not __import__("os").path.exists({str(place / "go")!r}):
    time.sleep(0.05)
'''
outcome = run_at(cluster(place, kind), [job(place, "a", code), job(place, "b", "pass", after=("a",))])
print(outcome.failed, outcome.not_run)
sys.exit(128 + outcome.stopped_by if outcome.stopped_by else 0)
"""


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
@pytest.mark.parametrize("kind", PLACES)
def test_a_watcher_that_is_killed_finds_its_jobs_again_and_doubles_none(tmp_path, kind, number):
    def watch() -> subprocess.Popen:
        command = [sys.executable, "-c", WATCHER, str(tmp_path), kind]
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


@needs_submitit
def test_a_job_that_cannot_be_remembered_does_not_go_on_alone(tmp_path, monkeypatch):
    """As on a full disk: a watcher after this one would start it a second time."""

    def full(path: Path, value: object) -> None:
        raise OSError(28, "No space left on device", str(path))

    place = cluster(tmp_path, "local")
    monkeypatch.setattr(slurm, "write_json", full)
    outcome = run_at(place, [job(tmp_path, "a", "import time; time.sleep(60)")], stream=io.StringIO())
    assert outcome.not_run == {
        "a": f"it could not be started: No space left on device ({tmp_path / 'slurm' / 'jobs.json'})"
    }
    (submitted,) = place._local_jobs.values()
    deadline = time.monotonic() + 60
    while not submitted.done():
        assert time.monotonic() < deadline, "it was not stopped"
        time.sleep(0.05)


def test_without_the_library_the_mend_is_said(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "submitit", None)
    with pytest.raises(UserError, match=r'not installed: pip install "vertebra\[slurm\]"'):
        cluster(tmp_path, "local")


@needs_submitit
@pytest.mark.skipif(shutil.which("srun") is not None, reason="there is a SLURM here")
def test_without_a_cluster_that_is_said(tmp_path):
    with pytest.raises(UserError, match="there is no SLURM here"):
        cluster(tmp_path, "slurm")


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
    with pytest.raises(UserError, match=r"--slurm time=4h: in whole minutes, such as time=240"):
        slurm._parameters({"time": "4h"}, known)


@needs_submitit
def test_what_a_cluster_must_be_told(tmp_path):
    options = {"directory": tmp_path, "consoles": tmp_path, "gpus": 0, "cores": 1, "at_once": 1}
    with pytest.raises(UserError, match="cluster=cloud: it is slurm or local"):
        Cluster({"cluster": "cloud"}, **options)
    with pytest.raises(UserError, match=r"lacks time=MINUTES, such as time=240"):
        Cluster({"partition": "gpu"}, **options)
    with pytest.raises(UserError, match=r"--slurm time=4:00:00: in whole minutes, such as time=240"):
        Cluster({"cluster": "local", "time": "4:00:00"}, **options)
    with pytest.raises(UserError, match=r"--slurm partiton=gpu: cluster=local has no queue that could heed it"):
        Cluster({"cluster": "local", "partiton": "gpu"}, **options)
    (tmp_path / "jobs.json").write_text("{")
    with pytest.raises(UserError, match=r"jobs.json is not JSON; if none of its jobs is in the queue, remove it"):
        Cluster({"cluster": "local"}, **options)
