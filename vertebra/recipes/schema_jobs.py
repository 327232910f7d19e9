"""What can be set of the place where the trainings of a plan run: this machine, a SLURM queue, a Ray cluster.

Plain data as `vertebra.recipes.schema` is: nothing here imports torch or another room.
"""

from __future__ import annotations

from pathlib import Path

from pydantic import Field

from vertebra.recipes.schema import OnDevices, Track, refuse

TASKS = ("nodes", "ntasks", "ntasks_per_node", "tasks_per_node", "array")  # of --slurm: how often a command runs


class Jobs(OnDevices):
    """Several trainings: how many at a time, each in how many processes, and where."""

    output: Path = Field(description="Where the runs and the report go.")
    gpus: int = Field(1, ge=1, description="Processes (on GPUs: devices) for each training.")
    track: Track = ()
    jobs: int | None = Field(None, ge=1, description="Trainings at a time, which share the cores; none: 1.")
    slurm: tuple[str, ...] = Field(
        (),
        description="KEY=VALUE ... of the cluster's queue, where the jobs then run: partition=gpu time=240 (minutes), "
        "any other of sbatch's options too. cluster=local: no queue, processes of this machine.",
    )
    ray: str | None = Field(
        None,
        description="ADDRESS of a Ray cluster on which the jobs then run, such as auto or 10.0.0.1:6379; on it, each "
        "gets its GPUs and cores on one node. local: Ray on this machine alone.",
    )

    @property
    def processes(self) -> int:
        """Processes of each job."""
        return self.gpus

    @property
    def at_once(self) -> int:
        """Jobs at a time on this machine."""
        return self.jobs or 1

    @property
    def is_queued(self) -> bool:
        """True where the jobs go to a cluster, which decides how many run at a time."""
        return self.ray is not None or (bool(self.slurm) and "cluster=local" not in self.slurm)

    def slurm_words(self) -> dict[str, str]:
        """Return `--slurm` as a table. Raises ValueError where an entry is none."""
        for entry in self.slurm:
            name, _, value = entry.partition("=")
            if not name or not value:
                raise ValueError(f"--slurm {entry}: write KEY=VALUE")
        return dict(entry.split("=", 1) for entry in self.slurm)

    def check_place(self) -> None:
        """Raise ValueError with a sentence for fields on the place that do not go together."""
        words = self.slurm_words()
        minutes, cluster = words.pop("time", None), words.pop("cluster", "slurm")
        unheeded = [f"{key}={value}" for key, value in words.items() if cluster == "local"]
        tasks = [f"{key}={value}" for key, value in words.items() if key.replace("-", "_") in TASKS and value != "1"]
        refuse(
            (self.slurm and self.ray, "--slurm and --ray are two places; give one"),
            (
                self.jobs and self.is_queued,
                "--jobs is for this machine; a cluster's queue decides how many run at a time",
            ),
            (cluster not in ("slurm", "local"), f"--slurm cluster={cluster}: it is slurm or local"),
            (
                unheeded,
                f"--slurm {' '.join(unheeded)}: cluster=local has no queue that could heed it; time=MINUTES alone may "
                "stand beside it",
            ),
            (
                minutes is not None and not (minutes.isdecimal() and int(minutes)),
                f"--slurm time={minutes}: in whole minutes, such as time=240",
            ),
            (
                self.slurm and cluster == "slurm" and minutes is None,
                "--slurm lacks time=MINUTES, such as time=240: how long a job may run until it saves its state, goes "
                "back into the queue and continues",
            ),
            (
                tasks,
                f"--slurm {' '.join(tasks)}: the whole command would run as often; a training runs on one node and "
                "starts its own processes there, as many as --gpus-per-job or --gpus says",
            ),
        )
