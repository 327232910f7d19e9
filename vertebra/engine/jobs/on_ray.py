"""Jobs on a Ray cluster (on Kubernetes: KubeRay's), each on one node that has the GPUs and cores which it asks for.

A job is a detached actor of Ray's that holds the training as a process of its node. Stopped by a signal, all end; where
the process that watches them is killed they go on, and the same command finds them by name and doubles none. Nothing
of a job outlives its node's Ray.
"""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys
import threading
import time
import uuid
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from vertebra.engine.jobs.jobs import End, Executor, Job
from vertebra.engine.jobs.local import launch
from vertebra.ground.cores import usable_cores
from vertebra.ground.errors import UserError

NAMESPACE = "vertebra"
ANSWER_S = 0.5  # how long a node waits for its job's end before it answers that the job still runs
LINGER_S = 120.0  # how long an ended job holds its place for a watcher that might come back
STORE_BYTES = 80 << 20  # about the least that Ray takes for objects, of which jobs have none
# Variables, by their beginnings.
FORWARDED = ("PYTHONPATH", "VERTEBRA_", "OMP_", "NCCL_", "GLOO_", "TORCH_", "CUBLAS_", "HF_")


class Runner:
    """Runs on a node: the command in a process that ends with this one.

    mark: file that only who sees the watcher's directory can see, and what it holds.
    """

    def __init__(
        self, command: Sequence[str], console: str, mark: tuple[str, str], directory: str, variables: Mapping[str, str]
    ):
        self._refusal = _invisible(*mark)
        if self._refusal is None:
            self._process = launch(command, Path(console), environment=variables, directory=directory)
            threading.Thread(target=self._leave, daemon=True).start()

    def poll(self) -> int | str | None:
        """Return the exit code, None while it runs, or why it was not run."""
        if self._refusal is not None:
            return self._refusal
        try:
            return self._process.wait(ANSWER_S)
        except subprocess.TimeoutExpired:
            return None

    def stop(self) -> None:
        if self._refusal is None:
            self._process.terminate()

    def _leave(self) -> None:
        """Give the node's GPUs back some time after the end, should nobody ask any more."""
        self._process.wait()
        time.sleep(LINGER_S)
        os._exit(0)


def _invisible(mark: str, content: str) -> str | None:
    try:
        if Path(mark).read_text(encoding="utf-8") == content:
            return None
    except OSError:
        pass
    directory = Path(mark).parent.parent
    return f"node {os.uname().nodename} does not see {directory}: give an --output that all nodes share, such as NFS"


class RayCluster(Executor):
    """Hands all jobs to Ray, which queues those for which no node has room.

    address: of a cluster, as ray.init takes it, or "local": Ray of this machine alone, started for these jobs.
    processes, cores, gpus: of each job.
    """

    def __init__(self, address: str, consoles: Path, *, processes: int, cores: int, gpus: int, wanted: str):
        super().__init__(consoles)
        self._ray = _connect(address)
        self._gpus, self._cores = _fitting(self._ray.nodes(), gpus=gpus, cores=cores, wanted=wanted)
        mark = self.consoles / ".shared"
        if not mark.exists():
            mark.write_text(uuid.uuid4().hex, encoding="utf-8")
        self._mark = str(mark), mark.read_text(encoding="utf-8")
        self._variables = {"OMP_NUM_THREADS": str(max(1, self._cores // processes))}
        self._variables |= {name: value for name, value in os.environ.items() if name.startswith(FORWARDED)}
        self._suffix = hashlib.sha256(str(self.consoles).encode()).hexdigest()[:8]
        self._actors: dict[str, Any] = {}
        self._asked: dict[Any, str] = {}  # what poll waits for -> name
        self._running: set[str] = set()

    def submit(self, job: Job, command: Sequence[str]) -> None:
        runner = self._ray.remote(Runner).options(
            name=f"{job.name}.{self._suffix}",
            namespace=NAMESPACE,
            lifetime="detached",
            get_if_exists=True,
            num_gpus=self._gpus,
            num_cpus=self._cores,
            max_restarts=0,  # `run_at` has the rule for all
        )
        arguments = (tuple(command), str(self.console(job.name)), self._mark, os.getcwd(), self._variables)
        self._actors[job.name] = runner.remote(*arguments)
        self._ask(job.name)

    def poll(self) -> dict[str, End]:
        ends = {}
        ready, _ = self._ray.wait([*self._asked], num_returns=len(self._asked), timeout=0) if self._asked else ((), ())
        for reference in ready:
            name = self._asked.pop(reference)
            end = self._end(reference)
            if end is None:
                self._running.add(name)
                self._ask(name)
            else:
                ends[name] = end
                self._running.discard(name)
                self._ray.kill(self._actors.pop(name))
        return ends

    def cancel(self, name: str | None = None) -> None:
        for one, actor in self._actors.items():
            if name not in (None, one):
                continue
            if one in self._running:
                actor.stop.remote()
            else:
                self._ray.kill(actor)  # it waits for room, or begins

    def state(self, name: str) -> str:
        return "running" if name in self._running else "queued"

    def _ask(self, name: str) -> None:
        self._asked[self._actors[name].poll.remote()] = name

    def _end(self, reference: Any) -> End | None:
        """Return how the job ended from what its runner has answered; None where it still runs."""
        errors = self._ray.exceptions
        try:
            answer = self._ray.get(reference)
        except errors.ActorUnavailableError:  # for a while: the network
            return None
        except errors.RayError:
            return End(None, "its node was lost, or its process killed there")
        return End(1, answer) if isinstance(answer, str) else None if answer is None else End(answer)


def _fitting(nodes: Sequence[Mapping[str, Any]], *, gpus: int, cores: int, wanted: str) -> tuple[int, int]:
    """Return the GPUs and cores to ask for: at most the largest node's cores, and no GPUs where `auto` finds none."""
    rooms = [node["Resources"] for node in nodes if node["Alive"]]
    if wanted == "auto" and not any(room.get("GPU") for room in rooms):
        gpus = 0
    most = max((int(room.get("CPU", 0)) for room in rooms if room.get("GPU", 0) >= gpus), default=0)
    if not most:
        print(f"note: no node of Ray's has {gpus} GPUs and a core; the jobs wait until one joins", file=sys.stderr)
    return gpus, min(cores, most) or cores


def _connect(address: str) -> Any:
    """Return the library, connected. Raises UserError where it is not installed, or no cluster answers."""
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    if address == "local":
        os.environ["RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER"] = "0"  # then all that listens does so on loopback alone
        os.environ.setdefault("RAY_raylet_start_wait_time_s", "120")  # a busy machine
    try:
        import ray
    except ImportError:
        raise UserError('--ray needs Ray, which is not installed: pip install "vertebra[ray]"') from None
    if ray.is_initialized():
        return ray
    options: dict[str, Any] = {"namespace": NAMESPACE, "log_to_driver": False, "logging_level": "ERROR"}
    if address == "local":
        from vertebra.engine import device  # torch, which the nodes' runners can do without

        options |= {"num_cpus": usable_cores(), "num_gpus": len(device.visible_gpus())}
        options |= {"include_dashboard": False, "object_store_memory": STORE_BYTES}
    try:
        ray.init(address=address, **options)
    except Exception as error:  # of every kind, bare ones too
        reason = " ".join(str(error).split())[:200]
        raise UserError(f"--ray {address}", f"no Ray cluster can be used there: {reason}", "see ray status") from None
    return ray
