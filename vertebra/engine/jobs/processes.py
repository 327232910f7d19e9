"""Jobs in processes of this machine, each with its share of cores and devices, none of which outlives this process."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TextIO

from vertebra.engine.jobs.jobs import Job, Outcome, run_at
from vertebra.engine.jobs.tied import tied


def run_jobs(
    jobs: Sequence[Job],
    *,
    at_once: int,
    consoles: Path,
    environments: Sequence[Mapping[str, str]],
    done: Sequence[Job] = (),
    stream: TextIO | None = None,
) -> Outcome:
    """Run all jobs in processes of this machine; see `run_at`.

    consoles: directory in which each job's output is kept, NAME.txt. environments: variables of each slot, added to
    this process's.
    """
    return run_at(Processes(at_once, consoles, environments), jobs, done=done, stream=stream)


@dataclass
class _Running:
    slot: int
    process: subprocess.Popen[bytes]


class Processes:
    """A place of `at_once` slots, each with an environment of its own; see `run_jobs`."""

    outlives = False
    queues_ahead = False

    def __init__(self, at_once: int, consoles: Path, environments: Sequence[Mapping[str, str]]):
        consoles.mkdir(parents=True, exist_ok=True)
        self.at_once = at_once
        self._consoles, self._environments = consoles, environments
        self._running: dict[str, _Running] = {}
        self._stopping = False

    def start(self, job: Job, command: Sequence[str]) -> None:
        slot = min(set(range(self.at_once)) - {one.slot for one in self._running.values()})
        with open(self.console(job.name), "ab") as output:
            process = subprocess.Popen(
                tied(command),
                stdout=output,
                stderr=subprocess.STDOUT,
                stdin=subprocess.DEVNULL,
                env={**os.environ, **self._environments[slot % len(self._environments)]},
                start_new_session=True,  # Ctrl-C reaches this process alone, which hands it on once
            )
        self._running[job.name] = _Running(slot, process)
        if self._stopping:  # the signal came while the job was being started
            process.terminate()

    def ended(self) -> dict[str, int]:
        codes = {name: one.process.poll() for name, one in self._running.items()}
        for name in [name for name, code in codes.items() if code is not None]:
            del self._running[name]
        return {name: code for name, code in codes.items() if code is not None}

    def state(self, name: str) -> str:
        return "running"

    def stop(self, name: str | None = None) -> None:
        self._stopping = self._stopping or name is None
        for one in list(self._running.values()) if name is None else [self._running[name]]:
            one.process.terminate()

    def console(self, name: str) -> Path:
        return self._consoles / f"{name}.txt"


def shares(at_once: int, processes: int, *, cores: int, devices: Sequence[str]) -> list[dict[str, str]]:
    """Return the environment of each slot: its share of the cores, and its devices in turn.

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
