"""Figures of semantic segmentation from counts of pixels: mean IoU and its relatives, also under resampled images.

Legend: I images, C classes, S resamples (row 0: the images as they are).

An image is kept as three counts for each class: pixels that are right, that were given it, that have it in truth. IoU
is a ratio of sums over the images (Everingham et al. 2015, §3.3), so a resample sums anew and divides.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vertebra.ground.labels import IGNORED


def confusion(labels_HW: NDArray[np.uint8], found_HW: NDArray[np.uint8], classes: int) -> NDArray[np.int64]:
    """Return how many pixels of each true class (row) were given each class (column); ignored ones are left out."""
    counted = labels_HW != IGNORED
    places = labels_HW[counted].astype(np.int64) * classes + found_HW[counted]
    return np.bincount(places, minlength=classes**2).reshape(classes, classes)


@dataclass(frozen=True)
class PixelCounts:
    """right_IC, given_IC, true_IC: pixels of each image and class that count."""

    right_IC: NDArray[np.int64]
    given_IC: NDArray[np.int64]
    true_IC: NDArray[np.int64]

    @classmethod
    def of(cls, rows: Sequence[NDArray[np.int64]]) -> PixelCounts:
        """Stack each image's counts_3C."""
        counts_I3C = np.stack(rows)
        return cls(counts_I3C[:, 0], counts_I3C[:, 1], counts_I3C[:, 2])

    def iou_SC(self, counts_SI: NDArray[np.float32] | None = None) -> NDArray[np.float64]:
        """Return each class's IoU, 0..100, of the images as they are and of resamples; NaN where no pixel has it.

        A class without a true pixel that some pixel was given has the IoU 0.
        """
        right_SC, given_SC, true_SC = self._sums(counts_SI)
        return ratio(right_SC, given_SC + true_SC - right_SC)

    def figures(self) -> dict[str, float]:
        """Return the means of `parts` over the images as they are, NaN where there is nothing to measure."""
        known = {name: part_SC[0][np.isfinite(part_SC[0])] for name, part_SC in self.parts().items()}
        return {name: float(part.mean()) if len(part) else float("nan") for name, part in known.items()}

    def parts(self, counts_SI: NDArray[np.float32] | None = None) -> dict[str, NDArray[np.float64]]:
        """Return what each figure is the mean of over its columns, NaN left out, of the images and of resamples.

        mIoU and mean accuracy have a column for each class; pixel accuracy and fwIoU, IoU weighted by how many pixels
        truly are of the class, have one. A resample that has lost all pixels of a class leaves it out.
        """
        right_SC, given_SC, true_SC = self._sums(counts_SI)
        iou_SC = ratio(right_SC, given_SC + true_SC - right_SC)
        iou_SC[(true_SC == 0) & (true_SC[0] > 0)] = np.nan
        true_S1 = true_SC.sum(axis=1, keepdims=True)
        weighted_SC = np.where(true_SC > 0, iou_SC, 0.0) * true_SC
        with np.errstate(invalid="ignore"):
            weighted_S1 = weighted_SC.sum(axis=1, keepdims=True) / true_S1
        return {
            "mIoU": iou_SC,
            "pixel_accuracy": ratio(right_SC.sum(axis=1, keepdims=True), true_S1),
            "mean_accuracy": ratio(right_SC, true_SC),
            "fwIoU": weighted_S1,
        }

    def _sums(self, counts_SI: NDArray[np.float32] | None) -> list[NDArray[np.float64]]:
        weights_SI = np.ones((1, len(self.true_IC)))
        if counts_SI is not None:
            weights_SI = np.concatenate([weights_SI, counts_SI])
        return [weights_SI @ part for part in (self.right_IC, self.given_IC, self.true_IC)]


def counts_3C(matrix_CC: NDArray[np.int64]) -> NDArray[np.int64]:
    """Return an image's counts from its confusion matrix: right, given, true."""
    return np.stack([np.diag(matrix_CC), matrix_CC.sum(axis=0), matrix_CC.sum(axis=1)])


def ratio(above: NDArray[Any], below: NDArray[Any]) -> NDArray[np.float64]:
    """Return the quotient on a 0-100 scale, NaN for 0 / 0, where there is nothing to measure."""
    with np.errstate(invalid="ignore", divide="ignore"):
        return 100.0 * above / below
