"""Several trainings at once, in the processes of a machine (`jobs.processes`) or wherever else a `Place` runs them.

A job is a command that goes on where it was when it is started again. A job that fails loses nobody else's work, but
that of the jobs that need it.
"""

from __future__ import annotations

import signal
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from types import FrameType
from typing import Protocol, TextIO

from vertebra.engine.jobs.board import TO_COME, Board, tail

POLL_S = 0.2


@dataclass(frozen=True)
class Job:
    """One training: its `name`, the run directory that it fills, its command, and its length in steps.

    name: no other job of the study has it.
    command: or a function that gives it when the job is about to start, where it depends on what came before; the
    function raises ValueError where it cannot.
    kind: jobs of one kind take equally long a step (what is left of those that wait is estimated from it).
    after: names of jobs that must have finished; after_end: of jobs that must have ended, well or not.
    """

    name: str
    output: Path
    command: tuple[str, ...] | Callable[[], tuple[str, ...]]
    iterations: int
    kind: str = ""
    after: tuple[str, ...] = ()
    after_end: tuple[str, ...] = ()


@dataclass
class Outcome:
    """The end of all jobs: exit codes of the failed ones by name, and the signal that stopped them all (0: none).

    not_run: why jobs were not even started, by name.
    """

    failed: dict[str, int] = field(default_factory=dict)
    not_run: dict[str, str] = field(default_factory=dict)
    stopped_by: int = 0


class Place(Protocol):
    """A place that runs jobs. at_once: how many; outlives: they go on when the process that watches them is stopped.

    queues_ahead: a job may be handed in before those that it needs have finished.
    """

    at_once: int
    outlives: bool
    queues_ahead: bool

    def start(self, job: Job, command: Sequence[str]) -> None:
        """Start a job, or find one that runs there already.

        Raises OSError or ValueError where it cannot; then nothing of the job runs.
        """

    def ended(self) -> dict[str, int]:
        """Return names and exit codes of the jobs that ended since the last time."""

    def state(self, name: str) -> str:
        """Return whether a job that was started is running, or queued."""

    def stop(self, name: str | None = None) -> None:
        """Ask that job, or all, to end; a training saves its state first."""

    def console(self, name: str) -> Path:
        """Return the file of the job's output."""


def run_at(place: Place, jobs: Sequence[Job], *, done: Sequence[Job] = (), stream: TextIO | None = None) -> Outcome:
    """Run all jobs, as many at a time as the place takes and in order, with a line of progress for each; return how
    they ended.

    A job starts once those that it needs are done; where one of them failed, or it cannot be started, it is not run.
    done: finished jobs of the same study, shown and used for the estimate of the time left.
    SIGINT, SIGTERM and a closed terminal's SIGHUP are handed on to the jobs as SIGTERM, upon which they save their
    state (but at a place that outlives this process they are left alone); nothing more is started then.
    Raises ValueError for two jobs of one name: they would be taken for each other, and share a console.
    """
    study = _Study(place, jobs, done, stream or sys.stdout)
    with _caught_signals(lambda: None if place.outlives else place.stop()) as received:
        try:
            while study.has_work(stopped=bool(received)):
                study.collect(stopped=bool(received))
                study.skip_impossible()
                if not received:
                    study.start_ready()
                study.show()
                time.sleep(POLL_S if study.running else 0)
        except BaseException:  # only after a fault in this program: no job outlives its study
            study.stop_all()
            raise
    study.board.show(last=True)
    study.outcome.stopped_by = received[0] if received else 0
    return study.outcome


