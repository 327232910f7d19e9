"""Average precision of matched detections: of the images as they are, and of resampled ones.

Legend: I images, D detections of one class (best first), H those that hit at one threshold, U those that hit at any,
A area ranges, T IoU thresholds, S resamples, L recall levels.

A precision-recall curve is computed only where it hits, since its upper envelope has all its corners there. A resample
is a count for each image: how often it was drawn. Its AP is that of a data set in which each image is repeated so
often: the running sums that make precision and recall are sums of counts. So detections are matched once, and a
resample only weighs what was matched. All resamples of a detection stand side by side in memory, so that a row is added
or divided at a processor's full width; the detections between two hits are summed by a product with a sparse matrix.
Copies of an image stand side by side: where two detections of one image and class have equal scores, all copies of the
first come before those of the second.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

BoolArray = NDArray[np.bool_]
IntArray = NDArray[np.int64]
FloatArray = NDArray[np.float64]
BitsArray = NDArray[np.uint16]
CountsArray = NDArray[np.float32]  # how often each image is drawn: whole numbers, exact up to 2^24

# As the devkit's Python successors write them; 0.3, 0.6 and 0.7 come out a rounding error above the decimal,
# so a recall of exactly 3 in 10 does not reach the level 0.3. Kept, as every published 11-point figure has
# it.
ELEVEN_LEVELS: FloatArray = np.linspace(0.0, 1.0, 11)
COCO_LEVELS: FloatArray = np.linspace(0.0, 1.0, 101)

_AT_ONCE = 1 << 20  # elements of one (U, S) array


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

    @cached_property
    def ranked_A(self) -> list[_Ranked]:
        """Return what AP is made of, for each area range."""
        return [_Ranked(self, area) for area in range(len(self.hit_AD))]

    def truths(self, area: int = 0) -> int:
        """Return how many truths there are to be found."""
        return int(self.truths_AI[area].sum())

    def envelope(self, *, area: int = 0, threshold: int = 0, weight: float = 1.0) -> tuple[IntArray, FloatArray]:
        """Return the truths found up to each hit, and the best precision (0..1) at or after it.

        weight: of a right detection, where a wrong one weighs 1.
        """
        seen_H = self.ranked_A[area].seen(threshold)
        found_H = np.arange(1, len(seen_H) + 1)
        right_H = weight * found_H
        best_H = right_H / (right_H + seen_H - found_H)
        return found_H, np.maximum.accumulate(best_H[::-1])[::-1]

    def precision_at(
        self, levels_L: FloatArray, *, area: int = 0, threshold: int = 0, weight: float = 1.0
    ) -> FloatArray:
        """Return the best precision at or beyond each recall level; NaN where the class has no truth."""
        truths = self.truths(area)
        if not truths:
            return np.full(len(levels_L), np.nan)
        found_H, best_H = self.envelope(area=area, threshold=threshold, weight=weight)
        return np.append(best_H, 0.0)[np.searchsorted(found_H / truths, levels_L, side="left")]


def average_precision(matched: Matched, levels_L: FloatArray | None, *, area: int = 0, threshold: int = 0) -> float:
    """Return the AP of the images as they are, 0..1; NaN where the class has no truth.

    levels_L: recall levels over which precision is averaged (COCO 101, VOC2007 11); None: the area under the envelope.
    """
    if levels_L is not None:
        return float(matched.precision_at(levels_L, area=area, threshold=threshold).mean())
    truths = matched.truths(area)
    return float(matched.envelope(area=area, threshold=threshold)[1].sum() / truths) if truths else float("nan")


def average_precisions(
    matched: Matched, counts_SI: CountsArray, levels_L: FloatArray | None, *, area: int = 0, only: int | None = None
) -> CountsArray:
    """Return AP_ST in 0..1 of each resample at each threshold; NaN in a resample without a truth of the class.

    counts_SI: as `draw_counts` gives them; otherwise they are copied. levels_L: as in `average_precision`, 0 to 1 at
    equal distances. A recall of exactly j / 100 reaches the level j here (pycocotools misses ten of its 101 levels by
    its rounding of them, as `average_precision` does). only: one threshold alone, by its place.
    """
    bits = [only] if only is not None else range(matched.thresholds)
    counts_IS = np.ascontiguousarray(counts_SI.T, np.float32)
    shown = np.flatnonzero(matched.truths_AI[area])
    truths_S = matched.truths_AI[area][shown].astype(np.float32) @ counts_IS[shown]
    ranked = matched.ranked_A[area]
    ap_TS = np.zeros((len(bits), counts_IS.shape[1]), np.float32)
    step = max(64, _AT_ONCE // max(1, len(ranked.image_U)))
    for start in range(0, counts_IS.shape[1], step):
        part = np.ascontiguousarray(counts_IS[:, start : start + step])
        ap_TS[:, start : start + step] = ranked.score(part, truths_S[start : start + step], levels_L, bits)
    return np.where(truths_S > 0, ap_TS, np.nan).T


class _Ranked:
    """One area range's detections that count at some threshold, up to the last that hits, and each threshold's own.

    place_U: of what hits at any, among them. hits: each threshold's among U; ignored: the places of those that do not
    count at it.
    """

    def __init__(self, matched: Matched, area: int):
        bits = range(matched.thresholds)
        hit_D, ignored_D = matched.hit_AD[area], matched.ignored_AD[area]
        kept = np.flatnonzero(ignored_D != (1 << matched.thresholds) - 1)
        hitting = np.flatnonzero(hit_D[kept])
        kept = kept[: hitting[-1] + 1] if len(hitting) else kept[:0]  # after the last hit nothing counts
        hit_D, ignored_D, self.image_D = hit_D[kept], ignored_D[kept], matched.image_D[kept]
        self.place_U = np.flatnonzero(hit_D)
        self.image_U = self.image_D[self.place_U]
        self.hits = [np.flatnonzero(hit_D[self.place_U] >> bit & 1) for bit in bits]
        some = np.flatnonzero(ignored_D)
        self.ignored = [some[(ignored_D[some] >> bit & 1).astype(bool)] for bit in bits]

    def left_out(self, threshold: int) -> IntArray:
        """Return how many of the detections before each hit do not count at the threshold."""
        return np.searchsorted(self.ignored[threshold], self.place_U[self.hits[threshold]])

    def seen(self, threshold: int) -> IntArray:
        """Return how many detections count up to each hit."""
        return self.place_U[self.hits[threshold]] + 1 - self.left_out(threshold)

    def score(
        self, counts_IS: CountsArray, truths_S: CountsArray, levels_L: FloatArray | None, bits: Sequence[int]
    ) -> CountsArray:
        """Return AP_TS of some resamples; that of one without a truth means nothing."""
        ap_TS = np.zeros((len(bits), counts_IS.shape[1]), np.float32)
        seen_US = _sums_up_to(counts_IS, self.image_D, self.place_U)
        for ap_S, bit in zip(ap_TS, bits):
            hits_H, ignored = self.hits[bit], self.ignored[bit]
            if len(hits_H):
                found_HS = _running(np.add, counts_IS.take(self.image_U[hits_H], axis=0))
                seen_HS = seen_US.take(hits_H, axis=0)
                if len(ignored):
                    seen_HS -= _sums_up_to(counts_IS, self.image_D[ignored], self.left_out(bit) - 1)
                # Where a hit's image was not drawn, precision is that of an earlier hit or less.
                best_HS = np.divide(found_HS, np.maximum(seen_HS, 1, out=seen_HS), out=seen_HS)
                _running(np.maximum, best_HS[::-1])
                _area(found_HS, best_HS, truths_S, levels_L, out=ap_S)
        return ap_TS


def _sums_up_to(counts_IS: CountsArray, image_D: IntArray, last_U: IntArray) -> CountsArray:
    """Return the sums_US of the counts of the images of detections 0 to last_U, which does not fall (-1: of none)."""
    from scipy.sparse import csr_array  # here, as few commands resample

    ones, starts = np.ones(len(image_D), np.float32), np.append(0, last_U + 1)
    stop = starts[-1]
    between = csr_array((ones[:stop], image_D[:stop], starts), shape=(len(last_U), len(counts_IS)))
    return _running(np.add, between @ counts_IS)


def _running(operation: np.ufunc, rows_HS: CountsArray) -> CountsArray:
    """Accumulate down the rows, in place: numpy goes down one column after the other, at a quarter of the speed.

    Within blocks of rows, all blocks at once, and then from block to block.
    """
    side = math.isqrt(len(rows_HS))
    whole = side * side
    rows_BPS = rows_HS[:whole].reshape(side, side, rows_HS.shape[1])
    for place in range(1, side):
        operation(rows_BPS[:, place], rows_BPS[:, place - 1], out=rows_BPS[:, place])
    for block in range(1, side):
        operation(rows_BPS[block], rows_BPS[block - 1, -1], out=rows_BPS[block])
    for place in range(max(1, whole), len(rows_HS)):
        operation(rows_HS[place], rows_HS[place - 1], out=rows_HS[place])
    return rows_HS


def _area(
    found_HS: CountsArray, best_HS: CountsArray, truths_S: CountsArray, levels_L: FloatArray | None, out: CountsArray
) -> None:
    """Write the area under each envelope. Writes into `found_HS` too."""
    steps = 1 if levels_L is None else len(levels_L) - 1
    found_HS *= steps / np.maximum(truths_S, 1)
    if levels_L is not None:  # how many levels are reached; those that are missed are 1 / truths away, rounding is less
        found_HS += 1 + 2e-5
        np.floor(found_HS, out=found_HS)
    np.multiply(found_HS[0], best_HS[0], out=out)
    out += np.einsum("hs,hs->s", found_HS[1:] - found_HS[:-1], best_HS[1:])
    if levels_L is not None:
        out /= len(levels_L)


def mean_of_known(values: FloatArray) -> float:
    """Return the mean of the values that are not NaN; NaN where there is none."""
    known = values[~np.isnan(values)]
    return float(known.mean()) if known.size else float("nan")
