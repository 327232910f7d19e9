"""One directory for one run: its recipe, its logs and numbers, its checkpoints, and what came out of it."""

from __future__ import annotations

import json
import logging
import time
import uuid
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

import yaml

from vertebra.engine.checkpoint import CheckpointError, Checkpoints, load_checkpoint
from vertebra.engine.distributed import World
from vertebra.engine.jobs import lock
from vertebra.engine.logs import MetricsWriter, is_training_line, keep_lines
from vertebra.engine.provenance import differing_fields, plain
from vertebra.ground import files
from vertebra.ground.errors import UserError
from vertebra.ground.formats import first_few
from vertebra.ground.parse import flatten, parse_yaml

logger = logging.getLogger(__name__)

PATIENCE_S = 10.0  # for a file to show up on another node


class RunDirectory:
    """The paths of a run, its `checkpoints` and its `metrics`. Made by `open`; only rank 0 writes.

    config.yaml data.json trackers.json log.txt metrics.jsonl checkpoints/ predictions.json truth.json evaluation.json
    model.safetensors provenance.json, and TensorBoard events; model_best.safetensors (the best evaluated) where
    training evaluates; of a classifier also model_raw.safetensors (where model.safetensors holds the weights' average).
    """

    def __init__(self, path: Path, *, world: World | None = None, tensorboard: bool = True):
        self.path = path
        self.world = world or World()
        self.config = path / "config.yaml"
        self.data = path / "data.json"
        self.log = path / "log.txt"
        self.metrics_file = path / "metrics.jsonl"
        self.predictions = path / "predictions.json"
        self.truth = path / "truth.json"
        self.evaluation = path / "evaluation.json"
        self.weights = path / "model.safetensors"
        self.best_weights = path / "model_best.safetensors"
        self.raw_weights = path / "model_raw.safetensors"
        self.provenance = path / "provenance.json"
        self.checkpoints = Checkpoints(path / "checkpoints")
        self.metrics = MetricsWriter(path, tensorboard=tensorboard, enabled=self.world.is_main)

    @classmethod
    def open(
        cls,
        path: Path,
        recipe: Mapping[str, Any],
        *,
        resume: bool = False,
        may_differ: Collection[str] = (),
        added: Mapping[str, Any] | None = None,
        world: World | None = None,
        tensorboard: bool = True,
    ) -> RunDirectory:
        """Return the directory at `path` for a run of `recipe`: a new one, or with `resume` the one that is there.

        recipe: nested mapping of plain values, written as config.yaml.
        may_differ: dotted names of fields that a resumed run may change (paths, workers, device ...).
        added: fields that runs of earlier versions lack, and the value that they had in effect.
        With `resume` and nothing there, a new run begins; check `finished` before going on with one.
        The directory is this process's alone until `finish`, or its end.
        Raises UserError, on every process, where the directory holds another recipe's run (naming the fields),
        where it holds this one and `resume` was not asked for, where another process trains in it, where it holds
        something else, and where a process does not see what rank 0 does.
        """
        run = cls(Path(path), world=world, tensorboard=tensorboard)
        run.world.decide(lambda: run._create_or_resume(plain(recipe), resume, may_differ, added or {}))
        if run.world.size > 1:
            run._require_shared()
        return run

    @classmethod
    def is_finished(
        cls,
        path: Path,
        recipe: Mapping[str, Any],
        *,
        may_differ: Collection[str] = (),
        added: Mapping[str, Any] | None = None,
    ) -> bool:
        """Tell whether `path` holds a finished run of `recipe`; False where there is no run. It is not locked.

        Raises UserError where it holds another recipe's run, naming the fields.
        """
        run = cls(Path(path), tensorboard=False)
        if not run.config.is_file():
            return False
        run._require_same_recipe(plain(recipe), may_differ, added or {})
        return run.finished

    def _create_or_resume(
        self, recipe: dict[str, Any], resume: bool, may_differ: Collection[str], added: Mapping[str, Any]
    ) -> None:
        if not self.config.exists():
            self._require_empty()
            self.path.mkdir(parents=True, exist_ok=True)
            self._lock()
        if not self.config.exists():
            files.write_text(self.config, yaml.safe_dump(recipe, sort_keys=False, allow_unicode=True))
            return
        self._require_same_recipe(recipe, may_differ, added)
        if not resume:
            hint = "add --resume to continue it" if not self.finished else "add --resume to print where its results are"
            state = "a finished run" if self.finished else "an unfinished run"
            raise UserError(f"{self.path} already holds {state} of this recipe; {hint}, or choose another --output.")
        if not self.finished:
            self._lock()

    def _lock(self) -> None:
        try:
            lock.take(self.path)
        except lock.Taken as taken:
            raise UserError(
                f"{self.path} is in use: process {taken.process} trains in it. Wait for its end, stop it, or choose "
                "another --output."
            ) from None

    def _require_shared(self) -> None:
        """Raise UserError, on every process, where one does not see a file that rank 0 makes here."""
        sign = self.path / self.world.decide(lambda: f".seen_{uuid.uuid4().hex}")  # a new name: no cache knows of it
        self.world.decide(sign.touch)
        deadline = time.monotonic() + PATIENCE_S
        while not (seen := sign.exists()) and time.monotonic() < deadline:
            time.sleep(0.1)
        fault = f"{self.world.name} does not see {self.path.absolute()}: --output must be on a shared file system"
        try:
            self.world.require(None if seen else fault)
        finally:
            self.world.decide(lambda: sign.unlink(missing_ok=True))

    def _require_empty(self) -> None:
        if self.path.is_file():
            raise UserError(f"{self.path} is a file; choose a directory as --output.")
        if self.path.exists() and any(not entry.name.startswith(".") for entry in self.path.iterdir()):
            raise UserError(f"{self.path} is not empty and holds no run (no config.yaml); choose another --output.")

    def _require_same_recipe(
        self, recipe: dict[str, Any], may_differ: Collection[str], added: Mapping[str, Any]
    ) -> None:
        flat_asked = flatten(recipe)
        flat_found = {name: added[name] for name in added if name in flat_asked} | flatten(self.read_config())
        differing = differing_fields(flat_found, flat_asked, ignore=may_differ)
        if differing:
            fields = [f"{n} ({flat_found.get(n)!r} there, {flat_asked.get(n)!r} asked)" for n in differing]
            raise UserError(
                f"{self.path} holds a run of another recipe; it differs in {first_few(fields, 8)}. "
                "Choose another --output, or the same values."
            )

    @property
    def finished(self) -> bool:
        """True where the run came to its end."""
        return _read_object(self.provenance).get("finished") is True

    def read_config(self) -> dict[str, Any]:
        """Return the recipe as it was written. Raises UserError where it does not parse."""
        try:
            found = parse_yaml(self.config.read_text(encoding="utf-8"))
        except ValueError as error:
            raise UserError(f"{self.config} is not valid YAML; choose another --output.") from error
        return found if isinstance(found, dict) else {}

    def latest_state(self) -> dict[str, Any] | None:
        """Return the state to continue from, None at the beginning; cut off metrics beyond it, which will come again.

        Rank 0 chooses the checkpoint, and every process reads it. Raises UserError on all where one cannot.
        """
        states: list[dict[str, Any] | None] = []

        def newest() -> int | None:
            states.append(self.checkpoints.latest())
            return states[0]["iteration"] if states[0] else None

        if (iteration := self.world.decide(newest)) is not None:
            fault = None
            try:
                states = states or [load_checkpoint(self.checkpoints.path(iteration))]
            except CheckpointError as error:
                fault = f"{self.world.name}: {error}"
            self.world.require(fault)
        state = states[0] if states else None
        if self.world.is_main:
            done = state["iteration"] if state else 0
            evaluated = state["record"]["evaluated"] if state else 0
            if state and state["record"]["best_iteration"] == done:
                self.checkpoints.mark_best(self.checkpoints.path(done))  # the kill may have come just before that
            keep_lines(
                self.metrics_file, lambda line: line["iteration"] <= (done if is_training_line(line) else evaluated)
            )
        self.world.barrier()
        return state

    def record_data(self, facts: Mapping[str, Any]) -> list[str]:
        """Write facts of the training data as the run begins; later return the names of those that have changed.

        On every process. Nothing is known of older runs, which have no such file.
        """

        def differing() -> list[str]:
            if not (found := self.read_data()) and not self.finished:
                self.write_json(self.data, dict(facts))
            return [name for name in facts if name in found and found[name] != facts[name]]

        return self.world.decide(differing)

    def read_data(self) -> dict[str, Any]:
        """Return what `record_data` wrote as the run began, nothing where there is no such file."""
        return _read_object(self.data)

    def write_json(self, path: Path, value: Any) -> None:
        """Write a result of this run, atomically, on rank 0."""
        if self.world.is_main:
            files.write_json(path, value, compact=path == self.truth)

    def finish(self, provenance: Mapping[str, Any]) -> None:
        """Write provenance.json, which is what makes the run a finished one."""
        self.metrics.close()
        self.write_json(self.provenance, {**plain(provenance), "finished": True})
        for tracker in self.metrics.trackers:
            tracker.close([path for path in (self.provenance, self.evaluation) if path.is_file()])
        if self.world.is_main:
            lock.release(self.path)


def _read_object(path: Path) -> dict[str, Any]:
    """Return the JSON object in a file; an empty one where there is none."""
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}
