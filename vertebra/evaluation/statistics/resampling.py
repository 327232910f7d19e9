"""The figures of a run under resamples of the test images: matched once, then every figure of every resample.

Legend: I images, C classes, S resamples; row 0 of every result is the images as they are, once each.

All runs that are to be compared are given the same counts, so that what the drawn images do to all of them cancels.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from vertebra.evaluation.metrics.average_precision import (
    COCO_LEVELS,
    BoolArray,
    CountsArray,
    FloatArray,
    Matched,
    average_precision,
    average_precisions,
)
from vertebra.evaluation.metrics.coco import match_coco
from vertebra.evaluation.metrics.files import Difficult, Entry, IouType, Truth
from vertebra.evaluation.metrics.pixels import PixelCounts
from vertebra.evaluation.metrics.voc import Metric as VocMetric
from vertebra.evaluation.metrics.voc import Pixels, match_voc, recall_levels
from vertebra.evaluation.statistics.comparison import Difference, compare_sides
from vertebra.ground.errors import UserError

# Place of the area range, and of the one threshold or None for the mean over all ten.
COCO_FIGURES: dict[str, tuple[int, int | None]] = {
    "AP": (0, None),
    "AP50": (0, 0),
    "AP75": (0, 5),
    "APs": (1, None),
    "APm": (2, None),
    "APl": (3, None),
}


@dataclass(frozen=True)
class Resampled:
    """One figure of one run, 0..100: each class's and its mean over the classes, NaN without a truth.

    Row 0 is the figure of the images as they are; the others those of the resamples. shown_CI: which images have a
    truth of the class that counts for the figure.
    """

    classes: tuple[str, ...]
    per_class_SC: FloatArray
    shown_CI: BoolArray

    @property
    def mean_S(self) -> FloatArray:
        """Return the mean over the classes that a resample has truths of."""
        return class_mean(self.per_class_SC)

    @property
    def images(self) -> int:
        """Return how many images the mean rests on: those with a truth of any class."""
        return int(self.shown_CI.any(axis=0).sum())

    def of(self, name: str) -> FloatArray:
        """Return one class's figure."""
        return self.per_class_SC[:, self.classes.index(name)]

    def images_of(self, name: str) -> int:
        """Return how many images one class's figure rests on."""
        return int(self.shown_CI[self.classes.index(name)].sum())


def compare(first: Sequence[Resampled], second: Sequence[Resampled], *, of: str | None = None) -> Difference | None:
    """Return second side less first in one figure, with its interval; None where there is nothing to measure.

    A Resampled for each run of the two sides, all on the same counts. of: a class, in place of the mean over classes.
    """
    sides = (np.stack([one.mean_S if of is None else one.of(of) for one in side]) for side in (first, second))
    images = first[0].images if of is None else first[0].images_of(of)
    return compare_sides(*sides, images=images)


def class_mean(values_SC: FloatArray) -> FloatArray:
    """Return the mean over the classes that have a value, NaN where none has."""
    present_SC = ~np.isnan(values_SC)
    present_S = present_SC.sum(axis=1)
    sums_S = np.where(present_SC, values_SC, 0.0).sum(axis=1)
    return np.where(present_S > 0, sums_S / np.maximum(present_S, 1), np.nan)


def draw_counts(images: int, resamples: int, seed: int) -> CountsArray:
    """Return counts_SI: how often each image is in each resample; an image's counts side by side in memory."""
    if images < 1 or resamples < 1:
        raise UserError(f"a bootstrap needs images and resamples; got {images} and {resamples}")
    random = np.random.default_rng(seed)
    return np.ascontiguousarray(random.multinomial(images, np.full(images, 1 / images), size=resamples).T, np.float32).T


