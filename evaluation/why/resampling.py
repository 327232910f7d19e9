"""TIDE's errors under resamples of the test images: judged once, then weighed, as `evaluation.resampling` does with AP.

Legend: I images, K classes, S resamples; row 0 of every result is the images as they are, once each.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from evaluation.average_precision import IntArray
from evaluation.coco import Difficult, IouType
from evaluation.files import Entry, Truth
from evaluation.resampling import Resampled


def resample_errors(
    truth: Truth | str | Path,
    predictions: Sequence[Entry] | str | Path,
    counts_SI: IntArray,
    *,
    iou_type: IouType = "bbox",
    difficult: Difficult = "ignore",
    iou: float = 0.5,
    background: float = 0.1,
) -> dict[str, Resampled]:
    """"AP" at `iou` and the AP (0..100) that each kind of error costs, by KINDS and SPECIAL, of every resample.

    `mean_S` is what `tide_errors` says of a data set in which images are repeated (`ap`, `lost` and `special`), and
    row 0 of the images as they are; a class's figures are those of its `per_class`, NaN where a resample has no truth
    of it. Sides that are to be compared are given the same counts (`evaluation.resampling.draw_counts`), and their
    `mean_S` goes to `evaluation.comparison.compare_sides`. Raises EvaluationError with a sentence.
    """
    raise NotImplementedError
