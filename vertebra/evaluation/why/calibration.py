"""Does a score of 0.7 mean right in 7 of 10? Reliability of the scores at IoU 0.5.

ECE is the mean distance of score and precision over ten bins of score, each weighted by its detections (Naeini, Cooper,
Hauskrecht 2015; for detections Küppers, Kronenberger, Shantia, Haselhoff 2020, "Multivariate Confidence Calibration
for Object Detection"). D-ECE, of the latter, bins by the place and size of the box in its image as well (five bins
each); bins of fewer than eight detections say nothing and are left out. Right is what COCO calls right; a detection on
a crowd or an ignored difficult object does not count.

Legend: D detections, N those that count, B bins.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from vertebra.evaluation.metrics.average_precision import BoolArray, FloatArray, IntArray
from vertebra.evaluation.metrics.files import Predictions, Truth
from vertebra.evaluation.metrics.overlaps import Overlaps
from vertebra.evaluation.why.operating import hits

BINS = 10
BOX_BINS = 5
FEWEST = 8


@dataclass(frozen=True)
class Bin:
    """Detections with low <= score < high (the last bin has its upper end too): how many, mean score, precision."""

    low: float
    high: float
    detections: int
    score: float
    precision: float


@dataclass(frozen=True)
class Calibration:
    """ece, d_ece and per class, 0..100; NaN where there is nothing to say. score, precision: means, 0..1.

    d_ece_share: the part of the detections in the bins that D-ECE uses, 0..1.
    """

    detections: int
    score: float
    precision: float
    ece: float
    d_ece: float
    d_ece_share: float
    bins: list[Bin]
    per_class: dict[str, tuple[int, float]]

    def to_dict(self) -> dict[str, Any]:
        per_class = {name: {"detections": n, "ece": value} for name, (n, value) in self.per_class.items()}
        return {**vars(self), "per_class": per_class}


def calibration(overlaps: Overlaps, truth: Truth, predictions: Predictions) -> Calibration | None:
    """Return how reliable all scores are; None where they are no probabilities (outside 0..1)."""
    if len(overlaps.score_D) and not (overlaps.score_D.min() >= 0 and overlaps.score_D.max() <= 1):
        return None
    taken_D, counted_D = hits(overlaps)
    score_N, right_N, class_N = overlaps.score_D[counted_D], taken_D[counted_D] >= 0, overlaps.class_D[counted_D]
    place_N = _bin(score_N, BINS)
    count_B, score_B, right_B = _sums(place_N, score_N, right_N, BINS)
    known_B = np.maximum(count_B, 1)
    bins = [
        Bin(b / BINS, (b + 1) / BINS, int(n), score / known if n else np.nan, right / known if n else np.nan)
        for b, (n, known, score, right) in enumerate(zip(count_B, known_B, score_B, right_B))
    ]
    classes = len(overlaps.names)
    table_KB = [
        part.reshape(classes, BINS) for part in _sums(class_N * BINS + place_N, score_N, right_N, classes * BINS)
    ]
    per_class = {
        name: (int(table_KB[0][k].sum()), _error(table_KB[0][k], table_KB[1][k], table_KB[2][k])[0])
        for k, name in enumerate(overlaps.names)
    }
    d_ece, share = _with_boxes(overlaps, truth, predictions, counted_D, score_N, right_N)
    total = len(score_N)
    return Calibration(
        total,
        float(score_N.mean()) if total else float("nan"),
        float(right_N.mean()) if total else float("nan"),
        _error(count_B, score_B, right_B)[0],
        d_ece,
        share,
        bins,
        per_class,
    )


def _with_boxes(
    overlaps: Overlaps,
    truth: Truth,
    predictions: Predictions,
    counted_D: BoolArray,
    score_N: FloatArray,
    right_N: BoolArray,
) -> tuple[float, float]:
    """Return D-ECE and the share of the detections that it uses; NaN where sizes of images or boxes are not known."""
    if not all(image.get("width") and image.get("height") for image in truth["images"]):
        return float("nan"), float("nan")
    if predictions.xywh_K4 is None:
        return float("nan"), float("nan")
    size_I2 = np.array([[image["width"], image["height"]] for image in truth["images"]]).reshape(-1, 2)
    boxes_N4, size_N2 = predictions.xywh_K4[overlaps.source_D[counted_D]], size_I2[overlaps.image_D[counted_D]]
    centre_N2 = (boxes_N4[:, :2] + boxes_N4[:, 2:] / 2) / size_N2
    place_N = _bin(score_N, BOX_BINS)
    for values_N in (*centre_N2.T, *(boxes_N4[:, 2:] / size_N2).T):
        place_N = place_N * BOX_BINS + _bin(values_N, BOX_BINS)
    return _error(*_sums(place_N, score_N, right_N, BOX_BINS**5), fewest=FEWEST)


def _bin(values_N: FloatArray, bins: int) -> IntArray:
    return np.clip((values_N * bins).astype(np.int64), 0, bins - 1)


def _sums(
    place_N: IntArray, score_N: FloatArray, right_N: BoolArray, bins: int
) -> tuple[IntArray, FloatArray, FloatArray]:
    """Return each bin's number of detections, the sum of their scores, and how many are right."""
    return (
        np.bincount(place_N, minlength=bins).astype(np.int64),
        np.bincount(place_N, score_N, minlength=bins).astype(np.float64),
        np.bincount(place_N, right_N.astype(np.float64), minlength=bins).astype(np.float64),
    )


def _error(count_B: IntArray, score_B: FloatArray, right_B: FloatArray, fewest: int = 1) -> tuple[float, float]:
    """Return the bins' weighted mean of |score - precision| (0..100), and the share of the detections in them."""
    used_B = count_B >= fewest
    used = int(count_B[used_B].sum())
    if not used:
        return float("nan"), 0.0
    return 100 * float(np.abs(score_B - right_B)[used_B].sum()) / used, used / int(count_B.sum())