def resample_coco(
    truth: Truth | str | Path,
    predictions: Sequence[Entry] | str | Path,
    counts_SI: CountsArray,
    *,
    figures: Sequence[str] = ("AP", "AP50"),
    iou_type: IouType = "bbox",
    difficult: Difficult = "ignore",
    federated: bool = False,
) -> dict[str, Resampled]:
    """Return those of COCO_FIGURES that `figures` names, by name.

    The images' as they are are pycocotools'; a resample's are pycocotools' on a data set in which images are repeated,
    to 1e-4 points and but for recalls that are a level exactly (see `average_precisions`). Raises UserError with a
    sentence for files that cannot be scored.
    """
    unknown = [name for name in figures if name not in COCO_FIGURES]
    if unknown:
        raise UserError(f"unknown figures {unknown}; choose from {', '.join(COCO_FIGURES)}")
    sizes = any(COCO_FIGURES[name][0] for name in figures)
    matches = match_coco(truth, predictions, iou_type=iou_type, difficult=difficult, sizes=sizes, federated=federated)
    return reweigh(matches, counts_SI, {name: COCO_FIGURES[name] for name in figures}, COCO_LEVELS)


def resample_voc(
    truth: Truth | str | Path,
    predictions: Sequence[Entry] | str | Path,
    counts_SI: CountsArray,
    *,
    metric: VocMetric = "voc07",
    iou: float = 0.5,
    pixels: Pixels = "exact",
    difficult: Difficult = "ignore",
) -> Resampled:
    """Return VOC AP of each class and their mean. Raises UserError with a sentence for files that cannot be scored."""
    levels_L = recall_levels(metric)
    matches = match_voc(truth, predictions, iou=iou, pixels=pixels, difficult=difficult)
    return reweigh(matches, counts_SI, {"mAP": (0, None)}, levels_L)["mAP"]


def resample_pixels(counts: PixelCounts, classes: Sequence[str], counts_SI: CountsArray) -> dict[str, Resampled]:
    """Return the figures of segmenters, by name; a figure without classes is of all pixels."""
    shown_CI = counts.true_IC.T > 0
    any_1I = np.array([shown_CI.any(axis=0)])
    return {
        name.replace("_", " "): Resampled(tuple(classes), part_SC, shown_CI)
        if part_SC.shape[1] == len(classes)
        else Resampled(("all pixels",), part_SC, any_1I)
        for name, part_SC in counts.parts(counts_SI).items()
    }


def reweigh(
    matches: Mapping[str, Matched],
    counts_SI: CountsArray,
    figures: Mapping[str, tuple[int, int | None]],
    levels_L: FloatArray | None,
) -> dict[str, Resampled]:
    """Return figures of matches, by name. figures: each one's area range and threshold (None: mean over all)."""
    values: dict[str, FloatArray] = {name: np.zeros((1 + len(counts_SI), len(matches))) for name in figures}
    for place, matched in enumerate(matches.values()):
        for area, wanted in _by_area(figures).items():
            thresholds = [threshold for _, threshold in wanted]
            only = thresholds[0] if len(thresholds) == 1 else None  # single thresholds come with the mean over all
            bits = range(matched.thresholds) if only is None else [only]
            own_T = [average_precision(matched, levels_L, area=area, threshold=bit) for bit in bits]
            ap_ST = np.concatenate(
                [[own_T], average_precisions(matched, counts_SI, levels_L, area=area, only=only)], dtype=np.float64
            )
            for name, threshold in wanted:
                one = ap_ST.mean(axis=1) if threshold is None else ap_ST[:, bits.index(threshold)]
                values[name][:, place] = 100 * one
    shown = {area: shown_in(matches, counts_SI.shape[1], area) for area in _by_area(figures)}
    return {name: Resampled(tuple(matches), values_SC, shown[figures[name][0]]) for name, values_SC in values.items()}


def shown_in(matches: Mapping[str, Matched], images: int, area: int = 0) -> BoolArray:
    """Return shown_CI of matches: which images have a truth of each class within the area range."""
    return np.array([one.truths_AI[area] > 0 for one in matches.values()], dtype=bool).reshape(len(matches), images)


def _by_area(figures: Mapping[str, tuple[int, int | None]]) -> dict[int, list[tuple[str, int | None]]]:
    result: dict[int, list[tuple[str, int | None]]] = {}
    for name, (area, threshold) in figures.items():
        result.setdefault(area, []).append((name, threshold))
    return result
