"""Read the runs that are to be compared, and refuse those that cannot be.

A report reads nothing but what runs wrote: config.yaml, metrics.jsonl, evaluation.json, provenance.json; of detectors
predictions.json, truth.json and, where there is one, proposals.json, and COCO results of any other detector; of
segmenters pixel_counts.npz, images.json and the maps. Two runs are comparable when both are finished, their protocols
are equal field by field, and they were scored on the same truth. Each head (the protocol's `model.body` or
`model.head`, and the engine if it is not ours) is a comparison of its own.
"""

from __future__ import annotations

import zipfile
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from vertebra.evaluation.metrics.files import Predictions, Truth, read_predictions, read_truth
from vertebra.evaluation.metrics.pixels import PixelCounts
from vertebra.evaluation.report.reading import (
    first_of,
    read_json,
    read_metrics,
    read_provenance,
    read_recipe,
)
from vertebra.evaluation.report.task import DETECTION, SEGMENTATION, Task
from vertebra.evaluation.why.explain import require_same_truth
from vertebra.ground.errors import UserError
from vertebra.ground.formats import TIMES

EACH_SEED = "give one file for each seed"
# Fields that only other trainings' recipes have.
OF_OTHER_TOOLS = {
    "label_smoothing": "train_backbone.py",
    "classifier": "train_loc.py",
}


@dataclass(frozen=True, kw_only=True)
class Run:
    """The files of one finished run: its directory, its recipe, and the last line of each iteration and kind of
    metrics.jsonl. `name` is that of a file's side (see `DetectorRun`), None for a run."""

    path: Path
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


@dataclass(frozen=True, kw_only=True)
class DetectorRun(Run):
    """A detector's run, or one file of predictions, of which nothing else is known but the truth; `path` is the file.

    predictions: COCO results in pixels of the original images, scored on `truth`.
    """

    predictions: Predictions
    truth: Truth

    @property
    def proposals(self) -> Path | None:
        """The file of its proposals, None where it has none."""
        path = self.path / "proposals.json"
        return path if path.is_file() else None

    def has_truth_of(self, other: DetectorRun) -> bool:
        return self.truth == other.truth


@dataclass(frozen=True, kw_only=True)
class SegmenterRun(Run):
    """A segmenter's run. counts: of each of `image_ids`, by place in `class_names`. images: id, picture (below the
    evaluation's image_root) and map of each, the name of a PNG in `maps` and in `truth_maps`; none of older runs."""

    counts: PixelCounts
    image_ids: tuple[int, ...]
    class_names: tuple[str, ...]
    images: list[dict[str, Any]] = field(default_factory=list)

    @property
    def maps(self) -> Path:
        return self.path / "maps"

    @property
    def truth_maps(self) -> Path:
        return self.path / "truth"

    def has_truth_of(self, other: SegmenterRun) -> bool:
        """True where images, classes and the pixels that are truly of each are the same."""
        same = (self.image_ids, self.class_names) == (other.image_ids, other.class_names)
        return same and np.array_equal(self.counts.true_IC, other.counts.true_IC)


@dataclass(frozen=True)
class HeadRuns:
    """Runs of one task and head, of one protocol, scored on one truth; head: None where it is not known."""

    task: Task
    head: str | None
    runs: list[Any]


def read_run(directory: Path, others: Sequence[Any] = ()) -> DetectorRun | SegmenterRun:
    """Read one run directory; UserError where it is neither a detector's nor a segmenter's, or something is missing,
    broken, unfinished.

    others: runs read before; one of the same truth shares it.
    """
    provenance = read_provenance(directory)
    recipe = read_recipe(directory / "config.yaml")
    for name, tool in OF_OTHER_TOOLS.items():
        if name in recipe:
            hint = "a report compares detectors of train_det.py, or segmenters of train_seg.py"
            raise UserError(directory, f"it is a run of {tool}", hint)
    task = SEGMENTATION if "output_stride" in (recipe.get("model") or {}) else DETECTION
    score_it = f"score the run with: python tools/eval_{task.tool}.py {directory}"
    facts: dict[str, Any] = {"path": directory, "recipe": recipe, "provenance": provenance}
    if task is SEGMENTATION:
        facts |= _read_counts(directory, score_it)
    else:
        facts |= _read_predictions(directory, others, score_it)
    facts["metrics"] = read_metrics(directory / "metrics.jsonl")
    facts["evaluation"] = evaluation = read_json(directory / "evaluation.json", score_it)
    if task is DETECTION:
        return DetectorRun(**facts)
    run = SegmenterRun(**facts, class_names=tuple(first_of(evaluation, "classes") or ()))
    if run.counts.true_IC.shape != (len(run.image_ids), len(run.class_names)):
        raise UserError(directory / "pixel_counts.npz", "evaluation.json is of other images or classes", score_it)
    return run


def _read_predictions(directory: Path, others: Sequence[DetectorRun], score_it: str) -> dict[str, Any]:
    files = [directory / name for name in ("predictions.json", "truth.json")]
    for path in files:
        if not path.is_file():
            raise UserError(path, "it is missing", score_it)
    own = read_truth(files[1])
    truth = next((other.truth for other in others if isinstance(other, DetectorRun) and other.truth == own), own)
    return {"predictions": read_predictions(files[0], truth), "truth": truth}


