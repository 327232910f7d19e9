"""Several jobs at once: all run, in order, with their share; a failure or a signal loses nobody else's work."""

from __future__ import annotations

import io
import json
import os
import signal
import subprocess
import sys
import textwrap
import time
from dataclasses import replace
from pathlib import Path

import pytest

from vertebra.engine.jobs.board import Board, latest, paces
from vertebra.engine.jobs.jobs import End, Job, Outcome, run_at
from vertebra.engine.jobs.local import Local, shares

ENVIRONMENT = {"MARK": "seen"}


def job(tmp_path: Path, name: str, code: str, iterations: int = 10) -> Job:
    return Job(name, tmp_path / name, (sys.executable, "-c", textwrap.dedent(code)), iterations, kind=name[0])


def run_jobs(jobs, *, at_once: int, consoles: Path, environments, done=(), stream=None) -> Outcome:
    return run_at(Local(at_once, consoles, environments), jobs, done=done, stream=stream)


def test_a_job_that_fails_leaves_the_others_alone_and_says_why(tmp_path):
    jobs = [
        job(tmp_path, "a", "import sys; print('error: no such image'); sys.exit(3)"),
        job(
            tmp_path,
            "b",
            f"import os; open({str(tmp_path / 'b.txt')!r}, 'w').write(os.environ['MARK'])",
        ),
    ]
    stream = io.StringIO()
    outcome = run_jobs(jobs, at_once=1, consoles=tmp_path / "out", environments=[ENVIRONMENT], stream=stream)
    assert outcome.failed == {"a": 3}
    assert outcome.stopped_by == 0
    assert (tmp_path / "b.txt").read_text() == "seen"
    assert "a ended with 3: error: no such image" in stream.getvalue()
    assert stream.getvalue().rstrip().endswith("1 of 2 finished, 0 running, 0 waiting")


def test_no_more_run_at_once_than_asked_and_in_order(tmp_path):
    marks = tmp_path / "marks"

    def code(index: int) -> str:
        """The first two wait for each other, however long a loaded machine takes to start them."""
        return f"""
        import time
        with open({str(marks)!r}, "a") as file: file.write("+{index}\\n")
        deadline = time.monotonic() + 60
        while {index} < 2 and open({str(marks)!r}).read().count("+") < 2 and time.monotonic() < deadline:
            time.sleep(0.02)
        with open({str(marks)!r}, "a") as file: file.write("-{index}\\n")
        """

    jobs = [job(tmp_path, f"job{index}", code(index)) for index in range(4)]
    run_jobs(jobs, at_once=2, consoles=tmp_path / "out", environments=[{}, {}], stream=io.StringIO())
    running = most = 0
    for mark in marks.read_text().split():
        running += 1 if mark.startswith("+") else -1
        most = max(most, running)
    assert (running, most) == (0, 2)
    begun = [mark for mark in marks.read_text().split() if mark.startswith("+")]
    assert {*begun[:2]} == {"+0", "+1"} and {*begun[2:]} == {"+2", "+3"}


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_a_signal_reaches_the_jobs_which_end_their_own_way(tmp_path, number):
    inner = f"""
import pathlib, signal, sys, time
def stop(*_):
    pathlib.Path({str(tmp_path)!r}, "saved").touch()
    sys.exit(143)
signal.signal(signal.SIGTERM, stop)
pathlib.Path({str(tmp_path)!r}, "ready").touch()
time.sleep(60)
"""
    outer = f"""
import signal, sys
from pathlib import Path
signal.signal(signal.SIGHUP, signal.SIG_DFL)  # which nohup would have ignored
from vertebra.engine.jobs.jobs import Job
from vertebra.engine.jobs.jobs import run_at
from vertebra.engine.jobs.local import Local
jobs = [Job(n, Path("x"), (sys.executable, "-c", {inner!r}), 1) for n in "ab"]
outcome = run_at(Local(1, Path({str(tmp_path / "out")!r}), [{{}}]), jobs)
assert outcome.failed == {{}}, outcome
sys.exit(128 + outcome.stopped_by)
"""
    process = subprocess.Popen([sys.executable, "-c", outer], stdout=subprocess.PIPE, text=True)
    deadline = time.monotonic() + 60
    while not (tmp_path / "ready").exists() and time.monotonic() < deadline:
        time.sleep(0.02)
    process.send_signal(number)
    out, _ = process.communicate(timeout=60)
    assert process.returncode == 128 + number
    assert (tmp_path / "saved").exists()
    assert "0 of 2 finished, 0 running, 1 waiting" in out


