"""Average precision from matched detections: the one computation under VOC's and COCO's figures.

Legend: I images, D detections of one class (best first, ignored ones left out), P true positives among them,
S resamples of the images, L recall levels.

A resample is a count for each image (how often it was drawn), so matching is done once and a thousand
resamples are a weighted cumulative sum. Counts of one give the plain figure. Only true positives are looked
at, since a curve's upper envelope has all its corners there.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

IntArray = NDArray[np.int64]
FloatArray = NDArray[np.float64]

# As the devkit's Python successors write them; 0.3, 0.6 and 0.7 come out a rounding error above the decimal,
# so a recall of exactly 3 in 10 does not reach the level 0.3. Kept, as every published 11-point figure has
# it.
ELEVEN_LEVELS: FloatArray = np.linspace(0.0, 1.0, 11)
COCO_LEVELS: FloatArray = np.linspace(0.0, 1.0, 101)

_CHUNK = 1 << 22  # elements of one (S, D) array: 32 MB at 8 bytes


@dataclass(frozen=True)
class RankedMatches:
    """One class's detections after matching at one IoU threshold, best first.

    hit_D: bool, true positive (otherwise false positive). image_D: place of its image among the I images.
    scores_D: float. truths_I: truths to be found in each image (ignored ones not counted).
    """

    hit_D: NDArray[np.bool_]
    image_D: IntArray
    scores_D: FloatArray
    truths_I: IntArray

    @property
    def truths(self) -> int:
        return int(self.truths_I.sum())

    def curve(self) -> tuple[FloatArray, FloatArray]:
        """recall_D and precision_D (0..1) after each detection; empty where the class has no truth."""
        if not self.truths:
            return np.zeros(0), np.zeros(0)
        found_D = np.cumsum(self.hit_D)
        return found_D / self.truths, found_D / np.arange(1, len(self.hit_D) + 1)

    def precision_at(self, levels_L: FloatArray) -> FloatArray:
        """Best precision (0..1) at or beyond each recall level; NaN where the class has no truth."""
        if not self.truths:
            return np.full(len(levels_L), np.nan)
        recall_1P, precision_1P = _envelope(self, np.ones((1, len(self.truths_I)), dtype=np.int64))
        return _at_levels(recall_1P, precision_1P, levels_L)[0]


def average_precision(matches: RankedMatches, levels_L: FloatArray | None) -> float:
    """AP in 0..1: the mean of the precision at `levels_L`, or the area under the envelope where that is None.

    NaN where the class has no truth.
    """
    return float(average_precisions(matches, np.ones((1, len(matches.truths_I)), dtype=np.int64), levels_L)[0])


def average_precisions(matches: RankedMatches, counts_SI: IntArray, levels_L: FloatArray | None) -> FloatArray:
    """AP_S in 0..1 of each resample, NaN where it has no truth; counts_SI: how often each image is in it."""
    step = max(1, _CHUNK // max(1, len(matches.hit_D)))
    parts = [
        _average_precisions(matches, counts_SI[start : start + step], levels_L)
        for start in range(0, len(counts_SI), step)
    ]
    return np.concatenate(parts) if parts else np.zeros(0)


def _average_precisions(matches: RankedMatches, counts_SI: IntArray, levels_L: FloatArray | None) -> FloatArray:
    recall_SP, precision_SP = _envelope(matches, counts_SI)
    if levels_L is None:
        value_S = (np.diff(recall_SP, axis=1, prepend=0.0) * precision_SP).sum(axis=1)
    else:
        value_S = _at_levels(recall_SP, precision_SP, levels_L).mean(axis=1)
    return np.where(counts_SI @ matches.truths_I > 0, value_S, np.nan)


def _envelope(matches: RankedMatches, counts_SI: IntArray) -> tuple[FloatArray, FloatArray]:
    """Recall and best precision from there on, at each true positive."""
    hits_P = np.flatnonzero(matches.hit_D)
    last = int(hits_P[-1]) + 1 if len(hits_P) else 0
    weight_SD = counts_SI.astype(np.int32)[:, matches.image_D[:last]]
    found_SP = np.cumsum(weight_SD[:, hits_P], axis=1, dtype=np.int64)
    seen_SP = np.cumsum(weight_SD, axis=1, dtype=np.int32)[:, hits_P]
    precision_SP = found_SP / np.maximum(seen_SP, 1)
    best_SP = np.maximum.accumulate(precision_SP[:, ::-1], axis=1)[:, ::-1]
    truths_S = np.maximum(counts_SI @ matches.truths_I, 1)
    return found_SP / truths_S[:, None], best_SP


def _at_levels(recall_SP: FloatArray, best_SP: FloatArray, levels_L: FloatArray) -> FloatArray:
    padded_SP = np.concatenate([best_SP, np.zeros((len(best_SP), 1))], axis=1)
    place_SL = np.stack([np.searchsorted(recall_P, levels_L, side="left") for recall_P in recall_SP])
    return np.take_along_axis(padded_SP, place_SL, axis=1)
