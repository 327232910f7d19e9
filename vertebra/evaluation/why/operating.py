"""Right and wrong detections at IoU 0.5 as COCO matches them, and the score from which to show them."""

from __future__ import annotations

import numpy as np

from vertebra.evaluation.metrics.average_precision import BoolArray, FloatArray, IntArray
from vertebra.evaluation.metrics.matching import take_wanted_first
from vertebra.evaluation.metrics.overlaps import Overlaps

IOU = 0.5


def hits(overlaps: Overlaps) -> tuple[IntArray, BoolArray]:
    """Return taken_D, each detection's truth or -1, and counted_D: not on a crowd or an ignored difficult object."""
    taken_D, overlooked_D = take_wanted_first(overlaps, overlaps.matchable(IOU), ~overlaps.aside_G)
    return taken_D, ~overlooked_D


def best_score(overlaps: Overlaps) -> float:
    """Return the score from which F1 over all images and classes is highest; 0.5 where nothing is right."""
    taken_D, counted_D = hits(overlaps)
    return best_of(overlaps.score_D[counted_D], taken_D[counted_D] >= 0, int((~overlaps.aside_G).sum()))


def best_of(score_N: FloatArray, right_N: BoolArray, wanted: int) -> float:
    """Return the score from which F1 of these detections, which all count, is highest; 0.5 where none is right.

    wanted: how many truths there are to find. Equal scores come or go together.
    """
    if not right_N.any():
        return 0.5
    order_N = np.argsort(-score_N, kind="stable")
    score_N, right_N = score_N[order_N], right_N[order_N]
    f1_N = 2 * np.cumsum(right_N) / (np.arange(1, len(score_N) + 1) + wanted)
    last_of_equals_N = np.append(score_N[1:] != score_N[:-1], True)
    return float(score_N[np.argmax(np.where(last_of_equals_N, f1_N, -1.0))])
