"""Several trainings at once, wherever an `Executor` runs them: this machine, a SLURM queue, a Ray cluster.

A job is a command that goes on where it was when it is started again. A job that fails loses nobody else's work, but
that of the jobs that need it; one whose node is lost is started again elsewhere.
"""

from __future__ import annotations

import signal
import sys
import time
from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from types import FrameType
from typing import TextIO

from vertebra.engine.jobs.board import TO_COME, Board, tail

POLL_S = 0.2
RETRIES = 3  # of a job whose node was lost
UNBOUNDED = 10**6  # jobs at a time, where a cluster decides


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


@dataclass(frozen=True)
class End:
    """How a job ended: its exit code, None where it was lost with its node.

    reason: a sentence; "" where the job's console ends with one.
    """

    code: int | None
    reason: str = ""


@dataclass
class Outcome:
    """The end of all jobs: exit codes of the failed ones by name, and the signal that stopped them all (0: none).

    reasons: a sentence on each that failed. not_run: why jobs were not even started, by name.
    """

    failed: dict[str, int] = field(default_factory=dict)
    reasons: dict[str, str] = field(default_factory=dict)
    not_run: dict[str, str] = field(default_factory=dict)
    stopped_by: int = 0


class Executor(ABC):
    """Runs jobs somewhere, each with a console in the directory `consoles`.

    at_once: how many; outlives: they go on when the process that watches them is stopped.
    queues_ahead: a job may be handed in before those that it needs have finished.
    """

    outlives = False
    queues_ahead = False

    def __init__(self, consoles: Path, at_once: int = UNBOUNDED):
        consoles.mkdir(parents=True, exist_ok=True)
        self.consoles, self.at_once = consoles.resolve(), at_once

    def console(self, name: str) -> Path:
        """Return the file of the job's output."""
        return self.consoles / f"{name}.txt"

    @abstractmethod
    def submit(self, job: Job, command: Sequence[str]) -> None:
        """Start a job, or find one that runs there already.

        Raises OSError or ValueError where it cannot; then nothing of the job runs.
        """

    @abstractmethod
    def poll(self) -> dict[str, End]:
        """Return the jobs that ended since the last time, by name."""

    @abstractmethod
    def cancel(self, name: str | None = None) -> None:
        """Ask that job, or all, to end; a training saves its state first. Their ends come from `poll`."""

    def state(self, name: str) -> str:
        """Return whether a job that was submitted is running, or queued."""
        return "running"


def run_at(
    executor: Executor, jobs: Sequence[Job], *, done: Sequence[Job] = (), stream: TextIO | None = None
) -> Outcome:
    """Run all jobs, as many at a time as the executor takes and in order, with a line of progress for each; return how
    they ended.

    A job starts once those that it needs are done; where one of them failed, or it cannot be started, it is not run.
    done: finished jobs of the same study, shown and used for the estimate of the time left.
    SIGINT, SIGTERM and a closed terminal's SIGHUP are handed on to the jobs as SIGTERM, upon which they save their
    state (but where they outlive this process they are left alone); nothing more is started then.
    Raises ValueError for two jobs of one name: they would be taken for each other, and share a console.
    """
    with _noted_signals() as signals:
        study = _Study(executor, jobs, done, stream or sys.stdout, signals)
        handed_on = 0
        try:
            while study.has_work():
                if len(signals) > handed_on and not executor.outlives:
                    executor.cancel()
                handed_on = len(signals)
                study.collect()
                study.skip_impossible()
                study.start_ready()
                study.show()
                time.sleep(POLL_S if study.running else 0)
        except BaseException:  # only after a fault in this program: no job outlives its study
            study.stop_all()
            raise
    study.board.show(last=True)
    study.outcome.stopped_by = signals[0] if signals else 0
    return study.outcome


