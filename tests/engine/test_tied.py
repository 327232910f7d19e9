"""Nothing that a process started outlives it, when it is tied to it: not even where that was killed outright."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import pytest

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="the kernel's death signal is Linux's")

# Writes its own id and that of a child which it forks as a loader's worker is, and goes on for a minute.
LINGERS = """
import os, sys, time
from pathlib import Path
from vertebra.engine.jobs.tied import tie_forks
tie_forks()
worker = os.fork()
if worker:
    place = Path(sys.argv[1]) / os.environ.get("RANK", "alone")
    place.with_suffix(".writing").write_text(f"{os.getpid()} {worker}")
    place.with_suffix(".writing").rename(place)
time.sleep(60)
"""
LAUNCHES = """
import os, sys
if "RANK" not in os.environ:
    from vertebra.engine.distributed import relaunch
    sys.exit(relaunch(2, device="cpu"))
"""


def start(code: str, *arguments: object) -> subprocess.Popen:
    return subprocess.Popen([sys.executable, "-c", textwrap.dedent(code), *map(str, arguments)])


def wait_for(condition, seconds: float = 60) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "it did not happen"
        time.sleep(0.05)


def is_alive(process: int) -> bool:
    try:
        state = Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0]
    except OSError:
        return False
    return state not in "ZX"  # a dead one may wait for somebody to ask for its status


def killed_with_its_starter(starter: subprocess.Popen, tmp_path: Path, names: tuple[str, ...]) -> None:
    wait_for(lambda: all((tmp_path / name).exists() for name in names))
    children = [int(word) for name in names for word in (tmp_path / name).read_text().split()]
    assert all(map(is_alive, children)) and starter.poll() is None
    starter.send_signal(signal.SIGKILL)
    starter.wait()
    wait_for(lambda: not any(map(is_alive, children)), seconds=20)


def test_jobs_and_their_loaders_die_with_a_study_that_is_killed(tmp_path):
    study = """
        import sys
        from pathlib import Path
        from vertebra.engine.jobs.jobs import Job, run_at
        from vertebra.engine.jobs.local import Local
        command = (sys.executable, "-c", sys.argv[2], sys.argv[1])
        run_at(Local(1, Path(sys.argv[1]) / "out", [{}]), [Job("a", Path("x"), command, 1)])
    """
    killed_with_its_starter(start(study, tmp_path, LINGERS), tmp_path, ("alone",))


def test_processes_of_a_launcher_and_their_loaders_die_with_it(tmp_path):
    program = tmp_path / "program.py"
    program.write_text(LAUNCHES + LINGERS)
    launcher = subprocess.Popen([sys.executable, str(program), str(tmp_path)])
    killed_with_its_starter(launcher, tmp_path, ("0", "1"))


def test_what_a_training_forks_is_tied_to_it_and_a_training_to_torchrun(monkeypatch):
    from vertebra.engine import distributed

    tied = []
    monkeypatch.setattr(distributed, "tie_forks", lambda: tied.append("forks"))
    monkeypatch.setattr(distributed, "die_with", tied.append)
    for with_torchrun in ([], [os.getppid()]):
        with distributed.started("cpu"):
            assert tied == ["forks", *with_torchrun]
        tied.clear()
        monkeypatch.setenv("TORCHELASTIC_RUN_ID", "none")


def test_a_tied_command_is_the_command_itself(tmp_path):
    from vertebra.engine.jobs.tied import tied

    done = subprocess.run(tied([sys.executable, "-c", "import os; print(os.getpid()); exit(7)"]), capture_output=True)
    assert done.returncode == 7 and int(done.stdout) != os.getpid()
    missing = subprocess.run(tied([str(tmp_path / "nothing")]), capture_output=True, text=True)
    assert missing.returncode == 1 and missing.stderr == f"error: {tmp_path / 'nothing'}: No such file or directory\n"


def test_a_tied_command_can_be_deaf_to_a_signal():
    from vertebra.engine.jobs.tied import tied

    deaf = "import os, signal; os.kill(os.getpid(), signal.SIGUSR2); print('still here')"
    for ignoring, code in (([signal.SIGUSR2], 0), ([], -signal.SIGUSR2)):
        assert subprocess.run(tied([sys.executable, "-c", deaf], ignoring=ignoring)).returncode == code


def test_what_is_tied_to_a_process_that_ended_before_ends_at_once():
    from vertebra.engine.jobs.tied import tied

    python, options, shim, _, ignored, *command = tied([sys.executable, "-c", "print('ran')"])
    ended = subprocess.Popen([sys.executable, "-c", ""])
    ended.wait()
    done = subprocess.run([python, options, shim, str(ended.pid), ignored, *command], capture_output=True)
    assert done.returncode == -signal.SIGKILL and not done.stdout
