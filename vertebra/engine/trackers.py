"""Trackers of experiments beside the run directory: Weights & Biases, MLflow and trackio.

Each is written to by a thread of its own, so that a slow server costs the training nothing, and one that is gone costs
a warning. A run that is resumed goes on in the same tracked run: trackers.json in its directory has its id.
"""

from __future__ import annotations

import atexit
import json
import logging
import os
import time
import uuid
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from queue import SimpleQueue
from threading import Thread
from typing import Any, ClassVar

from vertebra.engine.logs import is_training_line, read_lines
from vertebra.ground.errors import UserError, first_line
from vertebra.ground.files import write_json

logger = logging.getLogger(__name__)

PROJECT = "vertebra"  # in which a tracker puts the runs, unless another is named
PATIENCE_S = 60.0  # for what is still on its way when the training ends


@dataclass(frozen=True)
class Subject:
    """The run that is tracked: its directory, whose name it has; its recipe and origin, flat; words to find it by."""

    directory: Path
    config: Mapping[str, Any]
    tags: Mapping[str, str]


class Tracker(ABC):
    """A run in a tracker, begun or, where `run_id` is given, continued.

    place: what follows the tracker's name and a colon on the command line, or "". id: by which it is continued. where:
    for people to find it. hint: what to do where it cannot begin.
    """

    hint: ClassVar[str]
    id: str
    where: str

    @abstractmethod
    def __init__(self, place: str, subject: Subject, run_id: str | None) -> None: ...

    @abstractmethod
    def write(self, iteration: int, values: dict[str, float]) -> None:
        """Add numbers to their curves."""

    @abstractmethod
    def close(self, results: Sequence[Path]) -> None:
        """End the run, with its files of results; without any it is an interrupted one."""


class WandB(Tracker):
    """wandb[:PROJECT]. Its files lie in the run directory; WANDB_MODE=offline leaves it at that."""

    hint = "log in with `wandb login`, or set WANDB_MODE=offline"

    def __init__(self, place: str, subject: Subject, run_id: str | None) -> None:
        import wandb

        self.id = run_id or uuid.uuid4().hex[:12]
        self._run = wandb.init(
            project=place or os.environ.get("WANDB_PROJECT", PROJECT),
            id=self.id,
            name=subject.directory.name,
            dir=subject.directory,
            config=None if run_id else dict(subject.config),
            tags=list(subject.tags.values()),
            resume="allow",
            # The log is the run directory's; our provenance has the commit, of what is run and not of where.
            settings=wandb.Settings(console="off", disable_git=True, save_code=False, finish_timeout=PATIENCE_S),
        )
        self.where = f"wandb sync {Path(self._run.dir).parent}" if self._run.offline else str(self._run.url)

    def write(self, iteration: int, values: dict[str, float]) -> None:
        self._run.log(values, step=iteration)

    def close(self, results: Sequence[Path]) -> None:
        for path in results:
            self._run.save(path, base_path=path.parent, policy="now")
        self._run.finish(exit_code=0 if results else 1)


