"""How much of a figure is the luck of the test images: bootstrap over images, of one detector or of two.

Legend: I images, S resamples.

A resample draws I images with replacement; the percentiles of its mAPs are the interval. For two detectors on
the same images both are scored on the same draws, so what is common to them cancels: the interval of the
difference is much narrower than the two taken apart. Efron & Tibshirani 1993, chapter 13 (percentile interval).
What it does not cover: another seed of the training; several seeds a side are `statistics.comparison`'s.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any, Literal, get_args

import numpy as np

from vertebra.evaluation.metrics.average_precision import FloatArray, IntArray
from vertebra.evaluation.metrics.files import Entry, EvaluationError, Truth, class_names, none_for_nan, read_truth
from vertebra.evaluation.metrics.voc import Difficult, Pixels
from vertebra.evaluation.statistics.resampling import Resampled, draw_counts, resample_coco, resample_voc

Metric = Literal["voc07", "voc10", "coco", "coco50"]
COCO_NAMES = {"coco": "AP", "coco50": "AP50"}


@dataclass(frozen=True)
class Interval:
    """A figure (0..100) on the images as they are, and the percentile interval of its resamples.

    For a difference `estimate` is second minus first, and `above_zero` the share of the resamples above 0.
    """

    estimate: float
    low: float
    high: float
    level: float
    resamples: int
    images: int
    classes: int
    above_zero: float

    def to_dict(self) -> dict[str, Any]:
        """Fit for JSON: NaN, of figures without a truth, becomes null."""
        return dict(none_for_nan(vars(self).items()))


@dataclass(frozen=True)
class Bootstrap:
    """What is scored and how it is resampled: the options of every bootstrap here. Raises EvaluationError.

    metric: "coco" is AP, "coco50" AP50 (boxes). iou and pixels concern the VOC metrics only. classes: names to average
    over (None: all); a class whose truths a resample missed is left out of its mean. The same seed draws the same
    images. level: of the interval.
    """

    metric: Metric = "voc07"
    iou: float = 0.5
    pixels: Pixels = "exact"
    difficult: Difficult = "ignore"
    classes: Sequence[str] | None = None
    resamples: int = 1000
    level: float = 0.95
    seed: int = 0

    def __post_init__(self) -> None:
        known = get_args(Metric)
        if self.metric not in known:
            raise EvaluationError(f"unknown metric {self.metric!r} for a bootstrap; choose one of {', '.join(known)}")
        if not 0 < self.level < 1:
            raise EvaluationError(f"a level is between 0 and 1, not {self.level}")

    def counts(self, truth: Truth) -> IntArray:
        """counts_SI of the images that each resample draws."""
        return draw_counts(len(truth["images"]), self.resamples, self.seed)

    def figures(self, truth: Truth, predictions: Sequence[Entry] | str | Path, counts_SI: IntArray) -> Resampled:
        """The metric of one predictions file on the images as they are and on each resample."""
        known = list(class_names(truth).values())
        unknown = [name for name in self.classes or () if name not in known]
        if unknown or (self.classes is not None and not self.classes):
            raise EvaluationError(f"classes {unknown or self.classes} are not in the truth; it has {', '.join(known)}")
        if self.metric == "voc07" or self.metric == "voc10":
            rules: Any = {"metric": self.metric, "iou": self.iou, "pixels": self.pixels, "difficult": self.difficult}
            return resample_voc(truth, predictions, counts_SI, **rules).restricted(self.classes)
        name = COCO_NAMES[self.metric]
        told = resample_coco(truth, predictions, counts_SI, figures=[name], difficult=self.difficult)
        return told[name].restricted(self.classes)


def bootstrap_interval(
    truth: Truth | str | Path, predictions: Sequence[Entry] | str | Path, **options: Any
) -> Interval:
    """The interval of one predictions file's mAP; options: the fields of Bootstrap."""
    how, truth = Bootstrap(**options), read_truth(truth)
    counts_SI = how.counts(truth)
    values = how.figures(truth, predictions, counts_SI)
    return _interval(values.mean_S, how.level, counts_SI, values.classes)


def bootstrap_difference(
    truth: Truth | str | Path,
    first: Sequence[Entry] | str | Path,
    second: Sequence[Entry] | str | Path,
    **options: Any,
) -> Interval:
    """The interval of second minus first, paired: both scored on the same resampled images. options: as above."""
    return bootstrap_steps(truth, (first, second), **options)[0]


def bootstrap_steps(
    truth: Truth | str | Path, rows: Sequence[Sequence[Entry] | str | Path], **options: Any
) -> list[Interval]:
    """For each predictions file after the first the interval of the difference to the one before it, paired."""
    how, truth = Bootstrap(**options), read_truth(truth)
    counts_SI = how.counts(truth)
    values = [how.figures(truth, predictions, counts_SI) for predictions in rows]
    return [
        _interval(after.mean_S - before.mean_S, how.level, counts_SI, after.classes)
        for before, after in pairwise(values)
    ]


def _interval(means_S: FloatArray, level: float, counts_SI: IntArray, classes: Sequence[str]) -> Interval:
    drawn_S = means_S[1:][~np.isnan(means_S[1:])]
    low, high = np.quantile(drawn_S, [(1 - level) / 2, (1 + level) / 2]) if len(drawn_S) else (np.nan, np.nan)
    return Interval(
        estimate=float(means_S[0]),
        low=float(low),
        high=float(high),
        level=level,
        resamples=counts_SI.shape[0],
        images=counts_SI.shape[1],
        classes=len(classes),
        above_zero=float(np.mean(drawn_S > 0)) if len(drawn_S) else float("nan"),
    )
