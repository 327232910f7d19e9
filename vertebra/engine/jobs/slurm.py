"""Jobs in a SLURM cluster's queue, through submitit.

They outlive the process that watches them, and carry names of their own in the queue, so that a watcher that was killed
finds its jobs again and doubles none. A job at its time limit, or preempted, saves its state, goes back into the queue
and continues.
"""

from __future__ import annotations

import difflib
import hashlib
import os
import subprocess
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from vertebra.engine.jobs.jobs import End, Executor, Job
from vertebra.engine.jobs.slurm_task import Task, submitit
from vertebra.ground.errors import UserError

QUEUE_PERIOD_S = 5.0  # between two calls of squeue
GRACE_S = 30.0  # until a job that left the queue without a result counts as lost: files take their time over a network
REQUEUES = 1000  # submitit's bound on how often a job is put back at its time limit


class Cluster(Executor):
    """Hands all jobs to the queue at once, each behind those that it needs.

    options: `--slurm`'s KEY=VALUE, submitit's parameters or any other option of sbatch. directory: where submitit keeps
    its files. gpus, cores: of each job, unless the options say other ones.
    """

    outlives = True
    queues_ahead = True

    def __init__(self, options: Mapping[str, str], directory: Path, consoles: Path, *, gpus: int, cores: int):
        super().__init__(consoles)
        directory.mkdir(parents=True, exist_ok=True)
        self._directory = directory.resolve()
        self._suffix = hashlib.sha256(str(self._directory).encode()).hexdigest()[:8]
        self._queue = _Queue()
        self._ids: dict[str, str] = {}  # of the jobs that were submitted or found here
        self._cancelled: set[str] = set()
        self._gone_since: dict[str, float] = {}
        library = submitit()
        try:
            self._slurm = library.SlurmExecutor(self._directory, max_num_timeout=REQUEUES)
        except RuntimeError:
            raise UserError(
                "there is no SLURM here (no srun in PATH): run this on the cluster's login node, or say cluster=local"
            ) from None
        parameters: dict[str, Any] = {"cpus_per_task": cores}
        if gpus and not any(key.startswith(("gpus", "gres")) for key in options):
            parameters["gpus_per_node"] = gpus
        parameters |= _parameters(options, set(self._slurm._valid_parameters()))
        self._slurm.update_parameters(**parameters)

    def submit(self, job: Job, command: Sequence[str]) -> None:
        name = f"{job.name}.{self._suffix}"
        found = self._find(name)
        if found is None:
            needed = [self._ids[one] for one in job.after if one in self._ids]
            dependency = f"afterok:{':'.join(needed)}" if needed else None
            self._slurm.update_parameters(job_name=name, dependency=dependency)
            try:
                found = str(self._slurm.submit(Task(command, self.console(job.name))).job_id)
            except Exception as error:  # sbatch's own words, through an error of submitit's
                raise UserError(f"{job.name} could not be handed to the queue: {error}") from error
            self._queue.add(found, name)
        self._ids[job.name] = found

    def poll(self) -> dict[str, End]:
        ends, queue = {}, self._queue.jobs()
        for name, job_id in self._ids.items():
            job = self._job(job_id)
            if job_id in queue:  # what result there is may be that of a try before it was put back into the queue
                self._gone_since.pop(name, None)
            elif job.paths.result_pickle.exists():
                ends[name] = End(0 if job.exception() is None else 1)
            elif name in self._cancelled:
                ends[name] = End(1, "it was taken out of the queue")
            elif time.monotonic() - self._gone_since.setdefault(name, time.monotonic()) > GRACE_S:
                ends[name] = End(1, "it left the queue without a result; sacct says more")
        for name in ends:
            del self._ids[name]
        return ends

    def state(self, name: str) -> str:
        _, state = self._queue.jobs().get(self._ids.get(name, ""), ("", "PENDING"))
        return "running" if state not in ("PENDING", "CONFIGURING", "REQUEUED") else "queued"

    def cancel(self, name: str | None = None) -> None:
        for one in [*self._ids] if name is None else [name]:
            self._cancelled.add(one)
            _scancel(self._ids[one])

    def _job(self, job_id: str) -> Any:
        return submitit().SlurmJob(self._directory, job_id)

    def _find(self, name: str) -> str | None:
        """Return the id of a job of that name which an earlier watcher handed in, and that has not ended."""
        for job_id in [one for one, (known, _) in self._queue.jobs().items() if known == name]:
            if self._job(job_id).paths.submitted_pickle.exists():
                return job_id
            _scancel(job_id)  # killed before it had its task
        return None


class _Queue:
    """What squeue has of this user's jobs, asked every few seconds: id -> name and state."""

    def __init__(self) -> None:
        self._jobs: dict[str, tuple[str, str]] = {}
        self._asked_at = float("-inf")

    def add(self, job_id: str, name: str) -> None:
        """Count a job that was just handed in, until squeue is asked again."""
        self._jobs[job_id] = (name, "PENDING")

    def jobs(self) -> dict[str, tuple[str, str]]:
        """Return the jobs that wait or run. Where the controller does not answer, its last answer."""
        if time.monotonic() - self._asked_at >= QUEUE_PERIOD_S:
            command = ["squeue", "--noheader", "--user", str(os.getuid()), "--format", "%i|%T|%j"]
            try:
                output = subprocess.run(command, capture_output=True, text=True, check=True, timeout=60).stdout
            except (OSError, subprocess.SubprocessError):
                pass
            else:
                rows = [line.strip().split("|", 2) for line in output.splitlines() if line.count("|") >= 2]
                self._jobs = {job_id: (name, state) for job_id, state, name in rows}
            self._asked_at = time.monotonic()
        return self._jobs


def _scancel(job_id: str) -> None:
    subprocess.run(["scancel", job_id], check=False, capture_output=True)


def _parameters(words: Mapping[str, str], known: set[str]) -> dict[str, Any]:
    """Return `--slurm`'s options as submitit's parameters; what it does not know goes to sbatch as it stands.

    Raises UserError for what looks like a mistyped parameter.
    """
    parameters: dict[str, Any] = {}
    others: dict[str, str] = {}
    for key, text in words.items():
        value = int(text) if text.isdigit() else text
        if key in known:
            parameters[key] = value
        elif near := difflib.get_close_matches(key, known, n=1, cutoff=0.8):
            raise UserError(f"--slurm {key}={text}: did you mean {near[0]}?")
        else:
            others[key.replace("_", "-")] = text
    return {**parameters, "additional_parameters": {"kill-on-invalid-dep": "yes", **others}}
