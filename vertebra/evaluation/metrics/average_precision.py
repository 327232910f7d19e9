"""Average precision from matched detections: the one computation under VOC's and COCO's figures.

Legend: I images, D detections of one class (best first, ignored ones left out), P true positives among them,
L recall levels.

Only true positives are looked at, since a curve's upper envelope has all its corners there. Resampled images are
`vertebra.evaluation.statistics.reweighting`'s.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

BoolArray = NDArray[np.bool_]
IntArray = NDArray[np.int64]
FloatArray = NDArray[np.float64]

# As the devkit's Python successors write them; 0.3, 0.6 and 0.7 come out a rounding error above the decimal,
# so a recall of exactly 3 in 10 does not reach the level 0.3. Kept, as every published 11-point figure has
# it.
ELEVEN_LEVELS: FloatArray = np.linspace(0.0, 1.0, 11)
COCO_LEVELS: FloatArray = np.linspace(0.0, 1.0, 101)


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

    def envelope(self) -> tuple[FloatArray, FloatArray]:
        """Recall and best precision from there on (0..1), at each true positive."""
        recall_D, precision_D = self.curve()
        hits_P = np.flatnonzero(self.hit_D) if self.truths else np.zeros(0, dtype=np.int64)
        return recall_D[hits_P], np.maximum.accumulate(precision_D[hits_P][::-1])[::-1]

    def precision_at(self, levels_L: FloatArray) -> FloatArray:
        """Best precision (0..1) at or beyond each recall level; NaN where the class has no truth."""
        if not self.truths:
            return np.full(len(levels_L), np.nan)
        recall_P, best_P = self.envelope()
        return np.append(best_P, 0.0)[np.searchsorted(recall_P, levels_L, side="left")]


def average_precision(matches: RankedMatches, levels_L: FloatArray | None) -> float:
    """AP in 0..1: the mean of the precision at `levels_L`, or the area under the envelope where that is None.

    NaN where the class has no truth.
    """
    if not matches.truths:
        return float("nan")
    if levels_L is not None:
        return float(matches.precision_at(levels_L).mean())
    recall_P, best_P = matches.envelope()
    return float((np.diff(recall_P, prepend=0.0) * best_P).sum())