def _read_counts(directory: Path, score_it: str) -> dict[str, Any]:
    path, pictures = directory / "pixel_counts.npz", directory / "images.json"
    try:
        with np.load(path) as arrays:
            counts = PixelCounts(*(arrays[name] for name in ("right_IC", "given_IC", "true_IC")))
            image_ids = tuple(arrays["image_ids"].tolist())
    except FileNotFoundError:
        raise UserError(path, "it is missing", score_it) from None
    except (OSError, ValueError, KeyError, zipfile.BadZipFile) as error:
        raise UserError(path, f"it cannot be read ({error})", score_it) from None
    images = read_json(pictures, score_it) if pictures.is_file() else []
    return {"counts": counts, "image_ids": image_ids, "images": images}


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
    runs: list[Any] = []
    for path in paths:
        run = read_run(path, runs)
        if runs and type(run) is not type(runs[0]):
            tasks = {SegmenterRun: "a segmenter, whose figure is mIoU", DetectorRun: "a detector, whose figure is AP"}
            reason = f"one is {tasks[type(runs[0])]}, the other {tasks[type(run)]}: these cannot be compared"
            raise UserError(f"{runs[0].path} and {path}", reason, "report on each kind by itself")
        runs.append(run)
    task = SEGMENTATION if runs and isinstance(runs[0], SegmenterRun) else DETECTION
    if task is SEGMENTATION and (predictions or truth):
        raise UserError(runs[0].path, "predictions and a truth in COCO's format are of detectors, it is a segmenter's")
    by_head: dict[str | None, list[Any]] = {}
    for run in runs:
        for others in by_head.values():
            _check_data(task, others[0], run)
        same = by_head.setdefault(_head(task, run.protocol), [])
        if same:
            check_comparable(task, same[0], run)
        same.append(run)
    if task is SEGMENTATION:
        return [HeadRuns(task, head, same) for head, same in by_head.items()]
    if not by_head:
        by_head[None] = []
    return [_of_head(head, same, predictions or {}, truth) for head, same in by_head.items()]


def _head(task: Task, protocol: Mapping[str, Any]) -> str | None:
    head, engine = protocol.get(task.head), str(protocol.get("engine", "")).partition(" ")[0]
    return None if head is None else f"{head} {engine}".strip()


def _of_head(
    head: str | None, runs: list[DetectorRun], predictions: Mapping[str, Path | Sequence[Path]], truth: Path | None
) -> HeadRuns:
    if not runs and not predictions:
        raise UserError("there is nothing to report on", hint="give the directories of finished runs, or predictions")
    if not runs and truth is None:
        raise UserError("predictions alone cannot be scored", hint="give the truth as well: COCO JSON")
    annotations = runs[0].truth if runs else read_truth(Path(str(truth)))
    if runs and truth is not None:
        require_same_truth(annotations, read_truth(truth), (str(runs[0].path / "truth.json"), str(truth)))
    files = [run for name, given in predictions.items() for run in _read_files(name, given, annotations)]
    return HeadRuns(DETECTION, head, [*runs, *files])


def _read_files(name: str, given: Path | Sequence[Path], truth: Truth) -> list[DetectorRun]:
    """Read a side's files, one for each seed; no two may be the same file or have the same content."""
    read: list[DetectorRun] = []
    for path in [Path(given)] if isinstance(given, (str, Path)) else given:
        run = DetectorRun(path=path, predictions=read_predictions(path, truth), truth=truth, name=name)
        for other in read:
            if path.resolve() == other.path.resolve():
                raise UserError(path, f"it is given twice as {name}", EACH_SEED)
            if run.predictions and run.predictions == other.predictions:
                raise UserError(f"{other.path} and {path}", f"both have the same content as {name}", EACH_SEED)
        read.append(run)
    return read


def check_comparable(task: Task, first: Any, other: Any) -> None:
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
    if not first.has_truth_of(other):
        reason = "their truth.json differ" if task is DETECTION else "their pixels' true classes differ"
        reason += ", so they were scored on different annotations"
        raise UserError(where, reason, f"score both on one data set with tools/eval_{task.tool}.py")


def _check_data(task: Task, first: Any, other: Any) -> None:
    """Raise UserError for runs of different heads that do not share their data: they would stand side by side."""
    heads = [_head(task, run.protocol) for run in (first, other)]
    fingerprints = [run.protocol.get("train_fingerprint") for run in (first, other)]
    if heads[0] != heads[1] and (not first.has_truth_of(other) or fingerprints[0] != fingerprints[1]):
        reason = f"they have different heads ({heads[0]}, {heads[1]}) and different data"
        raise UserError(f"{first.path} and {other.path}", reason, "report on each data set by itself")


def differing(first: Mapping[str, Any], other: Mapping[str, Any]) -> list[tuple[str, Any, Any]]:
    """Return (field, first's value, other's value) where two flat mappings differ; a missing field counts as None."""
    return [
        (name, first.get(name), other.get(name))
        for name in sorted(first.keys() | other.keys())
        if first.get(name) != other.get(name)
    ]
