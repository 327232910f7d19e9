"""Read the runs that are to be compared, and refuse those that cannot be.

A report reads nothing but what runs wrote: config.yaml, metrics.jsonl, evaluation.json, predictions.json, truth.json,
provenance.json and, where there is one, proposals.json; and COCO results of any other detector. Two runs are
comparable when both are finished, their protocols are equal field by field, and their predictions were scored on the
same truth. Each head (the protocol's `model.body`, and the engine if it is not ours) is a comparison of its own.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from vertebra.evaluation.metrics.files import Predictions, Truth, read_predictions, read_truth
from vertebra.evaluation.report.reading import (
    read_json,
    read_metrics,
    read_provenance,
    read_recipe,
)
from vertebra.evaluation.why.explain import require_same_truth
from vertebra.ground.errors import UserError
from vertebra.ground.formats import TIMES

EACH_SEED = "give one file for each seed"
# Fields that only other trainings' recipes have.
OF_OTHER_TOOLS = {
    "label_smoothing": "train_backbone.py",
    "classifier": "train_loc.py",
    "model.output_stride": "train_seg.py",
}


@dataclass(frozen=True)
class Run:
    """The files of one finished run, or one file of predictions.

    `path` is the run's directory, or the file; `name` what the file's side is called, None for a run. `predictions`
    are COCO results in pixels of the original images, scored on `truth`; `metrics` the lines of metrics.jsonl, the
    last one of each iteration and kind. Of a file nothing is known but its predictions and the truth.
    """

    path: Path
    predictions: Predictions
    truth: Truth
    name: str | None = None
    recipe: dict[str, Any] = field(default_factory=dict)
    metrics: list[dict[str, Any]] = field(default_factory=list)
    evaluation: dict[str, Any] = field(default_factory=dict)
    provenance: dict[str, Any] = field(default_factory=dict)

    @property
    def protocol(self) -> dict[str, Any]:
        return self.provenance.get("protocol") or {}

    @property
    def backbone(self) -> dict[str, Any]:
        return self.provenance.get("backbone") or {}

    @property
    def seed(self) -> Any:
        return self.recipe.get("seed")

    @property
    def machine(self) -> str | None:
        """GPUs, CPU and cores: '8 × NVIDIA H200, 64 cores'."""
        machine = self.provenance.get("machine")
        if not isinstance(machine, Mapping):
            return None if machine is None else str(machine)
        gpus = Counter(machine.get("gpus") or ())
        parts = [f"{number} {TIMES} {gpu}" if number > 1 else str(gpu) for gpu, number in gpus.items()]
        parts += [str(machine["cpu"])] if machine.get("cpu") else []
        parts += [f"{machine['cores']} cores"] if machine.get("cores") else []
        return ", ".join(parts) or None

    @property
    def proposals(self) -> Path | None:
        """The file of its proposals, None where it has none."""
        path = self.path / "proposals.json"
        return path if path.is_file() else None


@dataclass(frozen=True)
class HeadRuns:
    """Runs of one head, of one protocol, and the truth that all were scored on; head: None where it is not known."""

    head: str | None
    runs: list[Run]
    truth: Truth


def read_run(directory: Path, others: Sequence[Run] = ()) -> Run:
    """Read one run directory; UserError where it is no detector's, or something is missing, broken, unfinished.

    others: runs read before; one of the same truth shares it.
    """
    provenance = read_provenance(directory)
    recipe = read_recipe(directory / "config.yaml")
    fields = {*recipe, *(f"model.{name}" for name in recipe.get("model") or {})}
    for name, tool in OF_OTHER_TOOLS.items():
        if name in fields:
            hint = "a report compares detectors, which train_det.py trains"
            raise UserError(directory, f"it is a run of {tool}", hint)
    score_it = f"score the run with: python tools/eval_det.py {directory}"
    files = [directory / name for name in ("predictions.json", "truth.json")]
    for path in files:
        if not path.is_file():
            raise UserError(path, "it is missing", score_it)
    own = read_truth(files[1])
    truth = next((other.truth for other in others if other.truth == own), own)
    return Run(
        path=directory,
        predictions=read_predictions(files[0], truth),
        truth=truth,
        recipe=recipe,
        metrics=read_metrics(directory / "metrics.jsonl"),
        evaluation=read_json(directory / "evaluation.json", score_it),
        provenance=provenance,
    )


def read(
    directories: Sequence[Path],
    predictions: Mapping[str, Path | Sequence[Path]] | None = None,
    truth: Path | None = None,
) -> list[HeadRuns]:
    """Return the runs by head, in the order of each head's first run, with the files of predictions beside them.

    predictions: file or files (one a seed) by the side's name. truth: what the files were made for; None: the runs'.
    Raises UserError where there is nothing, or runs of one head cannot be compared.
    """
    paths = [Path(directory) for directory in directories]
    if len({path.resolve() for path in paths}) < len(paths):
        raise UserError("the same run directory was given twice", hint="name each run once")
    by_head: dict[str | None, list[Run]] = {}
    for path in paths:
        run = read_run(path, [other for same in by_head.values() for other in same])
        head = _head(run.protocol)
        for others in by_head.values():
            _check_data(others[0], run)
        same = by_head.setdefault(head, [])
        if same:
            check_comparable(same[0], run)
        same.append(run)
    if not by_head:
        by_head[None] = []
    return [_of_head(head, runs, predictions or {}, truth) for head, runs in by_head.items()]


def _head(protocol: Mapping[str, Any]) -> str | None:
    body, engine = protocol.get("model.body"), str(protocol.get("engine", "")).partition(" ")[0]
    return None if body is None else f"{body} {engine}".strip()


def _of_head(
    head: str | None, runs: list[Run], predictions: Mapping[str, Path | Sequence[Path]], truth: Path | None
) -> HeadRuns:
    if not runs and not predictions:
        raise UserError("there is nothing to report on", hint="give the directories of finished runs, or predictions")
    if not runs and truth is None:
        raise UserError("predictions alone cannot be scored", hint="give the truth as well: COCO JSON")
    annotations = runs[0].truth if runs else read_truth(Path(str(truth)))
    if runs and truth is not None:
        require_same_truth(annotations, read_truth(truth), (str(runs[0].path / "truth.json"), str(truth)))
    files = [run for name, given in predictions.items() for run in _read_files(name, given, annotations)]
    return HeadRuns(head, [*runs, *files], annotations)


def _read_files(name: str, given: Path | Sequence[Path], truth: Truth) -> list[Run]:
    """Read a side's files, one for each seed; no two may be the same file or have the same content."""
    read: list[Run] = []
    for path in [Path(given)] if isinstance(given, (str, Path)) else given:
        run = Run(path, read_predictions(path, truth), truth, name)
        for other in read:
            if path.resolve() == other.path.resolve():
                raise UserError(path, f"it is given twice as {name}", EACH_SEED)
            if run.predictions and run.predictions == other.predictions:
                raise UserError(f"{other.path} and {path}", f"both have the same content as {name}", EACH_SEED)
        read.append(run)
    return read


