"""How much of a figure is the luck of the test images: bootstrap over images, of one detector or of two.

Legend: I images, S resamples, C classes.

A resample draws I images with replacement; the percentiles of its mAPs are the interval. For two detectors on
the same images both are scored on the same draws, so what is common to them cancels: the interval of the
difference is much narrower than the two taken apart. Matching is done once and re-weighted by how often each
image was drawn. Efron & Tibshirani 1993, chapter 13 (percentile interval). What it does not cover: another
seed of the training.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any, Literal, get_args

import numpy as np

from evaluation.average_precision import COCO_LEVELS, FloatArray, IntArray, RankedMatches, average_precisions
from evaluation.coco import match_coco
from evaluation.files import Entry, EvaluationError, Truth, read_truth
from evaluation.voc import Difficult, Pixels, match_voc, recall_levels

Metric = Literal["voc07", "voc10", "coco", "coco50"]
Matches = Mapping[str, Sequence[RankedMatches]]  # by class: one a threshold


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
        return dict(vars(self))


def bootstrap_interval(
    truth: Truth | str | Path,
    predictions: Sequence[Entry] | str | Path,
    *,
    metric: Metric = "voc07",
    iou: float = 0.5,
    pixels: Pixels = "exact",
    difficult: Difficult = "ignore",
    classes: Sequence[str] | None = None,
    resamples: int = 1000,
    level: float = 0.95,
    seed: int = 0,
) -> Interval:
    """The interval of one predictions file's mAP; metric "coco" is AP, "coco50" AP50 (boxes).

    classes: names to average over (None: all). A class whose truths a resample missed is left out of its
    mean. iou and pixels concern the VOC metrics only. The same seed draws the same images.
    """
    truth = read_truth(truth)
    matches = _matches(truth, predictions, metric, iou, pixels, difficult)
    counts_SI = draw_counts(len(truth["images"]), resamples, seed)
    estimate, means_S = _means(_chosen(matches, classes), metric, counts_SI)
    return _interval(estimate, means_S, level, counts_SI, classes or list(matches))


def bootstrap_difference(
    truth: Truth | str | Path,
    first: Sequence[Entry] | str | Path,
    second: Sequence[Entry] | str | Path,
    *,
    metric: Metric = "voc07",
    iou: float = 0.5,
    pixels: Pixels = "exact",
    difficult: Difficult = "ignore",
    classes: Sequence[str] | None = None,
    resamples: int = 1000,
    level: float = 0.95,
    seed: int = 0,
) -> Interval:
    """The interval of second minus first, paired: both scored on the same resampled images."""
    return bootstrap_steps(
        truth,
        (first, second),
        metric=metric,
        iou=iou,
        pixels=pixels,
        difficult=difficult,
        classes=classes,
        resamples=resamples,
        level=level,
        seed=seed,
    )[0]


def bootstrap_steps(
    truth: Truth | str | Path,
    rows: Sequence[Sequence[Entry] | str | Path],
    *,
    metric: Metric = "voc07",
    iou: float = 0.5,
    pixels: Pixels = "exact",
    difficult: Difficult = "ignore",
    classes: Sequence[str] | None = None,
    resamples: int = 1000,
    level: float = 0.95,
    seed: int = 0,
) -> list[Interval]:
    """For each predictions file after the first the interval of the difference to the one before it, paired."""
    truth = read_truth(truth)
    counts_SI = draw_counts(len(truth["images"]), resamples, seed)
    sides = []
    for predictions in rows:
        matches = _matches(truth, predictions, metric, iou, pixels, difficult)
        sides.append(_means(_chosen(matches, classes), metric, counts_SI))
    return [
        _interval(second - first, second_S - first_S, level, counts_SI, classes or list(matches))
        for (first, first_S), (second, second_S) in pairwise(sides)
    ]


def draw_counts(images: int, resamples: int, seed: int) -> IntArray:
    """counts_SI: how often each image is in each resample."""
    if images < 1 or resamples < 1:
        raise EvaluationError(f"a bootstrap needs images and resamples; got {images} and {resamples}")
    random = np.random.default_rng(seed)
    return random.multinomial(images, np.full(images, 1 / images), size=resamples)


def _matches(
    truth: Truth,
    predictions: Sequence[Entry] | str | Path,
    metric: str,
    iou: float,
    pixels: Pixels,
    difficult: Difficult,
) -> Matches:
    if metric not in get_args(Metric):
        raise EvaluationError(f"unknown metric {metric!r} for a bootstrap; choose one of {', '.join(get_args(Metric))}")
    if metric == "coco":
        return match_coco(truth, predictions, difficult=difficult)
    if metric == "coco50":
        return {name: ranked[:1] for name, ranked in match_coco(truth, predictions, difficult=difficult).items()}
    ranked = match_voc(truth, predictions, iou=iou, pixels=pixels, difficult=difficult)
    return {name: [one] for name, one in ranked.items()}


def _chosen(matches: Matches, classes: Sequence[str] | None) -> Matches:
    if classes is None:
        return matches
    unknown = [name for name in classes if name not in matches]
    if unknown or not classes:
        raise EvaluationError(f"classes {unknown or list(classes)} are not in the truth; it has {', '.join(matches)}")
    return {name: matches[name] for name in classes}


def _means(matches: Matches, metric: str, counts_SI: IntArray) -> tuple[float, FloatArray]:
    """mAP (0..100) with every image once, and of each resample."""
    levels_L = COCO_LEVELS if metric.startswith("coco") else recall_levels(metric)
    once_1I = np.ones_like(counts_SI[:1])
    counts_SI = np.concatenate([once_1I, counts_SI])
    values_CS = np.stack(
        [
            np.mean([average_precisions(ranked, counts_SI, levels_L) for ranked in thresholds], axis=0)
            for thresholds in matches.values()
        ]
    )
    present_CS = ~np.isnan(values_CS)
    sums_S = np.where(present_CS, values_CS, 0.0).sum(axis=0)
    present_S = present_CS.sum(axis=0)
    means_S = 100 * np.where(present_S > 0, sums_S / np.maximum(present_S, 1), np.nan)
    return float(means_S[0]), means_S[1:]


def _interval(
    estimate: float, means_S: FloatArray, level: float, counts_SI: IntArray, classes: Sequence[str]
) -> Interval:
    if not 0 < level < 1:
        raise EvaluationError(f"a level is between 0 and 1, not {level}")
    drawn_S = means_S[~np.isnan(means_S)]
    low, high = np.quantile(drawn_S, [(1 - level) / 2, (1 + level) / 2]) if len(drawn_S) else (np.nan, np.nan)
    return Interval(
        estimate=estimate,
        low=float(low),
        high=float(high),
        level=level,
        resamples=counts_SI.shape[0],
        images=counts_SI.shape[1],
        classes=len(classes),
        above_zero=float(np.mean(drawn_S > 0)) if len(drawn_S) else float("nan"),
    )
