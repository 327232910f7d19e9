"""What every detection of a side is, and how well the side does in each image: what the browser of images shows.

The verdicts are those of `why.errors` (TIDE's kinds at IoU 0.5, the 100 best detections of an image). The AP
figures do not come from here (they are COCO's and VOC's); this is one operating point, the score threshold.

Legend: I images in the truth's order, D detections by image and falling score, G truths in the file's order.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from vertebra.evaluation.metrics.average_precision import BoolArray, FloatArray, IntArray
from vertebra.evaluation.metrics.files import Entry
from vertebra.evaluation.metrics.overlaps import Overlaps, measure
from vertebra.evaluation.why import errors
from vertebra.evaluation.why.operating import best_of

MATCH_IOU = 0.5
BACKGROUND_IOU = 0.1
SCORE_DIGITS = 4  # of the scores that are shown, compared and cut at: the page has no others
KINDS = ("right", *errors.KINDS[:-1], "excused")  # errors.KINDS ends with "missed", which no detection is
RIGHT, EXCUSED = KINDS.index("right"), KINDS.index("excused")


@dataclass(frozen=True)
class Side:
    """A side's detections: their place in `predictions`, score (rounded) and verdict, and its best score threshold.

    kind_D: a place in KINDS; truth_D: the truth that a detection takes or is about, -1 for none. Matches are greedy by
    score, so that verdicts stay what they are at any score threshold.
    """

    name: str
    predictions: Sequence[Entry]
    image_D: IntArray
    source_D: IntArray
    score_D: FloatArray
    kind_D: IntArray
    truth_D: IntArray
    wanted_I: IntArray
    threshold: float

    @property
    def wrong_D(self) -> BoolArray:
        return (self.kind_D != RIGHT) & (self.kind_D != EXCUSED)

    def counts_3I(self, threshold: float | None = None) -> IntArray:
        """(found, false, missed) of each image among detections with score >= threshold (none: the side's own)."""
        shown_D = self.score_D >= (self.threshold if threshold is None else threshold)
        found_I = self._per_image(shown_D & (self.kind_D == RIGHT))
        return np.stack([found_I, self._per_image(shown_D & self.wrong_D), self.wanted_I - found_I])

    def kinds_KI(self) -> IntArray:
        """How many detections of each kind each image has, from the side's own threshold on."""
        shown_D = self.score_D >= self.threshold
        return np.stack([self._per_image(shown_D & (self.kind_D == kind)) for kind in range(len(KINDS))])

    def f1_I(self, threshold: float | None = None) -> FloatArray:
        """2 TP / (2 TP + FP + FN) on a 0-100 scale; 100 where there is nothing to find and nothing was found."""
        found_I, false_I, missed_I = self.counts_3I(threshold)
        asked_I = 2 * found_I + false_I + missed_I
        return np.where(asked_I > 0, 200.0 * found_I / np.maximum(asked_I, 1), 100.0)

    def f1(self) -> float:
        """F1 over all images together, at the side's own threshold."""
        found, false, missed = self.counts_3I().sum(axis=1)
        return float(200.0 * found / max(1, 2 * found + false + missed))

    def _per_image(self, chosen_D: BoolArray) -> IntArray:
        return np.bincount(self.image_D[chosen_D], minlength=len(self.wanted_I))


def judge_side(name: str, truth: dict[str, Any], predictions: Sequence[Entry]) -> Side:
    """The verdicts on checked predictions, and the score from which F1 over all images is highest.

    Each detector gets its own threshold, because detectors are calibrated differently and one score for all favours
    one of them.
    """
    overlaps = measure(truth, predictions, floor=BACKGROUND_IOU)
    overlaps = overlaps.first(overlaps.place_D, errors.MOST)
    verdicts = errors.judge(overlaps, iou=MATCH_IOU, background=BACKGROUND_IOU)
    kind_D = np.where(verdicts.excused_D, EXCUSED, verdicts.kind_D - errors.RIGHT)
    score_D = np.round(overlaps.score_D, SCORE_DIGITS)
    counted_D = kind_D != EXCUSED
    wanted_G = ~overlaps.aside_G
    return Side(
        name,
        predictions,
        image_D=overlaps.image_D,
        source_D=overlaps.source_D,
        score_D=score_D,
        kind_D=kind_D,
        truth_D=np.where(verdicts.excused_D, -1, verdicts.truth_D),
        wanted_I=_wanted(overlaps, wanted_G),
        threshold=best_of(score_D[counted_D], kind_D[counted_D] == RIGHT, int(wanted_G.sum())),
    )


def _wanted(overlaps: Overlaps, wanted_G: BoolArray) -> IntArray:
    return np.bincount(overlaps.image_G[wanted_G], minlength=overlaps.images)
