"""Boundary F1 of semantic maps: do outlines lie where they should, whatever their areas (after Csurka et al. 2013)?

A class's outline is those of its pixels that have another class, or none, above, below or beside them. Precision is the
share of the answer's outline within a tolerance of the truth's, recall that of the truth's within it of the answer's.

Legend: H W height and width of an image.
"""

from __future__ import annotations

import math

import cv2
import numpy as np
from numpy.typing import NDArray

from vertebra.ground.labels import IGNORED

TOLERANCE = 0.0075  # of the image's diagonal


def boundary_f1(labels_HW: NDArray[np.uint8], found_HW: NDArray[np.uint8]) -> float:
    """Return the mean F1, 0..100, over the classes that labelled pixels have in truth or answer; NaN without any.

    The answer's outline on ignored pixels is not punished, and finds the truth's as any other.
    """
    tolerance = TOLERANCE * math.hypot(*labels_HW.shape)
    counted_HW = labels_HW != IGNORED
    classes = np.union1d(labels_HW[counted_HW], found_HW[counted_HW])
    scores = []
    for label in classes[classes != IGNORED]:
        true_HW, given_HW = _outline(labels_HW == label), _outline(found_HW == label)
        precision = _share_near(given_HW & counted_HW, true_HW, tolerance)
        recall = _share_near(true_HW, given_HW, tolerance)
        scores.append(2 * precision * recall / (precision + recall) if precision + recall else 0.0)
    return 100 * float(np.mean(scores)) if scores else math.nan


def _outline(inside_HW: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Return the pixels inside with a neighbour outside; the image's own edge is no outline."""
    padded_HW = np.pad(inside_HW, 1, mode="edge")
    neighbours = (padded_HW[:-2, 1:-1], padded_HW[2:, 1:-1], padded_HW[1:-1, :-2], padded_HW[1:-1, 2:])
    return inside_HW & ~np.logical_and.reduce(neighbours)


def _share_near(points_HW: NDArray[np.bool_], others_HW: NDArray[np.bool_], tolerance: float) -> float:
    """Return the share of points that have one of the others within the tolerance, pixels; 1 where there are none."""
    if not points_HW.any():
        return 1.0
    if not others_HW.any():
        return 0.0
    distances_HW = cv2.distanceTransform((~others_HW).astype(np.uint8), cv2.DIST_L2, cv2.DIST_MASK_PRECISE)
    return float((distances_HW[points_HW] <= tolerance).mean())
