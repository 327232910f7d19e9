"""Jobs in a SLURM cluster's queue, through submitit; or, for trials without a queue, in its local executor.

They outlive the process that watches them. What was handed in is remembered in OUTPUT/slurm/jobs.json, and in the queue
under a name of its own, so that a watcher that was killed finds its jobs again and doubles none. A job at its time
limit, or preempted, saves its state, goes back into the queue and continues.
"""

from __future__ import annotations

import contextlib
import difflib
import hashlib
import json
import os
import signal
import subprocess
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from vertebra.engine.jobs.jobs import Job
from vertebra.engine.jobs.slurm_task import Task, submitit
from vertebra.ground.errors import UserError
from vertebra.ground.files import write_json

QUEUE_PERIOD_S = 5.0  # between two calls of squeue
GRACE_S = 30.0  # until a job that left the queue without a result counts as lost: files take their time over a network
LOCAL_GRACE_S = 1.0
REQUEUES = 1000  # submitit's bound on how often a job is put back at its time limit
MINUTES = "time"  # of --slurm; submitit's local executor calls it timeout_min
LOCAL_MINUTES = 7 * 24 * 60


class Cluster:
    """A place (`jobs.jobs.Place`) that hands all jobs to the queue at once, each behind those that it needs.

    options: `--slurm`'s KEY=VALUE, submitit's parameters or any other option of sbatch; cluster=local: its local
    executor, which has no queue, so that `at_once` jobs run at a time. directory: where submitit keeps its files.
    gpus, cores: of each job, unless the options say other ones.
    """

    outlives = True

    def __init__(
        self,
        options: Mapping[str, str],
        *,
        directory: Path,
        consoles: Path,
        gpus: int,
        cores: int,
        at_once: int,
    ):
        words = dict(options)
        self._is_local = words.pop("cluster", "slurm") == "local"
        if options.get("cluster") not in (None, "slurm", "local"):
            raise UserError(f"cluster={options['cluster']}: it is slurm or local")
        self.queues_ahead = not self._is_local
        self.at_once = at_once if self._is_local else 10**6
        for place in (directory, consoles):
            place.mkdir(parents=True, exist_ok=True)
        self._directory, self._consoles = directory.resolve(), consoles.resolve()
        self._records_file = self._directory / "jobs.json"
        self._records: dict[str, str] = self._read_records()
        self._suffix = hashlib.sha256(str(self._directory).encode()).hexdigest()[:8]
        self._executor = self._make_executor(words, gpus, cores)
        self._ids: dict[str, str] = {}  # of the jobs that were started or found here
        self._local_jobs: dict[str, Any] = {}
        self._stopped: set[str] = set()
        self._gone_since: dict[str, float] = {}
        self._queue: dict[str, tuple[str, str]] = {}  # id -> name and state
        self._asked_at = float("-inf")

    def _make_executor(self, words: dict[str, str], gpus: int, cores: int) -> Any:
        library = submitit()
        if self._is_local:
            executor = library.LocalExecutor(self._directory, max_num_timeout=REQUEUES)
            executor.update_parameters(timeout_min=_local_minutes(words), gpus_per_node=gpus)
            return executor
        if MINUTES not in words:
            raise UserError(
                f"--slurm lacks {MINUTES}=MINUTES, such as {MINUTES}=240: how long a job may run until it saves its "
                "state, goes back into the queue and continues"
            )
        try:
            executor = library.SlurmExecutor(self._directory, max_num_timeout=REQUEUES)
        except RuntimeError:
            raise UserError(
                "there is no SLURM here (no srun in PATH): run this on the cluster's login node, or say cluster=local"
            ) from None
        parameters: dict[str, Any] = {"cpus_per_task": cores}
        if gpus and not any(key.startswith(("gpus", "gres")) for key in words):
            parameters["gpus_per_node"] = gpus
        executor.update_parameters(**{**parameters, **_parameters(words, set(executor._valid_parameters()))})
        return executor

    def start(self, job: Job, command: Sequence[str]) -> None:
        found = self._find(job.name)
        if found is None:
            if not self._is_local:
                needed = [self._ids[name] for name in job.after if name in self._ids]
                dependency = f"afterok:{':'.join(needed)}" if needed else None
                self._executor.update_parameters(job_name=self._queue_name(job.name), dependency=dependency)
            try:
                submitted = self._executor.submit(Task(command, self.console(job.name)))
            except Exception as error:  # sbatch's own words, through an error of submitit's
                raise UserError(f"{job.name} could not be handed to the queue: {error}") from error
            found = str(submitted.job_id)
            self._queue[found] = (self._queue_name(job.name), "PENDING")  # until squeue is asked again
            if self._is_local:
                self._local_jobs[found] = submitted
        self._ids[job.name] = self._records[job.name] = found
        try:
            write_json(self._records_file, self._records)
        except OSError:  # a watcher after this one might not find it, and start it a second time
            self.stop(job.name)
            del self._ids[job.name], self._records[job.name]
            raise

    def ended(self) -> dict[str, int]:
        codes = {}
        alive = self._alive()
        for name, job_id in list(self._ids.items()):
            job = self._job(job_id)
            if job_id in alive:  # what result there is may be that of a try before it was put back into the queue
                self._gone_since.pop(name, None)
            elif job.paths.result_pickle.exists():
                codes[name] = 0 if job.exception() is None else 1
            elif name in self._stopped or self._gone_for_s(name) > (LOCAL_GRACE_S if self._is_local else GRACE_S):
                codes[name] = 1
        for name in codes:
            del self._ids[name]
        return codes

    def state(self, name: str) -> str:
        _, state = self._queue.get(self._ids.get(name, ""), ("", "PENDING"))
        return "running" if self._is_local or state not in ("PENDING", "CONFIGURING", "REQUEUED") else "queued"

    def stop(self, name: str | None = None) -> None:
        self._stopped.update(self._ids if name is None else [name])
        for job_id in list(self._ids.values()) if name is None else [self._ids[name]]:
            if self._is_local:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(int(job_id), signal.SIGTERM)
            else:
                subprocess.run(["scancel", job_id], check=False, capture_output=True)

    def console(self, name: str) -> Path:
        return self._consoles / f"{name}.txt"

    def _gone_for_s(self, name: str) -> float:
        now = time.monotonic()
        return now - self._gone_since.setdefault(name, now)

    def _queue_name(self, name: str) -> str:
        return f"{name}.{self._suffix}"

    def _job(self, job_id: str) -> Any:
        if self._is_local:
            return self._local_jobs.get(job_id) or submitit().LocalJob(self._directory, job_id)
        return submitit().SlurmJob(self._directory, job_id)

    def _find(self, name: str) -> str | None:
        """Return the id of a job of that name which an earlier watcher handed in, and that has not ended."""
        if self._is_local:
            job_id = self._records.get(name)
            is_there = job_id is not None and job_id in self._alive()
            return job_id if is_there and not self._job(str(job_id)).paths.result_pickle.exists() else None
        alive = self._alive()
        for job_id in [one for one in alive if self._queue[one][0] == self._queue_name(name)]:
            if self._job(job_id).paths.submitted_pickle.exists():
                return job_id
            subprocess.run(["scancel", job_id], check=False, capture_output=True)  # killed before it had its task
        return None

    def _alive(self) -> set[str]:
        """Ids of the jobs that wait or run."""
        if self._is_local:
            return {job_id for job_id in {*self._records.values(), *self._ids.values()} if self._runs_here(job_id)}
        if time.monotonic() - self._asked_at >= QUEUE_PERIOD_S:
            self._queue = _squeue(self._queue)
            self._asked_at = time.monotonic()
        return set(self._queue)

    def _runs_here(self, job_id: str) -> bool:
        if job_id in self._local_jobs:
            return not self._local_jobs[job_id].done()
        try:
            os.kill(int(job_id), 0)
            words = Path(f"/proc/{job_id}/cmdline").read_bytes()
        except ProcessLookupError:
            return False
        except OSError:  # no /proc: not Linux
            return True
        return b"submitit" in words  # else another process has got that id since

    def _read_records(self) -> dict[str, str]:
        try:
            return dict(json.loads(self._records_file.read_text(encoding="utf-8")))
        except FileNotFoundError:
            return {}
        except ValueError:
            hint = "if none of its jobs is in the queue, remove it"
            raise UserError(f"{self._records_file} is not JSON; {hint}") from None


