"""PASCAL VOC average precision: 11-point (VOC2007) and area under the monotone curve (VOC2010 on).

Legend: G truths, D detections, of all images and classes; P pairs of them that overlap enough.

The devkit's rules: a class's detections are taken best first over all images; each looks at the truth of its
image and class that it overlaps most; at IoU >= 0.5 it is a true positive if that truth is still free, a
false positive if it is taken, and left out if it is difficult (crowds are treated as difficult). Equal scores
keep the file's order, and of truths overlapped equally the first in the file counts. mAP is the mean over the
classes with truths.

Pixels, the devkit's famous +1. What a file's box means decides, not the metric:
- "exact" (default): x + width is the box's right edge. This is how this project's readers write VOC (xmin -
  1, ymin - 1, xmax - xmin + 1, ymax - ymin + 1): the width already counts both corner pixels, and the figures
  are those that the devkit computes from the XML with its +1.
- "inclusive": x + width is the last pixel inside, as in files where width = xmax - xmin; the IoU adds the +1.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, get_args

import numpy as np

from vertebra.evaluation.metrics.average_precision import (
    COCO_LEVELS,
    ELEVEN_LEVELS,
    FloatArray,
    Matched,
    average_precision,
    mean_of_known,
)
from vertebra.evaluation.metrics.files import Difficult, Entry, Truth
from vertebra.evaluation.metrics.matching import split_by_class
from vertebra.evaluation.metrics.overlaps import measure
from vertebra.ground.errors import UserError

Metric = Literal["voc07", "voc10"]
Pixels = Literal["exact", "inclusive"]


@dataclass(frozen=True)
class VocFigures:
    """VOC figures of one predictions file; AP and mAP in 0..100, NaN where there is no truth.

    per_class: AP by class name. truths: objects to be found (difficult and crowds left out). curves:
    precision (0..1) at the 101 recall levels 0, 0.01, ... 1.
    """

    metric: Metric
    iou: float
    pixels: Pixels
    difficult: Difficult
    mAP: float
    per_class: dict[str, float]
    truths: dict[str, int]
    curves: dict[str, list[float]]

    def to_dict(self) -> dict[str, Any]:
        return {**vars(self), "curves": {name: curve for name, curve in self.curves.items() if self.truths[name]}}


def voc_figures(
    truth: Truth | str | Path,
    predictions: Sequence[Entry] | str | Path,
    *,
    metric: Metric = "voc07",
    iou: float = 0.5,
    pixels: Pixels = "exact",
    difficult: Difficult = "ignore",
) -> VocFigures:
    """Return VOC AP of COCO results against COCO JSON truth (dicts or paths); see the head of the file for the
    rules.

    An empty list scores 0. Raises UserError with a sentence for files that cannot be scored.
    """
    levels_L = recall_levels(metric)
    matches = match_voc(truth, predictions, iou=iou, pixels=pixels, difficult=difficult)
    per_class = {name: 100 * average_precision(matched, levels_L) for name, matched in matches.items()}
    return VocFigures(
        metric=metric,
        iou=iou,
        pixels=pixels,
        difficult=difficult,
        mAP=mean_of_known(np.array(list(per_class.values()))),
        per_class=per_class,
        truths={name: matched.truths() for name, matched in matches.items()},
        curves={name: matched.precision_at(COCO_LEVELS).tolist() for name, matched in matches.items()},
    )


def recall_levels(metric: str) -> FloatArray | None:
    """Return the recalls at which the metric reads the curve; None for the area under it."""
    if metric not in get_args(Metric):
        raise UserError(f"unknown VOC metric {metric!r}; choose voc07 (11-point) or voc10 (area)")
    return ELEVEN_LEVELS if metric == "voc07" else None


def match_voc(
    truth: Truth | str | Path,
    predictions: Sequence[Entry] | str | Path,
    *,
    iou: float = 0.5,
    pixels: Pixels = "exact",
    difficult: Difficult = "ignore",
) -> dict[str, Matched]:
    """Match every class's detections at one IoU threshold; by class name in the truth's order."""
    if not 0 < iou <= 1:
        raise UserError(f"an IoU threshold is above 0 and at most 1, not {iou}")
    if pixels not in get_args(Pixels) or difficult not in get_args(Difficult):
        raise UserError(f"pixels is exact or inclusive, difficult is ignore or count; got {pixels!r}, {difficult!r}")
    overlaps = measure(
        truth,
        predictions,
        floor=min(iou, 1 - 1e-10),  # of equal boxes the IoU may be a rounding error below 1
        difficult=difficult,
        same_class=True,
        crowd_share=False,
        pixel=1.0 if pixels == "inclusive" else 0.0,
    )
    order_D = np.lexsort((overlaps.source_D, -overlaps.score_D, overlaps.class_D))
    best_D = np.full(len(order_D), -1, dtype=np.int64)  # the truth that each detection overlaps most
    touching, first = np.unique(overlaps.pairs.detection_P, return_index=True)
    best_D[touching] = overlaps.pairs.truth_P[first]
    left_out_D = np.append(overlaps.aside_G, False)[best_D]  # -1, no truth, is not left out
    # A detection's best truth does not depend on the others, so a truth goes to the first that touches it.
    candidates = order_D[(best_D >= 0)[order_D] & ~left_out_D[order_D]]
    _, first = np.unique(best_D[candidates], return_index=True)
    hit_D = np.zeros(len(order_D), dtype=bool)
    hit_D[candidates[first]] = True
    hit_1D, left_out_1D = (flags_D.astype(np.uint16)[None] for flags_D in (hit_D, left_out_D))
    by_class = split_by_class(overlaps, order_D, hit_1D, left_out_1D, ~overlaps.aside_G[None], thresholds=1)
    return dict(zip(overlaps.names, by_class))