class MLflow(Tracker):
    """mlflow:DIR, an SQLite store there; mlflow:URI, any other; mlflow, that of MLFLOW_TRACKING_URI."""

    hint = "check that its store can be reached and written"

    def __init__(self, place: str, subject: Subject, run_id: str | None) -> None:
        os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")  # a directory is asked for, and no network
        os.environ.setdefault("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "3")  # its own 7 take minutes where a server is gone
        from mlflow import MlflowClient
        from mlflow.entities import Metric, Param

        self._metric = Metric
        files: str | None = None
        if place and "://" not in place:
            folder = Path(place).expanduser().resolve()
            folder.mkdir(parents=True, exist_ok=True)
            place, files = f"sqlite:///{folder / 'mlflow.db'}", (folder / "files").as_uri()
        self._client = MlflowClient(place or None)
        if run_id is None:
            name = os.environ.get("MLFLOW_EXPERIMENT_NAME", PROJECT)
            found = self._client.get_experiment_by_name(name)
            experiment = found.experiment_id if found else self._client.create_experiment(name, artifact_location=files)
            run = self._client.create_run(experiment, run_name=subject.directory.name, tags=dict(subject.tags))
            run_id = run.info.run_id
            params = [Param(name, str(value)) for name, value in subject.config.items()]
            for start in range(0, len(params), 100):  # as many as a server takes at a time
                self._client.log_batch(run_id, params=params[start : start + 100])
        else:
            self._client.update_run(run_id, status="RUNNING")
        self.id, self.where = run_id, f"run {run_id} of {place or 'the default store'}"

    def write(self, iteration: int, values: dict[str, float]) -> None:
        now = int(time.time() * 1000)
        metrics = [self._metric(name, value, now, iteration) for name, value in values.items()]
        self._client.log_batch(self.id, metrics=metrics)

    def close(self, results: Sequence[Path]) -> None:
        for path in results:
            self._client.log_artifact(self.id, str(path))
        self._client.set_terminated(self.id, "FINISHED" if results else "KILLED")


class Trackio(Tracker):
    """trackio[:PROJECT], in trackio's own directory on this machine (TRACKIO_DIR), or a Space of TRACKIO_SPACE_ID."""

    hint = "check that its directory (TRACKIO_DIR) can be written"

    def __init__(self, place: str, subject: Subject, run_id: str | None) -> None:
        import trackio

        project = place or os.environ.get("TRACKIO_PROJECT", PROJECT)
        # Its runs are continued by name, which another directory's run may have too.
        self.id = run_id or f"{subject.directory.name}-{uuid.uuid4().hex[:6]}"
        self._run = trackio.init(
            project,
            name=self.id,
            config={**subject.config, **subject.tags},
            resume="allow" if run_id else "never",
            embed=False,
            auto_log_cpu=False,
            auto_log_gpu=False,
        )
        self.where = f"trackio show --project {project}"

    def write(self, iteration: int, values: dict[str, float]) -> None:
        self._run.log(values, step=iteration)

    def close(self, results: Sequence[Path]) -> None:
        for path in results:
            self._run.log_artifact(path, name=f"{self.id}-{path.stem}", type="results")
        self._run.finish()


TRACKERS: dict[str, type[Tracker]] = {"wandb": WandB, "mlflow": MLflow, "trackio": Trackio}


class Outbox:
    """What goes to a tracker, in the order in which it came, by a thread of its own; nothing here waits, but `close`.

    After an error, of which a warning tells, nothing more is sent. seen: the last iteration of each section that the
    tracker has had before, when this run was interrupted.
    """

    def __init__(self, name: str, tracker: Tracker, seen: Mapping[str, int]) -> None:
        self._name = name
        self._tracker = tracker
        self._seen = seen
        self._calls: SimpleQueue[Callable[[], None] | None] = SimpleQueue()
        self._thread = Thread(target=self._send, name=f"tracker {name}", daemon=True)
        self._thread.start()
        atexit.register(self.close)  # where the training is interrupted

    def write(self, iteration: int, values: Mapping[str, float | None], *, section: str) -> None:
        """Send named numbers, those that are finite, as "SECTION/NAME"."""
        if iteration > self._seen.get(section, -1) and self._thread.is_alive():
            finite = {f"{section}/{name}": value for name, value in values.items() if value is not None}
            self._calls.put(partial(self._tracker.write, iteration, finite))

    def close(self, results: Sequence[Path] = ()) -> None:
        """End the tracked run, with its results where it has any, and wait a minute for all to be sent."""
        atexit.unregister(self.close)
        self._calls.put(partial(self._tracker.close, results))
        self._calls.put(None)
        self._thread.join(PATIENCE_S + 5)
        if self._thread.is_alive():
            logger.warning("--track %s has not taken everything within %.0f s", self._name, PATIENCE_S)

    def _send(self) -> None:
        try:
            while (call := self._calls.get()) is not None:
                call()
        except Exception as error:  # whatever a tracker's library raises
            logger.warning("--track %s: %s; the training goes on without it", self._name, first_line(error))


def begin_tracking(asked: Sequence[str], subject: Subject) -> list[Outbox]:
    """Begin or continue the tracked runs that `--track` asks for, and write their ids into the run directory.

    Raises UserError where one cannot begin; where one that did cannot be continued, a warning is all.
    """
    path, outboxes = subject.directory / "trackers.json", []
    ids: dict[str, str] = json.loads(path.read_text()) if path.is_file() else {}
    for name in asked:
        kind, _, place = name.partition(":")
        tracker = TRACKERS[kind]
        try:
            begun = tracker(place, subject, ids.get(name))
        except Exception as error:  # whatever a tracker's library raises
            if name in ids:
                logger.warning("--track %s cannot go on: %s", name, first_line(error))
                continue
            raise UserError(
                f"--track {name}", first_line(error), f"{tracker.hint}, or leave it out; then continue with --resume"
            ) from error
        seen: dict[str, int] = {}
        for _, line in read_lines(subject.directory / "metrics.jsonl") if name in ids else ():
            seen["train" if is_training_line(line) else "evaluation"] = line["iteration"]
        outboxes.append(Outbox(name, begun, seen))
        ids[name] = begun.id
        write_json(path, ids)
        logger.info("tracked by %s: %s", kind, begun.where)
    return outboxes
