"""Average precision of matched detections: of the images as they are, and of resampled ones.

Legend: I images, D detections of one class (best first), H those that hit at one threshold, A area ranges, T IoU
thresholds, S resamples, L recall levels.

A precision-recall curve is computed only where it hits, since its upper envelope has all its corners there. A resample
is a count for each image: how often it was drawn. Its AP is that of a data set in which each image is repeated so
often: the running sums that make precision and recall are sums of counts. So detections are matched once, and a
resample only weighs what was matched. One pass over a class's detections serves all thresholds, since they differ in
what hits and only rarely in what counts. Copies of an image stand side by side: where two detections of one image and
class have equal scores, all copies of the first come before those of the second.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

BoolArray = NDArray[np.bool_]
IntArray = NDArray[np.int64]
FloatArray = NDArray[np.float64]
BitsArray = NDArray[np.uint16]

# As the devkit's Python successors write them; 0.3, 0.6 and 0.7 come out a rounding error above the decimal,
# so a recall of exactly 3 in 10 does not reach the level 0.3. Kept, as every published 11-point figure has
# it.
ELEVEN_LEVELS: FloatArray = np.linspace(0.0, 1.0, 11)
COCO_LEVELS: FloatArray = np.linspace(0.0, 1.0, 101)

_CHUNK = 1 << 17  # elements of one (S, D) array: its few companions stay in a processor's cache


@dataclass(frozen=True)
class Matched:
    """One class's detections after matching, best first, at every threshold and area range.

    image_D: place of its image among the I images. scores_D. hit_AD: uint16, bit t set: a true positive at threshold
    t; ignored_AD: bit t set: neither right nor wrong; neither: a false positive. truths_AI: truths to be found.
    """

    image_D: IntArray
    scores_D: FloatArray
    hit_AD: BitsArray
    ignored_AD: BitsArray
    truths_AI: IntArray
    thresholds: int

    def truths(self, area: int = 0) -> int:
        """Return how many truths there are to be found."""
        return int(self.truths_AI[area].sum())

    def precision_at(
        self, levels_L: FloatArray, *, area: int = 0, threshold: int = 0, weight: float = 1.0
    ) -> FloatArray:
        """Return the best precision (0..1) at or beyond each recall level; NaN where the class has no truth.

        weight: of a right detection, where a wrong one weighs 1.
        """
        truths = self.truths(area)
        if not truths:
            return np.full(len(levels_L), np.nan)
        counted_D = (self.ignored_AD[area] >> threshold & 1) == 0
        places_H = np.flatnonzero(self.hit_AD[area][counted_D] >> threshold & 1)
        found_H = np.arange(1, len(places_H) + 1)
        right_H = weight * found_H
        best_H = _envelope(right_H / (right_H + places_H + 1 - found_H))
        return np.append(best_H, 0.0)[np.searchsorted(found_H / truths, levels_L, side="left")]


def average_precision(matched: Matched, levels_L: FloatArray | None) -> float:
    """Return the AP of the images as they are, 0..1, at the first threshold; NaN where the class has no truth."""
    once_1I = np.ones((1, matched.truths_AI.shape[1]), dtype=np.int64)
    return float(average_precisions(matched, once_1I, levels_L, only=0)[0, 0])


def average_precisions(
    matched: Matched, counts_SI: IntArray, levels_L: FloatArray | None, *, area: int = 0, only: int | None = None
) -> FloatArray:
    """Return AP_ST in 0..1 of each resample at each threshold; NaN in a resample without a truth of the class.

    levels_L: recall levels 0..1 at equal distances over which precision is averaged (COCO 101, VOC2007 11); None: the
    area under the envelope. only: one threshold alone, by its place.
    """
    bits = [only] if only is not None else range(matched.thresholds)
    counts_SI = counts_SI.astype(np.int32, copy=False)
    truths_S = counts_SI @ matched.truths_AI[area].astype(np.int32)
    prepared = _Prepared(matched, area, bits)
    result_ST = np.zeros((len(counts_SI), len(prepared.hits)))
    step = max(1, _CHUNK // max(1, len(prepared.image_D)))
    for start in range(0, len(counts_SI), step):
        part = slice(start, start + step)
        result_ST[part] = prepared.score(counts_SI[part], truths_S[part], levels_L)
    return np.where(truths_S[:, None] > 0, result_ST, np.nan)


class _Prepared:
    """Shared by all resamples: the detections that count at some threshold, and each threshold's own among them."""

    def __init__(self, matched: Matched, area: int, bits: list[int] | range):
        every = sum(1 << bit for bit in bits)
        hit_D, ignored_D = matched.hit_AD[area] & every, matched.ignored_AD[area] & every
        kept = np.flatnonzero(ignored_D != every)
        hitting = np.flatnonzero(hit_D[kept])
        kept = kept[: hitting[-1] + 1] if len(hitting) else kept[:0]  # after the last hit nothing counts
        hit_D, ignored_D = hit_D[kept], ignored_D[kept]
        self.image_D = matched.image_D[kept]
        self.hits = [np.flatnonzero(hit_D >> bit & 1) for bit in bits]
        self.ignored = [np.flatnonzero(ignored_D >> bit & 1) for bit in bits]

    def score(self, counts_SI: IntArray, truths_S: IntArray, levels_L: FloatArray | None) -> FloatArray:
        """Return AP_ST of some resamples; that of one without a truth means nothing."""
        weight_SD = counts_SI.take(self.image_D, axis=1)
        seen_SD = weight_SD.cumsum(axis=1, dtype=np.int32)
        truths_S1 = np.maximum(truths_S, 1)[:, None]
        return np.stack(
            [
                _area(*_curve(weight_SD, seen_SD, hits_H, ignored), truths_S1, levels_L)
                for hits_H, ignored in zip(self.hits, self.ignored)
            ],
            axis=1,
        )


