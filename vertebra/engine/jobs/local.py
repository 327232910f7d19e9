"""Jobs in processes of this machine, each with its share of cores and devices, none of which outlives this process."""

from __future__ import annotations

import os
import signal
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path

from vertebra.engine.jobs.jobs import End, Executor, Job
from vertebra.engine.jobs.tied import tied


def launch(
    command: Sequence[str],
    console: Path,
    *,
    environment: Mapping[str, str] | None = None,
    directory: str | None = None,
    ignoring: Sequence[signal.Signals] = (),
) -> subprocess.Popen[bytes]:
    """Start the command, tied to this process, with its output added to `console`.

    environment: added to this process's. directory: where it works. ignoring: signals that it will not notice.
    """
    with open(console, "ab") as output:
        return subprocess.Popen(
            tied(command, ignoring=ignoring),
            stdout=output,
            stderr=subprocess.STDOUT,
            stdin=subprocess.DEVNULL,
            env={**os.environ, **(environment or {})},
            cwd=directory,
            start_new_session=True,  # Ctrl-C reaches this process alone, which hands it on once
        )


class Local(Executor):
    """`at_once` slots on this machine, each with variables of its own in `environments`."""

    def __init__(self, at_once: int, consoles: Path, environments: Sequence[Mapping[str, str]]):
        super().__init__(consoles, at_once)
        self._environments = environments
        self._running: dict[str, tuple[int, subprocess.Popen[bytes]]] = {}  # name -> slot and process

    def submit(self, job: Job, command: Sequence[str]) -> None:
        slot = min(set(range(self.at_once)) - {slot for slot, _ in self._running.values()})
        environment = self._environments[slot % len(self._environments)]
        self._running[job.name] = slot, launch(command, self.console(job.name), environment=environment)

    def poll(self) -> dict[str, End]:
        codes = {name: process.poll() for name, (_, process) in self._running.items()}
        ends = {name: End(code) for name, code in codes.items() if code is not None}
        for name in ends:
            del self._running[name]
        return ends

    def cancel(self, name: str | None = None) -> None:
        for one, (_, process) in self._running.items():
            if name in (None, one):
                process.terminate()


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