def _local_minutes(words: Mapping[str, str]) -> int:
    """Return how long a job may run without a queue. Raises UserError for words that only a queue understands."""
    for key, text in words.items():
        if key != MINUTES:
            raise UserError(
                f"--slurm {key}={text}: cluster=local has no queue that could heed it; {MINUTES}=MINUTES alone may "
                "stand beside it"
            )
    text = words.get(MINUTES, str(LOCAL_MINUTES))
    if not text.isdecimal() or int(text) < 1:
        raise UserError(_whole_minutes(text))
    return int(text)


def _whole_minutes(text: object) -> str:
    return f"--slurm {MINUTES}={text}: in whole minutes, such as {MINUTES}=240"


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
    if not isinstance(parameters.get(MINUTES, 0), int):
        raise UserError(_whole_minutes(parameters[MINUTES]))
    return {**parameters, "additional_parameters": {"kill-on-invalid-dep": "yes", **others}}


def _squeue(before: dict[str, tuple[str, str]]) -> dict[str, tuple[str, str]]:
    """Return this user's jobs: id -> name and state. Where the controller does not answer, its last answer."""
    command = ["squeue", "--noheader", "--user", str(os.getuid()), "--format", "%i|%T|%j"]
    try:
        output = subprocess.run(command, capture_output=True, text=True, check=True, timeout=60).stdout
    except (OSError, subprocess.SubprocessError):
        return before
    rows = [line.strip().split("|", 2) for line in output.splitlines() if line.count("|") >= 2]
    return {job_id: (name, state) for job_id, state, name in rows}