def _curve(weight_SD: IntArray, seen_SD: IntArray, hits_H: IntArray, ignored: IntArray) -> tuple[IntArray, FloatArray]:
    """Return the truths found up to each hit, and the best precision from there on."""
    found_SH = weight_SD.take(hits_H, axis=1).cumsum(axis=1, dtype=np.int32)
    seen_SH = seen_SD.take(hits_H, axis=1)
    if len(ignored):
        left_out = np.zeros((len(weight_SD), len(ignored) + 1), dtype=np.int32)
        weight_SD.take(ignored, axis=1).cumsum(axis=1, dtype=np.int32, out=left_out[:, 1:])
        seen_SH -= left_out.take(np.searchsorted(ignored, hits_H), axis=1)
    # Where a hit's image was not drawn, precision is that of an earlier hit or less: the envelope does not change.
    return found_SH, _envelope(found_SH / np.maximum(seen_SH, 1, out=seen_SH))


def _envelope(precision_SH: FloatArray) -> FloatArray:
    """Return the best precision at or after each hit. Writes into its argument."""
    np.maximum.accumulate(precision_SH[..., ::-1], axis=-1, out=precision_SH[..., ::-1])
    return precision_SH


def _area(found_SH: IntArray, best_SH: FloatArray, truths_S1: IntArray, levels_L: FloatArray | None) -> FloatArray:
    recall_SH = found_SH / truths_S1
    reached_SH = recall_SH if levels_L is None else _levels_reached(recall_SH, levels_L) / len(levels_L)
    first_S = reached_SH[:, 0] * best_SH[:, 0] if reached_SH.shape[1] else np.zeros(len(reached_SH))
    return first_S + ((reached_SH[:, 1:] - reached_SH[:, :-1]) * best_SH[:, 1:]).sum(axis=1)


def _levels_reached(recall_SH: FloatArray, levels_L: FloatArray) -> NDArray[np.int32]:
    """Return how many recall levels are at or below each recall, to the last bit.

    levels_L: 0 to 1 at equal distances but for rounding. Only a recall that is a level, but for its rounding, is in
    doubt: any other is 1 / (truths x levels) from all.
    """
    below_SH = (recall_SH * (len(levels_L) - 1) + 1e-9).astype(np.int32)
    return below_SH + (levels_L.take(below_SH) <= recall_SH)


def mean_of_known(values: FloatArray) -> float:
    """Return the mean of the values that are not NaN; NaN where there is none."""
    known = values[~np.isnan(values)]
    return float(known.mean()) if known.size else float("nan")
