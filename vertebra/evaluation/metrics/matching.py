"""Who takes which truth, for a whole data set at once.

Legend: D detections, G truths, P pairs (see `overlaps`).

COCO, VOC and TIDE match greedily: detections by falling score, each taking the free truth that it overlaps most. That
is the one stable matching in which every truth prefers the higher score, so proposals in rounds (Gale and Shapley 1962)
reach it as well, with a few array operations a round instead of a Python loop over every detection.
"""

from __future__ import annotations

import numpy as np

from vertebra.evaluation.metrics.average_precision import BitsArray, BoolArray, FloatArray, IntArray, Matched
from vertebra.evaluation.metrics.overlaps import Overlaps, Pairs

# COCO's rules: the IoU thresholds, the ranges of an object's area in square pixels (both ends belong to it), and how
# many detections of an image and class count.
THRESHOLDS_T: FloatArray = np.linspace(0.5, 0.95, 10)
SIZES = {"all": (0.0, 1e10), "small": (0.0, 32.0**2), "medium": (32.0**2, 96.0**2), "large": (96.0**2, 1e10)}
MOST = 100


def take(pairs: Pairs, detections: int, truths: int, shared_G: BoolArray | None = None) -> IntArray:
    """taken_D: the truth that each detection takes, -1 for none.

    pairs: those allowed, in the order in which each detection prefers its truths. Of two detections of an image the one
    of the lower index goes first. shared_G: truths (crowds) that any number of detections may take.
    """
    nobody = detections
    holder_G = np.full(truths, nobody, dtype=np.int64)
    taken_D = np.full(detections, -1, dtype=np.int64)
    starts = np.flatnonzero(np.diff(pairs.detection_P, prepend=-1))
    asking = pairs.detection_P[starts]
    next_D, end_D = np.zeros(detections, dtype=np.int64), np.zeros(detections, dtype=np.int64)
    next_D[asking], end_D[asking] = starts, np.append(starts[1:], len(pairs.detection_P))
    while len(asking):
        wish = pairs.truth_P[next_D[asking]]
        if shared_G is not None:
            served = shared_G[wish]
            taken_D[asking[served]] = wish[served]
            asking, wish = asking[~served], wish[~served]
        before = holder_G[wish]
        np.minimum.at(holder_G, wish, asking)
        after = holder_G[wish]
        turned_away = np.concatenate(
            [asking[after != asking], np.unique(before[(before != after) & (before < nobody)])]
        )
        next_D[turned_away] += 1
        asking = turned_away[next_D[turned_away] < end_D[turned_away]]
    held_G = np.flatnonzero(holder_G < nobody)
    taken_D[holder_G[held_G]] = held_G
    return taken_D


def take_wanted_first(overlaps: Overlaps, pairs: Pairs, wanted_G: BoolArray) -> tuple[IntArray, BoolArray]:
    """pycocotools' rule: (taken_D among the wanted truths, overlooked_D of those that took one of the others instead).

    pairs: those of enough IoU and of the right class, in the order that a detection prefers.
    """
    detections, truths = len(overlaps.score_D), len(overlaps.class_G)
    is_wanted_P = wanted_G[pairs.truth_P]
    taken_D = take(pairs.where(is_wanted_P), detections, truths)
    rest = pairs.where(~is_wanted_P & (taken_D[pairs.detection_P] < 0))
    return taken_D, take(rest, detections, truths, overlaps.crowd_G) >= 0


def match_thresholds(overlaps: Overlaps, wanted_AG: BoolArray, counted_AD: BoolArray) -> tuple[BitsArray, BitsArray]:
    """Match by COCO's rule at every threshold and for several parts A of the truths, such as sizes.

    wanted_AG: truths to be found; the others excuse a detection. counted_AD: detections that are wrong where they take
    no truth. Returns hit_AD and ignored_AD, bit t for THRESHOLDS_T[t]: right, or neither right nor wrong.
    """
    paired_D = np.zeros(len(overlaps.score_D), dtype=bool)
    paired_D[overlaps.matchable(THRESHOLDS_T[0]).detection_P] = True
    paired = overlaps.only(paired_D)  # the others take nothing at any threshold
    near = paired.matchable(THRESHOLDS_T[0])
    hit_AN = np.zeros((len(wanted_AG), len(paired.score_D)), dtype=np.uint16)
    ignored_AN = np.zeros_like(hit_AN)
    for t, threshold in enumerate(THRESHOLDS_T):
        enough = near.where(near.iou_P >= threshold)
        for a, wanted_G in enumerate(wanted_AG):
            taken_N, overlooked_N = take_wanted_first(paired, enough, wanted_G)
            idle_N = (taken_N < 0) & ~counted_AD[a, paired_D]
            hit_AN[a] |= (taken_N >= 0).astype(np.uint16) << t
            ignored_AN[a] |= (overlooked_N | idle_N).astype(np.uint16) << t
    hit_AD = np.zeros(counted_AD.shape, dtype=np.uint16)
    ignored_AD = np.where(counted_AD, 0, (1 << len(THRESHOLDS_T)) - 1).astype(np.uint16)
    hit_AD[:, paired_D], ignored_AD[:, paired_D] = hit_AN, ignored_AN
    return hit_AD, ignored_AD


def split_by_class(
    overlaps: Overlaps,
    order_D: IntArray,
    hit_AD: BitsArray,
    ignored_AD: BitsArray,
    wanted_AG: BoolArray,
    thresholds: int = len(THRESHOLDS_T),
) -> list[Matched]:
    """Return the matches of each class, in the order of `overlaps.names`.

    order_D: all detections in the order in which they count, by class first.
    """
    classes, areas = len(overlaps.names), len(wanted_AG)
    starts_K = np.searchsorted(overlaps.class_D[order_D], np.arange(classes + 1))
    truths_KAI = np.zeros((classes, areas, overlaps.images), dtype=np.int64)
    a, g = np.nonzero(wanted_AG)
    np.add.at(truths_KAI, (overlaps.class_G[g], a, overlaps.image_G[g]), 1)
    return [
        Matched(
            image_D=overlaps.image_D[mine],
            scores_D=overlaps.score_D[mine],
            hit_AD=hit_AD[:, mine],
            ignored_AD=ignored_AD[:, mine],
            truths_AI=truths_AI,
            thresholds=thresholds,
        )
        for mine, truths_AI in zip(np.split(order_D, starts_K[1:-1]), truths_KAI)
    ]