class _Study:
    """The jobs that wait and that run, and what has become of the others; `signals` stop it."""

    def __init__(
        self, executor: Executor, jobs: Sequence[Job], done: Sequence[Job], stream: TextIO, signals: Sequence[int]
    ):
        twice = [name for name, count in Counter(job.name for job in (*done, *jobs)).items() if count > 1]
        if twice:
            raise ValueError(f"two jobs are named {twice[0]}; give each a name of its own")
        self.executor, self.outcome, self.signals = executor, Outcome(), signals
        self.waiting: list[Job] = list(jobs)
        self.running: dict[str, Job] = {}
        self.retries: Counter[str] = Counter()
        self.board = Board([*done, *jobs], executor.at_once, stream, {job.name: "finished" for job in done})
        self.states = self.board.states

    def has_work(self) -> bool:
        if self.signals and self.executor.outlives:
            return False
        return bool(self.running) or (bool(self.waiting) and not self.signals)

    def collect(self) -> None:
        """Record the jobs that ended since the last time; those that were lost wait again."""
        for name, end in self.executor.poll().items():
            job = self.running.pop(name)
            if name in self.outcome.not_run:  # taken out of a queue
                continue
            if self.signals and end.code != 0:
                self.states[name] = "stopped"
            elif end.code == 0:
                self.states[name] = "finished"
            elif end.code is None and self.retries[name] < RETRIES:
                self.retries[name] += 1
                self.board.write(f"{name}: {end.reason}; it is started again ({self.retries[name]} of {RETRIES} times)")
                self.states[name] = "waiting"
                self.waiting.insert(0, job)
            else:
                code = 1 if end.code is None else end.code
                console = self.executor.console(name)
                self.outcome.failed[name], self.states[name] = code, f"ended with {code}"
                self.outcome.reasons[name] = f"ended with {code}: {end.reason or last_line(console)} ({console})"
                self.board.write(f"{name} {self.outcome.reasons[name]}")

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
            self.executor.cancel(job.name)
        else:
            self.waiting.remove(job)

    def start_ready(self) -> None:
        """Start, in order, the jobs that have what they need, as far as there is room."""
        for job in [job for job in self.waiting if self._is_ready(job)]:
            if self.signals or len(self.running) >= self.executor.at_once:
                return
            try:
                self.executor.submit(job, job.command() if callable(job.command) else job.command)
            except OSError as error:
                where = f" ({error.filename})" if error.filename else ""
                self._skip(job, f"it could not be started: {error.strerror or error}{where}")
            except ValueError as error:
                self._skip(job, str(error))
            else:
                self.waiting.remove(job)
                self.running[job.name] = job

    def _is_ready(self, job: Job) -> bool:
        """Tell whether all that the job needs has been done; jobs that are not of this study have."""
        ahead = self.executor.queues_ahead and not callable(job.command)
        missing = [name for name in job.after if self.states.get(name, "finished") != "finished"]
        if any(self.states.get(name) in TO_COME for name in job.after_end):
            return False
        return all(ahead and name in self.running for name in missing)

    def show(self) -> None:
        known = [name for name in self.running if name not in self.outcome.not_run]
        self.states.update({name: self.executor.state(name) for name in known})
        self.board.show()

    def stop_all(self) -> None:
        """Stop and wait for what runs, where nothing is to outlive this process."""
        if not self.executor.outlives:
            self.executor.cancel()
            while self.running:
                for name in self.executor.poll():
                    self.running.pop(name)
                time.sleep(POLL_S)


def last_line(console: Path) -> str:
    """Return the last line of a job's output, which after a failure is the sentence that explains it."""
    lines = [line for line in tail(console).splitlines() if line.strip()]
    return lines[-1].strip() if lines else "it wrote nothing"


@contextmanager
def _noted_signals() -> Iterator[list[int]]:
    """While entered, SIGINT, SIGTERM and SIGHUP (unless nohup ignores it) are noted in the list."""
    received: list[int] = []

    def note(number: int, frame: FrameType | None) -> None:
        received.append(number)

    caught = [signal.SIGINT, signal.SIGTERM]
    if signal.getsignal(signal.SIGHUP) is not signal.SIG_IGN:
        caught.append(signal.SIGHUP)
    previous = {number: signal.signal(number, note) for number in caught}
    try:
        yield received
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)
