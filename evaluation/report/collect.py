"""Reading finished run directories, and refusing those that cannot be compared.

A report reads nothing but what a run wrote: config.yaml, metrics.jsonl, evaluation.json, predictions.json,
truth.json and provenance.json. Two runs are comparable when both are finished, their protocols are equal field by
field, and their predictions were scored on the same truth.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from evaluation.files import read_predictions, read_truth


class ReportError(ValueError):
    """The runs cannot be put into one report; the message is a sentence for the user."""


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
        return flatten(self.provenance.get("protocol") or {})

    @property
    def backbone(self) -> dict[str, Any]:
        return self.provenance.get("backbone") or {}

    @property
    def seed(self) -> Any:
        return first_of(self.recipe, "seed", "solver.seed", "run.seed")


def first_of(tree: Mapping[str, Any], *paths: str) -> Any:
    """The first value found under one of the dotted `paths`, None where there is none."""
    for path in paths:
        node: Any = tree
        for key in path.split("."):
            node = node.get(key) if isinstance(node, Mapping) else None
        if node is not None:
            return node
    return None


def flatten(tree: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Nested mappings as one mapping with dotted keys: {"solver": {"lr": 1}} is {"solver.lr": 1}."""
    flat: dict[str, Any] = {}
    for key, value in tree.items():
        if isinstance(value, Mapping):
            flat.update(flatten(value, f"{prefix}{key}."))
        else:
            flat[f"{prefix}{key}"] = value
    return flat


def read_run(directory: Path) -> Run:
    """Read one run directory; `ReportError` where something is missing, broken or unfinished."""
    if not directory.is_dir():
        raise ReportError(f"{directory} is not a directory: give the output directories of finished runs.")
    provenance = _read_json(directory / "provenance.json", "the run has not finished; run it again with --resume")
    if not isinstance(provenance, dict) or provenance.get("finished") is not True:
        raise ReportError(f"{directory} is not finished: run its command again with --resume, then report on it.")
    score_it = f"score the run with: python tools/eval_det.py {directory}"
    predictions = _read_json(directory / "predictions.json", score_it)
    if not isinstance(predictions, list):
        raise ReportError(f"{directory / 'predictions.json'} is not a list of COCO results: {score_it}")
    return Run(
        directory=directory,
        recipe=_read_recipe(directory / "config.yaml"),
        metrics=_read_metrics(directory / "metrics.jsonl"),
        evaluation=_read_json(directory / "evaluation.json", score_it),
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


def _read_text(path: Path, mend: str) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except FileNotFoundError:
        raise ReportError(f"{path} is missing: {mend or 'the run is not complete'}.") from None
    except (OSError, UnicodeDecodeError) as error:
        raise ReportError(f"{path} cannot be read ({error}): {mend or 'restore it'}.") from None


def _read_json(path: Path, mend: str) -> Any:
    text = _read_text(path, mend)
    try:
        return json.loads(text)
    except json.JSONDecodeError as error:
        raise ReportError(f"{path} is not valid JSON ({error}): {mend or 'restore it'}.") from None


def _read_recipe(path: Path) -> dict[str, Any]:
    try:
        recipe = yaml.safe_load(_read_text(path, "it is the run's recipe; restore it or run again"))
    except yaml.YAMLError as error:
        problem = " ".join(str(error).split())
        raise ReportError(f"{path} is not valid YAML ({problem}): restore it or run again.") from None
    return recipe if isinstance(recipe, dict) else {}


def _read_metrics(path: Path) -> list[dict[str, Any]]:
    """The lines in order of iteration; a line cut short by a kill is dropped, one written again after a resume wins."""
    latest: dict[tuple[int, bool], dict[str, Any]] = {}
    for line in _read_text(path, "it holds the training curves; run again").splitlines():
        try:
            entry = json.loads(line)
        except json.JSONDecodeError:
            continue
        if isinstance(entry, dict) and "iteration" in entry:
            latest[int(entry["iteration"]), "AP" in entry] = entry
    return [latest[key] for key in sorted(latest)]


def _truth_digest(path: Path, mend: str) -> str:
    """SHA-256 of the truth's content: the order of keys and the white space do not count."""
    content = json.dumps(_read_json(path, mend), sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(content.encode()).hexdigest()
