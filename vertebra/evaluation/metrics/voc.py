"""PASCAL VOC average precision: 11-point (VOC2007) and area under the monotone curve (VOC2010 on).

Legend: I images, G truths of one class, D its detections, K pairs of a detection and a truth in one image.

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
from numpy.typing import NDArray

from vertebra.evaluation.metrics.average_precision import (
    COCO_LEVELS,
    ELEVEN_LEVELS,
    FloatArray,
    IntArray,
    RankedMatches,
    average_precision,
)
from vertebra.evaluation.metrics.files import (
    Entry,
    EvaluationError,
    Truth,
    class_names,
    none_for_nan,
    read_predictions,
    read_truth,
)

Metric = Literal["voc07", "voc10"]
Pixels = Literal["exact", "inclusive"]
Difficult = Literal["ignore", "count"]

_PAIRS_AT_ONCE = 1 << 20


@dataclass(frozen=True)
class VocFigures:
    """VOC figures of one predictions file; AP and mAP in 0..100, NaN where there is no truth.

    per_class: AP by class name. truths: objects to be found (difficult and crowds left out). curves:
    precision (0..1) at the 101 recall levels 0, 0.01, ... 1. matches: what the figures were made from.
    """

    metric: Metric
    iou: float
    pixels: Pixels
    difficult: Difficult
    mAP: float
    per_class: dict[str, float]
    truths: dict[str, int]
    curves: dict[str, list[float]]
    matches: dict[str, RankedMatches]

    def to_dict(self) -> dict[str, Any]:
        """Fit for JSON: NaN becomes null; without the matches."""
        return {
            "metric": self.metric,
            "iou": self.iou,
            "pixels": self.pixels,
            "difficult": self.difficult,
            "mAP": none_for_nan([("mAP", self.mAP)])["mAP"],
            "per_class": none_for_nan(self.per_class.items()),
            "truths": self.truths,
            "curves": {name: curve for name, curve in self.curves.items() if self.truths[name]},
        }


def voc_figures(
    truth: Truth | str | Path,
    predictions: Sequence[Entry] | str | Path,
    *,
    metric: Metric = "voc07",
    iou: float = 0.5,
    pixels: Pixels = "exact",
    difficult: Difficult = "ignore",
) -> VocFigures:
    """VOC AP of COCO results against COCO JSON truth (dicts or paths); see the head of the file for the
    rules.

    An empty list scores 0. Raises EvaluationError with a sentence for files that cannot be scored.
    """
    levels_L = recall_levels(metric)
    matches = match_voc(truth, predictions, iou=iou, pixels=pixels, difficult=difficult)
    per_class = {name: 100 * average_precision(ranked, levels_L) for name, ranked in matches.items()}
    return VocFigures(
        metric=metric,
        iou=iou,
        pixels=pixels,
        difficult=difficult,
        mAP=mean_over_classes(list(per_class.values())),
        per_class=per_class,
        truths={name: ranked.truths for name, ranked in matches.items()},
        curves={name: ranked.precision_at(COCO_LEVELS).tolist() for name, ranked in matches.items()},
        matches=matches,
    )


def recall_levels(metric: str) -> FloatArray | None:
    """Where the metric reads the curve; None for the area under it."""
    if metric not in get_args(Metric):
        raise EvaluationError(f"unknown VOC metric {metric!r}; choose voc07 (11-point) or voc10 (area)")
    return ELEVEN_LEVELS if metric == "voc07" else None


def mean_over_classes(values: Sequence[float]) -> float:
    """Mean of the values that are not NaN; NaN where there is none."""
    present = [value for value in values if not np.isnan(value)]
    return float(np.mean(present)) if present else float("nan")


def match_voc(
    truth: Truth | str | Path,
    predictions: Sequence[Entry] | str | Path,
    *,
    iou: float = 0.5,
    pixels: Pixels = "exact",
    difficult: Difficult = "ignore",
) -> dict[str, RankedMatches]:
    """Every class's detections matched at one IoU threshold, by class name in the truth's order."""
    if not 0 < iou <= 1:
        raise EvaluationError(f"an IoU threshold is above 0 and at most 1, not {iou}")
    if pixels not in get_args(Pixels) or difficult not in get_args(Difficult):
        raise EvaluationError(
            f"pixels is exact or inclusive, difficult is ignore or count; got {pixels!r}, {difficult!r}"
        )
    truth = read_truth(truth)
    predictions = read_predictions(predictions, truth)
    place = {image["id"]: index for index, image in enumerate(truth["images"])}
    truths_of = _by_category(truth["annotations"])
    detections_of = _by_category(predictions)
    matches = {}
    for category_id, name in class_names(truth).items():
        objects = truths_of.get(category_id, [])
        detections = detections_of.get(category_id, [])
        matches[name] = _match_class(
            truth_boxes_G4=_boxes(objects, pixels),
            truth_image_G=_images(objects, place),
            ignored_G=np.array([_is_ignored(entry, difficult) for entry in objects], dtype=bool),
            boxes_D4=_boxes(detections, pixels),
            image_D=_images(detections, place),
            scores_D=np.array([entry["score"] for entry in detections], dtype=np.float64),
            images=len(place),
            iou=iou,
        )
    return matches


def _by_category(entries: Sequence[Entry]) -> dict[int, list[Entry]]:
    groups: dict[int, list[Entry]] = {}
    for entry in entries:
        groups.setdefault(entry["category_id"], []).append(entry)
    return groups


def _is_ignored(entry: Entry, difficult: Difficult) -> bool:
    return bool(entry.get("iscrowd", 0)) or (difficult == "ignore" and bool(entry.get("difficult", 0)))


def _boxes(entries: Sequence[Entry], pixels: Pixels) -> FloatArray:
    """x0 y0 x1 y1 with x1 - x0 the width that counts."""
    boxes_K4 = np.array([entry["bbox"] for entry in entries], dtype=np.float64).reshape(-1, 4)
    boxes_K4[:, 2:] += boxes_K4[:, :2] + (1.0 if pixels == "inclusive" else 0.0)
    return boxes_K4


def _images(entries: Sequence[Entry], place: dict[int, int]) -> IntArray:
    return np.array([place[entry["image_id"]] for entry in entries], dtype=np.int64)


def _match_class(
    *,
    truth_boxes_G4: FloatArray,
    truth_image_G: IntArray,
    ignored_G: NDArray[np.bool_],
    boxes_D4: FloatArray,
    image_D: IntArray,
    scores_D: FloatArray,
    images: int,
    iou: float,
) -> RankedMatches:
    order_D = np.argsort(-scores_D, kind="stable")
    boxes_D4, image_D, scores_D = boxes_D4[order_D], image_D[order_D], scores_D[order_D]
    truths_I = np.bincount(truth_image_G[~ignored_G], minlength=images)
    if not len(truth_boxes_G4) or not len(boxes_D4):
        return RankedMatches(np.zeros(len(boxes_D4), dtype=bool), image_D, scores_D, truths_I)
    best_iou_D, best_truth_D = _best_truth(boxes_D4, image_D, truth_boxes_G4, truth_image_G)
    touches_D = best_iou_D >= iou
    left_out_D = touches_D & ignored_G[best_truth_D]
    # A detection's best truth does not depend on the others, so a truth goes to the first that touches it.
    candidates = np.flatnonzero(touches_D & ~left_out_D)
    _, first = np.unique(best_truth_D[candidates], return_index=True)
    hit_D = np.zeros(len(boxes_D4), dtype=bool)
    hit_D[candidates[first]] = True
    keep_D = ~left_out_D
    return RankedMatches(hit_D[keep_D], image_D[keep_D], scores_D[keep_D], truths_I)


def _best_truth(
    boxes_D4: FloatArray, image_D: IntArray, truth_boxes_G4: FloatArray, truth_image_G: IntArray
) -> tuple[FloatArray, IntArray]:
    """The highest IoU of each detection with a truth of its image, and that truth (the first of equals)."""
    order_G = np.argsort(truth_image_G, kind="stable")
    sorted_image_G = truth_image_G[order_G]
    start_D = np.searchsorted(sorted_image_G, image_D, side="left")
    count_D = np.searchsorted(sorted_image_G, image_D, side="right") - start_D
    best_iou_D = np.full(len(boxes_D4), -np.inf)
    best_truth_D = np.zeros(len(boxes_D4), dtype=np.int64)
    with_truth = np.flatnonzero(count_D)
    # So many detections at a time that their pairs fit in memory, however crowded the images.
    parts = np.flatnonzero(np.diff(np.cumsum(count_D[with_truth]) // _PAIRS_AT_ONCE, prepend=0))
    for rows in np.split(with_truth, parts):
        if not len(rows):
            continue
        count = count_D[rows]
        begin = np.cumsum(count) - count
        detection_K = np.repeat(rows, count)
        truth_K = order_G[np.repeat(start_D[rows] - begin, count) + np.arange(count.sum())]
        iou_K = _paired_iou(boxes_D4[detection_K], truth_boxes_G4[truth_K])
        best_iou_D[rows] = np.maximum.reduceat(iou_K, begin)
        is_best = np.flatnonzero(iou_K == best_iou_D[detection_K])
        reached, first = np.unique(detection_K[is_best], return_index=True)
        best_truth_D[reached] = truth_K[is_best[first]]
    return best_iou_D, best_truth_D


def _paired_iou(first_K4: FloatArray, second_K4: FloatArray) -> FloatArray:
    overlap_K2 = np.minimum(first_K4[:, 2:], second_K4[:, 2:]) - np.maximum(first_K4[:, :2], second_K4[:, :2])
    overlap_K = np.clip(overlap_K2, 0, None).prod(axis=1)
    areas_K = (first_K4[:, 2:] - first_K4[:, :2]).prod(axis=1) + (second_K4[:, 2:] - second_K4[:, :2]).prod(axis=1)
    union_K = areas_K - overlap_K
    return np.divide(overlap_K, union_K, out=np.zeros_like(overlap_K), where=union_K > 0)