class _Study:
    """The jobs that wait and that run, and what has become of the others."""

    def __init__(self, place: Place, jobs: Sequence[Job], done: Sequence[Job], stream: TextIO):
        twice = [name for name, count in Counter(job.name for job in (*done, *jobs)).items() if count > 1]
        if twice:
            raise ValueError(f"two jobs are named {twice[0]}; give each a name of its own")
        self.place, self.outcome = place, Outcome()
        self.waiting: list[Job] = list(jobs)
        self.running: dict[str, Job] = {}
        self.board = Board([*done, *jobs], place.at_once, stream, {job.name: "finished" for job in done})
        self.states = self.board.states

    def has_work(self, *, stopped: bool) -> bool:
        if stopped and self.place.outlives:
            return False
        return bool(self.running) or (bool(self.waiting) and not stopped)

    def collect(self, *, stopped: bool) -> None:
        """Record the jobs that ended since the last time."""
        for name, code in self.place.ended().items():
            self.running.pop(name)
            if name in self.outcome.not_run:  # taken out of a queue
                continue
            self.states[name] = "finished" if code == 0 else "stopped" if stopped else f"ended with {code}"
            if code and not stopped:
                self.outcome.failed[name] = code
                console = self.place.console(name)
                self.board.write(f"{name} ended with {code}: {last_line(console)} ({console})")

    def skip_impossible(self) -> None:
        """Give up the jobs that need one that failed, or that was not run itself."""
        failed, not_run = self.outcome.failed, self.outcome.not_run
        for job in [*self.running.values(), *self.waiting]:
            lost = next((name for name in job.after if name in failed or name in not_run), None)
            if lost is not None and job.name not in not_run:
                self._skip(job, f"it needs {lost}, which {'failed' if lost in failed else 'was not run'}")

    def _skip(self, job: Job, reason: str) -> None:
        self.outcome.not_run[job.name], self.states[job.name] = reason, "not run"
        self.board.write(f"{job.name} is not run: {reason}")
        if job.name in self.running:
            self.place.stop(job.name)
        else:
            self.waiting.remove(job)

    def start_ready(self) -> None:
        """Start, in order, the jobs that have what they need, as far as there is room."""
        for job in [job for job in self.waiting if self._is_ready(job)]:
            if len(self.running) >= self.place.at_once:
                return
            try:
                self.place.start(job, job.command() if callable(job.command) else job.command)
            except (ValueError, OSError) as error:
                self._skip(job, _reason(error))
                continue
            self.waiting.remove(job)
            self.running[job.name] = job

    def _is_ready(self, job: Job) -> bool:
        """Tell whether all that the job needs has been done; jobs that are not of this study have."""
        ahead = self.place.queues_ahead and not callable(job.command)
        missing = [name for name in job.after if self.states.get(name, "finished") != "finished"]
        if any(self.states.get(name) in TO_COME for name in job.after_end):
            return False
        return all(ahead and name in self.running for name in missing)

    def show(self) -> None:
        known = [name for name in self.running if name not in self.outcome.not_run]
        self.states.update({name: self.place.state(name) for name in known})
        self.board.show()

    def stop_all(self) -> None:
        """Stop and wait for what runs on this machine."""
        if not self.place.outlives:
            self.place.stop()
            while self.running:
                for name in self.place.ended():
                    self.running.pop(name)
                time.sleep(POLL_S)


def _reason(error: ValueError | OSError) -> str:
    """Return the error's sentence; the system's own with the file and without their number."""
    if not isinstance(error, OSError) or not error.strerror:
        return str(error)
    return f"it could not be started: {error.strerror}" + (f" ({error.filename})" if error.filename else "")


def last_line(console: Path) -> str:
    """Return the last line of a job's output, which after a failure is the sentence that explains it."""
    lines = [line for line in tail(console).splitlines() if line.strip()]
    return lines[-1].strip() if lines else "it wrote nothing"


@contextmanager
def _caught_signals(hand_on: Callable[[], None]) -> Iterator[list[int]]:
    """While entered, SIGINT, SIGTERM and SIGHUP (unless nohup ignores it) are noted in the list, and handed on."""
    received: list[int] = []

    def note(number: int, frame: FrameType | None) -> None:
        received.append(number)
        hand_on()

    caught = [signal.SIGINT, signal.SIGTERM]
    if signal.getsignal(signal.SIGHUP) is not signal.SIG_IGN:
        caught.append(signal.SIGHUP)
    previous = {number: signal.signal(number, note) for number in caught}
    try:
        yield received
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)