def test_progress_is_read_from_the_runs_metrics(tmp_path):
    one = job(tmp_path, "a1", "")
    two = job(tmp_path, "a2", "")
    one.output.mkdir()
    lines = [{"iteration": 4, "loss": 2.0, "top1": 30.0, "time_s": 2.0}, {"iteration": 4, "top1": 20.0}]
    (one.output / "metrics.jsonl").write_text("\n".join(map(json.dumps, lines)) + '\n{"iterat')
    assert latest(one.output)["iteration"] == 4
    assert paces([("a", latest(one.output)), ("a", latest(two.output))]) == {"a": 2.0}
    board = Board([one, two], 2, io.StringIO(), {"a1": "running"})
    first, second, total = board.lines(every=True)
    assert first == "a1  eta: 0:00:12  iter: 4/10  loss: 2  top1: 30  time: 2.000 s"
    assert second == "a2  waiting"
    assert total == "0 of 2 finished, 1 running, 1 waiting  eta: 0:00:16"  # (6 + 10 steps) x 2 s / 2


def test_cores_and_devices_are_shared(monkeypatch):
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    assert shares(2, 1, cores=8, devices=[]) == [{"OMP_NUM_THREADS": "4"}] * 2
    assert [slot["CUDA_VISIBLE_DEVICES"] for slot in shares(3, 1, cores=8, devices=["4", "5"])] == ["4", "5", "4"]
    assert [slot["CUDA_VISIBLE_DEVICES"] for slot in shares(2, 2, cores=8, devices=list("0123"))] == [
        "0,1",
        "2,3",
    ]
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    assert shares(1, 1, cores=8, devices=[]) == [{}]
    assert os.environ["OMP_NUM_THREADS"] == "1"


def test_a_job_waits_for_what_it_needs_and_is_not_run_where_that_failed(tmp_path):
    writes = f"open({str(tmp_path / 'order')!r}, 'a').write"
    jobs = [
        replace(job(tmp_path, "second", f"{writes}('2')"), after=("first",)),
        replace(job(tmp_path, "lost", f"{writes}('x')"), after=("broken",)),
        replace(job(tmp_path, "lost_too", f"{writes}('x')"), after=("lost",)),
        replace(job(tmp_path, "third", f"{writes}('3')"), after=("done before",), after_end=("broken", "second")),
        job(tmp_path, "first", f"import time; time.sleep(0.3); {writes}('1')"),
        job(tmp_path, "broken", "exit(3)"),
    ]
    stream = io.StringIO()
    outcome = run_jobs(jobs, at_once=3, consoles=tmp_path / "out", environments=[{}], stream=stream)
    assert (tmp_path / "order").read_text() == "123"
    assert outcome.failed == {"broken": 3}
    assert outcome.not_run == {
        "lost": "it needs broken, which failed",
        "lost_too": "it needs lost, which was not run",
    }
    assert stream.getvalue().rstrip().endswith("3 of 6 finished, 0 running, 0 waiting")


def test_a_job_that_cannot_be_started_is_not_run_and_the_others_are(tmp_path):
    """Its console cannot be opened, as on a full disk."""
    (tmp_path / "out" / "a.txt").mkdir(parents=True)
    jobs = [
        job(tmp_path, "a", "pass"),
        replace(job(tmp_path, "lost", "pass"), after=("a",)),
        job(tmp_path, "b", f"open({str(tmp_path / 'b')!r}, 'w')"),
    ]
    outcome = run_jobs(jobs, at_once=1, consoles=tmp_path / "out", environments=[{}], stream=io.StringIO())
    assert outcome.failed == {} and (tmp_path / "b").exists()
    assert outcome.not_run == {
        "a": f"it could not be started: Is a directory ({tmp_path / 'out' / 'a.txt'})",
        "lost": "it needs a, which was not run",
    }