def check_comparable(first: Run, other: Run) -> None:
    """Raise UserError for two runs whose protocols, truths or sample sets differ, naming what differs."""
    where = f"{first.path} and {other.path} cannot be compared"
    if fields := differing(first.protocol, other.protocol):
        listed = "; ".join(f"{name}: {a!r} against {b!r}" for name, a, b in fields)
        raise UserError(where, f"their protocols differ in {listed}", "train both under one protocol")
    hashes = [run.provenance.get("protocol_hash") for run in (first, other)]
    if hashes[0] != hashes[1]:
        reason = f"their protocol hashes differ ({hashes[0]} against {hashes[1]}) although the listed fields are equal"
        raise UserError(where, reason, "train both with one version of the code")
    samples = [run.provenance.get("sample_hash") for run in (first, other)]
    if samples[0] != samples[1]:
        reason = f"their sample sets come from different generators ({samples[0]} against {samples[1]})"
        raise UserError(where, reason, "make the sample set anew and train both on it")
    if first.truth != other.truth:
        reason = "their truth.json differ, so they were scored on different annotations"
        raise UserError(where, reason, "score both on one data set with tools/eval_det.py")


def _check_data(first: Run, other: Run) -> None:
    """Raise UserError for runs of different heads that do not share their data: they would stand side by side."""
    heads = [_head(run.protocol) for run in (first, other)]
    fingerprints = [run.protocol.get("train_fingerprint") for run in (first, other)]
    if heads[0] != heads[1] and (first.truth != other.truth or fingerprints[0] != fingerprints[1]):
        reason = f"they have different heads ({heads[0]}, {heads[1]}) and different data"
        raise UserError(f"{first.path} and {other.path}", reason, "report on each data set by itself")


def differing(first: Mapping[str, Any], other: Mapping[str, Any]) -> list[tuple[str, Any, Any]]:
    """Return (field, first's value, other's value) where two flat mappings differ; a missing field counts as None."""
    return [
        (name, first.get(name), other.get(name))
        for name in sorted(first.keys() | other.keys())
        if first.get(name) != other.get(name)
    ]
