"""Reading finished run directories, and refusing those that cannot be compared.

A report reads nothing but what a run wrote: config.yaml, metrics.jsonl, evaluation.json, predictions.json,
truth.json and provenance.json. Two runs are comparable when both are finished, their protocols are equal field by
field, and their predictions were scored on the same truth.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from evaluation.files import read_predictions, read_truth
from evaluation.report.reading import ReportError, read_json, read_metrics, read_provenance, read_recipe


@dataclass(frozen=True)
class Run:
    """What one finished run left behind.

    `predictions` are COCO results in pixels of the original images; `metrics` the lines of metrics.jsonl, the last
    one of each iteration and kind; `truth_digest` is the SHA-256 of the truth that the predictions were scored on.
    """

    directory: Path
    recipe: dict[str, Any]
    metrics: list[dict[str, Any]]
    evaluation: dict[str, Any]
    provenance: dict[str, Any]
    predictions: list[dict[str, Any]]
    truth_digest: str

    @property
    def protocol(self) -> dict[str, Any]:
        return self.provenance.get("protocol") or {}

    @property
    def backbone(self) -> dict[str, Any]:
        return self.provenance.get("backbone") or {}

    @property
    def seed(self) -> Any:
        return self.recipe.get("seed")


def read_run(directory: Path) -> Run:
    """Read one run directory; `ReportError` where something is missing, broken or unfinished."""
    provenance = read_provenance(directory)
    score_it = f"score the run with: python tools/eval_det.py {directory}"
    predictions = read_json(directory / "predictions.json", score_it)
    if not isinstance(predictions, list):
        raise ReportError(f"{directory / 'predictions.json'} is not a list of COCO results: {score_it}")
    return Run(
        directory=directory,
        recipe=read_recipe(directory / "config.yaml"),
        metrics=read_metrics(directory / "metrics.jsonl"),
        evaluation=read_json(directory / "evaluation.json", score_it),
        provenance=provenance,
        predictions=predictions,
        truth_digest=_truth_digest(directory / "truth.json", score_it),
    )


def read_runs(directories: Sequence[Path]) -> tuple[list[Run], dict[str, Any]]:
    """All runs and the truth they share; `ReportError` unless they can be compared."""
    paths = [Path(directory) for directory in directories]
    if len(paths) < 2:
        raise ReportError("A comparison needs at least two run directories.")
    if len({path.resolve() for path in paths}) < len(paths):
        raise ReportError("The same run directory was given twice: a run cannot be compared with itself.")
    runs = [read_run(path) for path in paths]
    for run in runs[1:]:
        check_comparable(runs[0], run)
    truth = read_truth(paths[0] / "truth.json")
    for run in runs:
        read_predictions(run.directory / "predictions.json", truth)
    return runs, truth


def check_comparable(first: Run, other: Run) -> None:
    """Refuse two runs whose protocols, truths or sample sets differ, naming what differs."""
    where = f"{first.directory} and {other.directory} cannot be compared"
    differing = protocol_differences(first, other)
    if differing:
        fields = "; ".join(f"{name}: {mine!r} against {theirs!r}" for name, mine, theirs in differing)
        raise ReportError(f"{where}: their protocols differ in {fields}. Train both under one protocol.")
    hashes = [run.provenance.get("protocol_hash") for run in (first, other)]
    if hashes[0] != hashes[1]:
        raise ReportError(
            f"{where}: their protocol hashes differ ({hashes[0]} against {hashes[1]}) although the listed fields "
            "are equal. Train both with one version of the code."
        )
    samples = [run.provenance.get("sample_hash") for run in (first, other)]
    if samples[0] != samples[1]:
        raise ReportError(
            f"{where}: their sample sets come from different generators ({samples[0]} against {samples[1]}). "
            "Make the sample set anew and train both on it."
        )
    if first.truth_digest != other.truth_digest:
        raise ReportError(
            f"{where}: their truth.json differ, so they were scored on different annotations. "
            "Score both on one data set with tools/eval_det.py."
        )


def protocol_differences(first: Run, other: Run) -> list[tuple[str, Any, Any]]:
    """(field, first's value, other's value) for each protocol field that differs; a missing one counts as None."""
    mine, theirs = first.protocol, other.protocol
    return [
        (name, mine.get(name), theirs.get(name))
        for name in sorted(mine.keys() | theirs.keys())
        if mine.get(name) != theirs.get(name)
    ]


def _truth_digest(path: Path, mend: str) -> str:
    """SHA-256 of the truth's content: the order of keys and the white space do not count."""
    content = json.dumps(read_json(path, mend), sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(content.encode()).hexdigest()