def test_two_jobs_of_one_name_are_refused(tmp_path):
    one = job(tmp_path, "a", f"open({str(tmp_path / 'ran')!r}, 'w')")
    for jobs, done in (([one, one], []), ([one], [one])):
        with pytest.raises(ValueError, match="two jobs are named a; give each a name of its own"):
            run_jobs(jobs, at_once=2, consoles=tmp_path / "out", environments=[{}], done=done, stream=io.StringIO())
    assert not (tmp_path / "ran").exists()


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.mark.parametrize(
    ("running", "expected"),
    [
        (0, ["0 of 30 finished, 0 running, 30 waiting"]),
        (2, ["a0   iter: 0/10", "a1   iter: 0/10", "0 of 30 finished, 2 running, 28 waiting"]),
        (9, ["a0   iter: 0/10", "a1   iter: 0/10", "... 7 more run", "0 of 30 finished, 9 running, 21 waiting"]),
    ],
)
def test_a_board_keeps_to_the_terminals_rows_so_that_it_can_be_drawn_again(tmp_path, monkeypatch, running, expected):
    monkeypatch.setenv("COLUMNS", "60")
    monkeypatch.setenv("LINES", "5")
    monkeypatch.setattr("vertebra.engine.jobs.board.REDRAW_S", -1.0)
    jobs = [job(tmp_path, f"a{index}", "") for index in range(30)]
    stream = Terminal()
    board = Board(jobs, 9, stream, {f"a{index}": "running" for index in range(running)})
    board.show()
    drawn = "\n".join(expected) + "\n"
    assert stream.getvalue() == drawn
    board.show()
    assert stream.getvalue() == f"{drawn}\x1b[{len(expected)}A\x1b[J{drawn}"
    board.show(last=True)
    assert stream.getvalue().count("\n") == 2 * len(expected) + 31, "in the end all are listed"


def test_a_command_may_be_known_only_when_the_job_starts(tmp_path):
    def found():
        return (sys.executable, "-c", f"open({str(tmp_path / 'b')!r}, 'w').write({(tmp_path / 'a').read_text()!r})")

    def undecided():
        raise ValueError("nothing was chosen")

    first = job(tmp_path, "first", f"open({str(tmp_path / 'a')!r}, 'w').write('seen')")
    jobs = [
        Job("second", tmp_path / "second", found, 1, after=("first",)),
        Job("third", tmp_path / "third", undecided, 1),
        first,
    ]
    outcome = run_jobs(jobs, at_once=1, consoles=tmp_path / "out", environments=[{}], stream=io.StringIO())
    assert (tmp_path / "b").read_text() == "seen"
    assert outcome.failed == {} and outcome.not_run == {"third": "nothing was chosen"}


def test_an_error_of_ours_ends_the_jobs_first(tmp_path):
    saves = f"""
        import pathlib, signal, sys, time
        signal.signal(signal.SIGTERM, lambda *_: (pathlib.Path({str(tmp_path)!r}, "saved").touch(), sys.exit(143)))
        pathlib.Path({str(tmp_path)!r}, "ready").touch()
        time.sleep(60)
    """

    def broken():
        while not (tmp_path / "ready").exists():
            time.sleep(0.02)
        raise KeyError("a fault of ours")

    jobs = [job(tmp_path, "a", saves), Job("b", tmp_path / "b", broken, 1)]
    with pytest.raises(KeyError, match="a fault of ours"):
        run_jobs(jobs, at_once=2, consoles=tmp_path / "out", environments=[{}], stream=io.StringIO())
    assert (tmp_path / "saved").exists()


def test_a_job_whose_node_is_lost_is_started_again_but_not_for_ever(tmp_path):
    class Lossy(Local):
        """Loses a once, and b always."""

        lost = 0

        def poll(self):
            ends = super().poll()
            lost = [name for name in ends if name == "b" or not self.lost]
            self.lost += "a" in lost
            return {name: End(None, "its node was lost") if name in lost else end for name, end in ends.items()}

    ran = f"open({str(tmp_path)!r} + '/' + sys.argv[1], 'a').write('+')"
    jobs = [
        replace(job(tmp_path, name, ""), command=(sys.executable, "-c", f"import sys; {ran}", name)) for name in "ab"
    ]
    stream = io.StringIO()
    outcome = run_at(Lossy(1, tmp_path / "out", [{}]), jobs, stream=stream)
    assert (tmp_path / "a").read_text() == "++" and (tmp_path / "b").read_text() == "++++"
    assert outcome.failed == {"b": 1} and outcome.reasons["b"].startswith("ended with 1: its node was lost (")
    assert "a: its node was lost; it is started again (1 of 3 times)" in stream.getvalue()
