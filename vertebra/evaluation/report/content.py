"""The content of a report: `assess` makes it, HTML, Markdown and LaTeX lay it out, report.json is `as_json` of it.

Figures are on the 0-100 scale, None where there is nothing to measure; differences are the second less the first.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields
from typing import Any

from vertebra.evaluation.report.curves import SideCurves
from vertebra.evaluation.report.origins import Pretraining
from vertebra.evaluation.report.reasons import Reasons
from vertebra.evaluation.report.spread import Spread, with_figures_beside
from vertebra.evaluation.report.task import Task
from vertebra.evaluation.statistics.comparison import Covers, Difference

Differences = Mapping[str, Difference | None]


@dataclass(frozen=True)
class SideCost:
    """A side's measures by name (`costs.COSTS`), and the conditions that all its runs were measured under."""

    measures: Mapping[str, Spread | None]
    input_hw: Any = None
    proposals: Any = None
    device: Any = None
    threads: Any = None
    precision: Any = None
    peak_memory_of: Any = None

    def to_dict(self) -> dict[str, Any]:
        conditions = {one.name: getattr(self, one.name) for one in fields(self) if one.name != "measures"}
        return {**self.measures, **conditions}


@dataclass(frozen=True)
class SideFacts:
    """A side's figures, cost and origin. file: nothing but predictions is known of it."""

    label: str
    file: bool
    backbone: Mapping[str, Any]
    seeds: Sequence[Any]
    figures: Mapping[str, Spread]
    cost: SideCost
    weights: str
    pretraining: Pretraining


@dataclass(frozen=True)
class Comparison:
    """Side b less side a in every figure and in each class's part of the main one; ratios: b's costs over a's."""

    a: str
    b: str
    covers: Covers
    differences: Differences
    per_class: Differences
    ratios: Mapping[str, float]


@dataclass(frozen=True)
class ClassRow:
    """A class: its objects or pixels, figures by name with a spread for each side, and the pair's difference in the
    first."""

    name: str
    truths: int
    figures: Mapping[str, Sequence[Spread]]
    difference: Difference | None

    def to_dict(self) -> dict[str, Any]:
        return with_figures_beside(self)


@dataclass(frozen=True)
class SizeRow:
    """One of COCO's sizes; truths: objects that are neither crowd nor difficult."""

    name: str
    figure: str
    truths: int
    AP: Sequence[Spread]
    difference: Difference | None


@dataclass(frozen=True)
class PrecisionRecall:
    """Precision (0..1) of each side at the recalls: over the classes with objects, and of each."""

    iou: float
    recall: Sequence[float]
    mean: Sequence[Sequence[float]]
    per_class: Mapping[str, Sequence[Sequence[float]]]


@dataclass(frozen=True)
class FrontPoint:
    """A side's cost and main figure; spread: the standard deviation over seeds; style: of its marker."""

    label: str
    side: int
    cost: float
    figure: float
    spread: float | None
    style: int


@dataclass(frozen=True)
class Front:
    """Sides by a cost and `figure`; pareto: places of the points that no other beats, by rising cost."""

    measure: str
    what: str
    points: Sequence[FrontPoint]
    pareto: Sequence[int]
    figure: str

    def to_dict(self) -> dict[str, Any]:
        points = [
            {self.figure if name == "figure" else name: value for name, value in vars(point).items()}
            for point in self.points
        ]
        return {**vars(self), "points": points}


@dataclass(frozen=True)
class RunFacts:
    """A single run's figures, and how it was made."""

    side: str
    seed: Any
    figures: Mapping[str, float | None]
    commit: str | None
    machine: str | None
    command: str | None
    directory: str
    training_s: float | None


@dataclass(frozen=True)
class Protocol:
    """The fields that are equal between the runs; None where nothing but predictions is known."""

    hash: str | None = None
    sample_hash: str | None = None
    equal: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class DataFacts:
    """counted: what `truths` counts, objects or pixels."""

    images: int
    truths: int
    classes: Sequence[str]
    counted: str = "objects"

    def to_dict(self) -> dict[str, Any]:
        return {"images": self.images, self.counted: self.truths, "classes": self.classes}


@dataclass(frozen=True)
class Outcome:
    """An expectation beside the figure found here: met, missed or not here."""

    what: str
    figure: str
    ours: float | None
    ours_text: str
    theirs: float
    tolerance: float
    theirs_text: str
    outcome: str
    source: str | None


@dataclass(frozen=True)
class ImageFacts:
    """F1 of an image by side, its difference in the pair, and counts (found, false, missed) and errors by side."""

    id: Any
    file_name: str
    F1: Mapping[str, float]
    difference: float
    counts: Mapping[str, Mapping[str, int]]
    errors: Mapping[str, Mapping[str, int]]


@dataclass(frozen=True)
class MapFacts:
    """Mean IoU and pixel accuracy of an image by side, the former's difference in the pair, and counts of pixels.

    pixels: that only the first of the pair has right, only the second, neither; and that are ignored.
    """

    id: Any
    file_name: str
    mIoU: Mapping[str, float]
    pixel_accuracy: Mapping[str, float]
    difference: float
    pixels: Mapping[str, int]


@dataclass(frozen=True)
class Gallery:
    """The browser of images in figures: in how many which of the pair is better. thresholds: by side, of detectors."""

    note: str
    measure: str
    pair: Sequence[str]
    better_first: int
    better_second: int
    equal: int
    images_not_found: int
    images: Sequence[ImageFacts | MapFacts]
    thresholds: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True)
class Content:
    """The report on one head. pair: the sides that class differences and images are about. lead: the best side against
    the next, None for one side. first: what must be known before the figures. From `per_size` on: of detectors."""

    task: Task
    title: str
    head: str | None
    first: Sequence[str]
    headline: str
    caveat: str
    sentences: Sequence[str]
    notes: Sequence[str]
    data: DataFacts
    figures: Sequence[str]
    sides: Sequence[SideFacts]
    baseline: str
    best: str
    pair: Sequence[str]
    lead: Comparison | None
    differences_to_baseline: Sequence[Comparison]
    best_against_others: Sequence[Comparison]
    pairs_of_sides: int
    fronts: Mapping[str, Front]
    per_class: Sequence[ClassRow]
    training: Sequence[SideCurves]
    runs: Sequence[RunFacts]
    protocol: Protocol
    resamples: int
    failed: Sequence[str]
    expectations: Sequence[Outcome] = ()
    gallery: Gallery | None = None
    per_size: Sequence[SizeRow] = ()
    precision_recall: PrecisionRecall | None = None
    reasons: Reasons | None = None
    error_resamples: int | None = None

    @property
    def labels(self) -> list[str]:
        return [side.label for side in self.sides]

    @property
    def is_paired(self) -> bool:
        return len(self.pair) == 2
