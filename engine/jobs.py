"""Several trainings on one machine at once: each in a process of its own, with its share of cores and devices.

A job is a command that goes on where it was when it is started again. A job that fails loses nobody else's work.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path
from types import FrameType
from typing import Any, TextIO

POLL_S = 0.2
REDRAW_S = 1.0
PLAIN_PERIOD_S = 60.0
TAIL_BYTES = 8192


@dataclass(frozen=True)
class Job:
    """One training: its `name`, the run directory that it fills, its command, and its length in steps.

    kind: jobs of one kind take equally long a step (what is left of those that wait is reckoned from it).
    """

    name: str
    output: Path
    command: tuple[str, ...]
    iterations: int
    kind: str = ""


@dataclass
class _Running:
    job: Job
    slot: int
    process: subprocess.Popen[bytes]
    console: Path


@dataclass
class Outcome:
    """How the jobs ended: exit codes of the failed ones by name, and the signal that stopped them all (0: none)."""

    failed: dict[str, int] = field(default_factory=dict)
    stopped_by: int = 0


def run_jobs(
    jobs: Sequence[Job],
    *,
    at_once: int,
    consoles: Path,
    environments: Sequence[Mapping[str, str]],
    done: Sequence[Job] = (),
    stream: TextIO | None = None,
) -> Outcome:
    """Runs all jobs, `at_once` at a time and in order, with a line of progress for each; returns how they ended.

    consoles: directory in which each job's output is kept, NAME.txt. environments: variables of each slot, added to
    this process's. done: finished jobs of the same study, shown and used for the estimate of the time left.
    SIGINT, SIGTERM and a closed terminal's SIGHUP are handed on to the jobs as SIGTERM, upon which they save their
    state; nothing more is started then.
    """
    consoles.mkdir(parents=True, exist_ok=True)
    board = Board([*done, *jobs], at_once, stream or sys.stdout, {job.name: "finished" for job in done})
    waiting, outcome = list(jobs), Outcome()
    running: list[_Running] = []
    with _Forwarding() as signals:
        while running or (waiting and not signals.received):
            for one in [one for one in running if one.process.poll() is not None]:
                running.remove(one)
                signals.forget(one.process)
                code = one.process.returncode
                stopped = "stopped" if signals.received else f"ended with {code}"
                board.states[one.job.name] = "finished" if code == 0 else stopped
                if code and not signals.received:
                    outcome.failed[one.job.name] = code
                    board.say(f"{one.job.name} ended with {code}: {last_words(one.console)} ({one.console})")
            while waiting and len(running) < at_once and not signals.received:
                slot = min(set(range(at_once)) - {one.slot for one in running})
                running.append(_start(waiting.pop(0), slot, environments[slot % len(environments)], consoles))
                signals.add(running[-1].process)
                board.states[running[-1].job.name] = "running"
            board.show()
            if running:
                time.sleep(POLL_S)
    board.show(last=True)
    outcome.stopped_by = signals.received
    return outcome


def _start(job: Job, slot: int, environment: Mapping[str, str], consoles: Path) -> _Running:
    console = consoles / f"{job.name}.txt"
    with open(console, "ab") as output:
        process = subprocess.Popen(
            job.command,
            stdout=output,
            stderr=subprocess.STDOUT,
            stdin=subprocess.DEVNULL,
            env={**os.environ, **environment},
            start_new_session=True,  # Ctrl-C reaches this process alone, which hands it on once
        )
    return _Running(job, slot, process, console)


def last_words(console: Path) -> str:
    """The last line that a job said, which after a failure is the sentence that explains it."""
    lines = [line for line in _tail(console).splitlines() if line.strip()]
    return lines[-1].strip() if lines else "it said nothing"


class _Forwarding:
    """While entered, SIGINT, SIGTERM and SIGHUP (unless nohup ignores it) go to the jobs as SIGTERM, each time."""

    def __init__(self) -> None:
        self.received = 0
        self._processes: list[subprocess.Popen[bytes]] = []
        self._previous: dict[int, Any] = {}

    def __enter__(self) -> _Forwarding:
        caught = [signal.SIGINT, signal.SIGTERM]
        if signal.getsignal(signal.SIGHUP) is not signal.SIG_IGN:
            caught.append(signal.SIGHUP)
        self._previous = {number: signal.signal(number, self._hand_on) for number in caught}
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._previous.items():
            signal.signal(number, handler)
        for process in self._processes:  # only after an error of ours: no job outlives its study
            process.terminate()
        for process in self._processes:
            process.wait()

    def add(self, process: subprocess.Popen[bytes]) -> None:
        self._processes.append(process)
        if self.received:  # it came while the job was being started
            process.terminate()

    def forget(self, process: subprocess.Popen[bytes]) -> None:
        self._processes.remove(process)

    def _hand_on(self, number: int, frame: FrameType | None) -> None:
        self.received = self.received or number
        for process in self._processes:
            process.terminate()


class Board:
    """One line a job: on a terminal drawn again in place, elsewhere written once a minute for those that run."""

    def __init__(self, jobs: Sequence[Job], at_once: int, stream: TextIO, states: dict[str, str]):
        self.states = {job.name: states.get(job.name, "waiting") for job in jobs}
        self._jobs, self._at_once, self._stream = jobs, at_once, stream
        self._live = stream.isatty()
        self._lines_drawn = 0
        self._shown_at = 0.0

    def say(self, sentence: str) -> None:
        """A line that stays."""
        self._erase()
        print(sentence, file=self._stream, flush=True)

    def show(self, *, last: bool = False) -> None:
        """Draws the board, if it is time to."""
        now = time.monotonic()
        if not last and now - self._shown_at < (REDRAW_S if self._live else PLAIN_PERIOD_S):
            return
        self._shown_at = now
        lines = self.lines(every=self._live or last)
        if self._live:  # a line that wrapped would not be erased
            lines = [line[: shutil.get_terminal_size().columns - 1] for line in lines]
        self._erase()
        print("\n".join(lines), file=self._stream, flush=True)
        self._lines_drawn = len(lines)

    def lines(self, *, every: bool) -> list[str]:
        """The lines of all jobs, or of those that run, and the sum."""
        seen = {job.name: latest(job.output) for job in self._jobs}
        pace_s = paces([(job.kind, seen[job.name]) for job in self._jobs])
        width = max(len(job.name) for job in self._jobs) if self._jobs else 0
        lines, left_s, known = [], 0.0, True
        for job in self._jobs:
            state, line = self.states[job.name], seen[job.name]
            remaining = job.iterations - line.get("iteration", 0)
            step_s = line.get("time_s") or pace_s.get(job.kind)
            if state in ("running", "waiting") and remaining > 0:
                known = known and step_s is not None
                left_s += remaining * (step_s or 0.0)
            if every or state == "running":
                eta_s = remaining * step_s if state == "running" and step_s else None
                lines.append(f"{job.name:<{width}}  {_told(state, line, job.iterations, eta_s)}")
        counts = {word: sum(state == word for state in self.states.values()) for word in ("running", "waiting")}
        finished = sum(state == "finished" for state in self.states.values())
        total = f"{finished} of {len(self._jobs)} finished, {counts['running']} running, {counts['waiting']} waiting"
        if left_s:
            share = max(1, min(self._at_once, counts["running"] + counts["waiting"]))
            total += f"  eta: {'' if known else 'more than '}{_clock(left_s / share)}"
        return [*lines, total]

    def _erase(self) -> None:
        if self._live and self._lines_drawn:
            print(f"\x1b[{self._lines_drawn}A\x1b[J", end="", file=self._stream)
        self._lines_drawn = 0


def _told(state: str, line: Mapping[str, Any], iterations: int, eta_s: float | None) -> str:
    if state == "waiting":
        return f"waiting at iter {line['iteration']}/{iterations}" if line else "waiting"
    if state != "running":
        return state
    parts = [f"iter: {line.get('iteration', 0)}/{iterations}"]
    if eta_s is not None:
        parts.insert(0, f"eta: {_clock(eta_s)}")
    parts += [f"{name}: {line[name]:.3g}" for name in ("loss", "top1") if line.get(name) is not None]
    if line.get("time_s"):
        parts.append(f"time: {line['time_s']:.3f} s")
    return "  ".join(parts)


def _clock(seconds: float) -> str:
    return str(timedelta(seconds=round(seconds)))


def paces(seen: Sequence[tuple[str, Mapping[str, Any]]]) -> dict[str, float]:
    """Seconds a step of each kind of job: the mean over those that have run."""
    times: dict[str, list[float]] = {}
    for kind, line in seen:
        if line.get("time_s"):
            times.setdefault(kind, []).append(line["time_s"])
    return {kind: sum(values) / len(values) for kind, values in times.items()}


def latest(output: Path) -> dict[str, Any]:
    """The last training line of a run's metrics.jsonl, empty before there is one."""
    for text in reversed(_tail(output / "metrics.jsonl").splitlines()):
        try:
            line = json.loads(text)
        except json.JSONDecodeError:
            continue  # being written, or cut at the tail's beginning
        if isinstance(line, dict) and "time_s" in line:
            return line
    return {}


def _tail(path: Path) -> str:
    try:
        with open(path, "rb") as file:
            file.seek(0, os.SEEK_END)
            file.seek(max(0, file.tell() - TAIL_BYTES))
            return file.read().decode("utf-8", errors="replace")
    except OSError:
        return ""


def shares(at_once: int, processes: int, *, cores: int, devices: Sequence[str]) -> list[dict[str, str]]:
    """The environment of each slot: its share of the cores, and its devices in turn.

    processes: of each job. devices: names for CUDA_VISIBLE_DEVICES, none on a machine without GPUs. A number of
    threads that the user has set stays.
    """
    threads = max(1, cores // (at_once * processes))
    environments = []
    for slot in range(at_once):
        environment = {} if "OMP_NUM_THREADS" in os.environ else {"OMP_NUM_THREADS": str(threads)}
        if devices:
            mine = [devices[(slot * processes + index) % len(devices)] for index in range(processes)]
            environment["CUDA_VISIBLE_DEVICES"] = ",".join(dict.fromkeys(mine))
        environments.append(environment)
    return environments
