"""Finished runs, read from their directories.

A report reads nothing but what runs wrote: config.yaml, metrics.jsonl, evaluation.json, provenance.json; of detectors
predictions.json, truth.json and, where there is one, proposals.json, and COCO results of any other detector; of
segmenters pixel_counts.npz, images.json and the maps, and maps of any other segmenter.
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
    ReadMap,
    first_of,
    read_json,
    read_labels,
    read_metrics,
    read_provenance,
    read_recipe,
)
from vertebra.evaluation.report.task import DETECTION, SEGMENTATION
from vertebra.ground.errors import UserError
from vertebra.ground.formats import TIMES

# Fields that only other trainings' recipes have.
OF_OTHER_TOOLS = {"label_smoothing": "train_backbone.py", "classifier": "train_loc.py"}


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

    def has_content_of(self, other: DetectorRun) -> bool:
        """True where the same objects were found; where none were, two seeds may well agree."""
        return bool(self.predictions) and self.predictions == other.predictions


@dataclass(frozen=True, kw_only=True)
class SegmenterRun(Run):
    """A segmenter's run, or one folder of maps, of which nothing else is known but the truth; `path` is the folder.

    counts: of each of `image_ids`, by place in `class_names`. images: id and picture of each, below the evaluation's
    image_root. read_map, read_truth: an image's maps. Older runs have none of these.
    """

    counts: PixelCounts
    image_ids: tuple[int, ...]
    class_names: tuple[str, ...]
    images: Sequence[Mapping[str, Any]] = ()
    read_map: ReadMap | None = None
    read_truth: ReadMap | None = None

    def has_truth_of(self, other: SegmenterRun) -> bool:
        """True where images, classes and the pixels that are truly of each are the same."""
        same = (self.image_ids, self.class_names) == (other.image_ids, other.class_names)
        return same and np.array_equal(self.counts.true_IC, other.counts.true_IC)

    def has_content_of(self, other: SegmenterRun) -> bool:
        """True where every image has as many pixels of each class, and as many right."""
        mine, others = self.counts, other.counts
        return np.array_equal(mine.given_IC, others.given_IC) and np.array_equal(mine.right_IC, others.right_IC)


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
    found = {"counts": counts, "image_ids": image_ids}
    if not (pictures.is_file() and (directory / "maps").is_dir() and (directory / "truth").is_dir()):
        return found
    images = read_json(pictures, score_it)
    readers = {
        read: lambda place, folder=folder: read_labels(directory / folder / images[place]["map"])
        for read, folder in (("read_map", "maps"), ("read_truth", "truth"))
    }
    return {**found, "images": images, **readers}
