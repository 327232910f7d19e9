"""The progress of several jobs while they run: a line each, and when all will be done."""

from __future__ import annotations

import json
import os
import shutil
import time
from collections.abc import Mapping, Sequence
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any, TextIO

if TYPE_CHECKING:
    from vertebra.engine.jobs.jobs import Job

REDRAW_S = 1.0
PLAIN_PERIOD_S = 60.0
TAIL_BYTES = 8192
TO_COME = ("running", "queued", "waiting")  # the states of jobs that have not ended


class Board:
    """One line a job: on a terminal drawn again in place, elsewhere written once a minute for those that run."""

    def __init__(self, jobs: Sequence[Job], at_once: int, stream: TextIO, states: dict[str, str]):
        self.states = {job.name: states.get(job.name, "waiting") for job in jobs}
        self._jobs, self._at_once, self._stream = jobs, at_once, stream
        self._live = stream.isatty()
        self._lines_drawn = 0
        self._shown_at = 0.0

    def write(self, sentence: str) -> None:
        """Write a line that stays."""
        self._erase()
        print(sentence, file=self._stream, flush=True)

    def show(self, *, last: bool = False) -> None:
        """Draw the board, if it is time to."""
        now = time.monotonic()
        if not last and now - self._shown_at < (REDRAW_S if self._live else PLAIN_PERIOD_S):
            return
        self._shown_at = now
        lines = self._fitting() if self._live and not last else self.lines(every=last)
        self._erase()
        print("\n".join(lines), file=self._stream, flush=True)
        self._lines_drawn = len(lines)

    def _fitting(self) -> list[str]:
        """Return the lines that fit the terminal: all jobs, else those that run, else as many of them; and the sum.

        What wrapped, or left the screen at its top, would not be erased.
        """
        size = shutil.get_terminal_size()
        room = max(1, size.lines - 1)  # the cursor stands below
        lines = self.lines(every=True)
        if len(lines) > room:
            lines = self.lines(every=False)
        if len(lines) > room:
            left_out = len(lines) - room + 1
            lines = [*lines[: max(0, room - 2)], f"... {left_out} more run", lines[-1]][-room:]
        return [line[: size.columns - 1] for line in lines]

    def lines(self, *, every: bool) -> list[str]:
        """Return the lines of all jobs, or of those that run, and the sum."""
        seen = {job.name: latest(job.output) for job in self._jobs}
        pace_s = paces([(job.kind, seen[job.name]) for job in self._jobs])
        width = max(len(job.name) for job in self._jobs) if self._jobs else 0
        lines, left_s, known = [], 0.0, True
        for job in self._jobs:
            state, line = self.states[job.name], seen[job.name]
            remaining = job.iterations - line.get("iteration", 0)
            step_s = line.get("time_s") or pace_s.get(job.kind)
            if state in TO_COME and remaining > 0:
                known = known and step_s is not None
                left_s += remaining * (step_s or 0.0)
            if every or state == "running":
                eta_s = remaining * step_s if state == "running" and step_s else None
                lines.append(f"{job.name:<{width}}  {_progress(state, line, job.iterations, eta_s)}")
        counts = {word: sum(state == word for state in self.states.values()) for word in ("finished", *TO_COME)}
        total = f"{counts['finished']} of {len(self._jobs)} finished, {counts['running']} running, "
        total += f"{counts['queued']} queued, " * bool(counts["queued"]) + f"{counts['waiting']} waiting"
        if left_s:
            share = max(1, min(self._at_once, sum(counts[word] for word in TO_COME)))
            total += f"  eta: {'' if known else 'more than '}{clock(left_s / share)}"
        return [*lines, total]

    def _erase(self) -> None:
        if self._live and self._lines_drawn:
            print(f"\x1b[{self._lines_drawn}A\x1b[J", end="", file=self._stream)
        self._lines_drawn = 0


def _progress(state: str, line: Mapping[str, Any], iterations: int, eta_s: float | None) -> str:
    if state in ("waiting", "queued"):
        return f"{state} at iter {line['iteration']}/{iterations}" if line else state
    if state != "running":
        return state
    parts = [f"iter: {line.get('iteration', 0)}/{iterations}"]
    if eta_s is not None:
        parts.insert(0, f"eta: {clock(eta_s)}")
    parts += [f"{name}: {line[name]:.3g}" for name in ("loss", "top1") if line.get(name) is not None]
    if line.get("time_s"):
        parts.append(f"time: {line['time_s']:.3f} s")
    return "  ".join(parts)


def clock(seconds: float) -> str:
    """0:41:49"""
    return str(timedelta(seconds=round(seconds)))


def paces(seen: Sequence[tuple[str, Mapping[str, Any]]]) -> dict[str, float]:
    """Return the seconds a step of each kind of job: the mean over those that have run."""
    times: dict[str, list[float]] = {}
    for kind, line in seen:
        if line.get("time_s"):
            times.setdefault(kind, []).append(line["time_s"])
    return {kind: sum(values) / len(values) for kind, values in times.items()}


def latest(output: Path) -> dict[str, Any]:
    """Return the last training line of a run's metrics.jsonl, empty before there is one."""
    for text in reversed(tail(output / "metrics.jsonl").splitlines()):
        try:
            line = json.loads(text)
        except json.JSONDecodeError:
            continue  # being written, or cut at the tail's beginning
        if isinstance(line, dict) and "time_s" in line and isinstance(line.get("iteration"), int):
            return line
    return {}


def tail(path: Path) -> str:
    """Return the last few kilobytes of a text file; empty where it cannot be read."""
    try:
        with open(path, "rb") as file:
            file.seek(0, os.SEEK_END)
            file.seek(max(0, file.tell() - TAIL_BYTES))
            return file.read().decode("utf-8", errors="replace")
    except OSError:
        return ""
