"""AP against what the objects are like: their size, and how crowded they stand.

A slice is a part of the truths. As in COCO's size ranges, the truths outside of it are neither to be found nor
punished: a detection that takes one of them counts for nothing.

- By size, a detection that takes nothing counts where its own area belongs to the slice: COCO's rule, so small, medium
  and large are COCO's APs, APm and APl. Quantiles part the truths of the file into equal numbers by area.
- By crowding, nothing says to which slice a false detection belongs, so all of them count in each, and precision is
  normalised (Hoiem, Chodpathumwan, Dai 2012, "Diagnosing Error in Object Detectors", §2.2): right detections weigh
  as if the slice held as many truths as its class. A detector that is equally good everywhere so gets equal figures.

Legend: D detections, G truths, K classes, S slices, T IoU thresholds, L recall levels.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np

from vertebra.evaluation.metrics.average_precision import COCO_LEVELS, BoolArray, FloatArray, Matched, mean_of_known
from vertebra.evaluation.metrics.files import Truth
from vertebra.evaluation.metrics.matching import MOST, SIZES, match_thresholds, split_by_class
from vertebra.evaluation.metrics.overlaps import Overlaps, neighbours

OVERLAPS = (0.0, 0.1, 0.3, 0.5)  # upper bounds of the first slices by IoU with another truth
NEIGHBOURS = (0, 3, 9)
QUANTILES = 5


@dataclass(frozen=True)
class Slice:
    """Part of the truths: those that are wanted, and the detections that count where they take nothing."""

    name: str
    wanted_G: BoolArray
    counted_D: BoolArray
    normalised: bool = False


@dataclass(frozen=True)
class SliceFigures:
    """truths: how many are wanted. ap: mean over IoU .50:.05:.95, ap50: at .50, recall50: truths found at .50 (all
    0..100, means over the classes that the slice holds, recall50 over truths; NaN where it holds none)."""

    slice: str
    truths: int
    ap: float
    ap50: float
    recall50: float


def by_size(overlaps: Overlaps) -> tuple[list[SliceFigures], list[SliceFigures]]:
    """Return the figures of COCO's three sizes, and of equal parts of the truths by area."""
    areas_G, areas_D, wanted_G = overlaps.area_G, overlaps.area_D, ~overlaps.aside_G
    coco = [
        Slice(name, wanted_G & (areas_G >= low) & (areas_G <= high), (areas_D >= low) & (areas_D <= high))
        for name, (low, high) in list(SIZES.items())[1:]
    ]
    edges: FloatArray = np.zeros(0)
    if wanted_G.any():
        edges = np.unique(np.quantile(areas_G[wanted_G], np.arange(1, QUANTILES) / QUANTILES))
    part_G, part_D = np.digitize(areas_G, edges), np.digitize(areas_D, edges)
    # By the square root: a side is easier to picture than an area.
    quantiles = [
        Slice(name, wanted_G & (part_G == part), part_D == part)
        for part, name in enumerate(_ranges([f"{edge**0.5:.0f}" for edge in edges], " px"))
    ]
    return slice_figures(overlaps, coco), slice_figures(overlaps, quantiles)


def by_crowding(overlaps: Overlaps, truth: Truth) -> dict[str, list[SliceFigures]]:
    """Return figures by greatest IoU with another truth of the image, or of its class, and by the number of others."""
    others_G, pairs = neighbours(truth)
    wanted_G, every_D = ~overlaps.aside_G, np.ones(len(overlaps.score_D), dtype=bool)
    iou_G, iou_in_class_G = np.zeros(len(others_G)), np.zeros(len(others_G))
    same_P = overlaps.class_G[pairs.detection_P] == overlaps.class_G[pairs.truth_P]
    np.maximum.at(iou_G, pairs.detection_P, pairs.iou_P)
    np.maximum.at(iou_in_class_G, pairs.detection_P[same_P], pairs.iou_P[same_P])
    by_iou = ["none", *_ranges([f"{bound:g}" for bound in OVERLAPS[1:]], "")]
    by_number = ["alone", *(f"{low + 1} to {high}" for low, high in pairwise(NEIGHBOURS)), f"over {NEIGHBOURS[-1]}"]
    parts = {
        "overlap": (np.searchsorted(OVERLAPS, iou_G), by_iou),
        "overlap_in_class": (np.searchsorted(OVERLAPS, iou_in_class_G), by_iou),
        "neighbours": (np.searchsorted(NEIGHBOURS, others_G), by_number),
    }
    slices = {
        what: [Slice(name, wanted_G & (part_G == part), every_D, normalised=True) for part, name in enumerate(names)]
        for what, (part_G, names) in parts.items()
    }
    return {what: slice_figures(overlaps, some) for what, some in slices.items()}


def slice_figures(overlaps: Overlaps, slices: Sequence[Slice]) -> list[SliceFigures]:
    """Return each slice's figures, from the 100 best detections of each image and class, as COCO takes them."""
    if not slices:
        return []
    keep_D = overlaps.class_place_D < MOST
    overlaps = overlaps.only(keep_D)
    wanted_SG = np.stack([part.wanted_G for part in slices])
    hit_SD, ignored_SD = match_thresholds(overlaps, wanted_SG, np.stack([part.counted_D[keep_D] for part in slices]))
    order_D = np.lexsort((-overlaps.score_D, overlaps.class_D))
    by_class = split_by_class(overlaps, order_D, hit_SD, ignored_SD, wanted_SG)
    all_K = overlaps.truths_by_class(~overlaps.aside_G)
    figures = []
    for s, part in enumerate(slices):
        ap_KT = np.array([_class_ap(one, s, all_ if part.normalised else None) for one, all_ in zip(by_class, all_K)])
        truths = int(part.wanted_G.sum())
        recall = 100 * float((hit_SD[s] & 1).sum()) / truths if truths else float("nan")
        figures.append(
            SliceFigures(part.name, truths, 100 * mean_of_known(ap_KT), 100 * mean_of_known(ap_KT[:, :1]), recall)
        )
    return figures


def _class_ap(matched: Matched, part: int, all_truths: int | None) -> FloatArray:
    """Return AP_T (0..1) of one class in a slice, NaN without a truth.

    all_truths: of the class, for a precision normalised to them.
    """
    weight = 1.0 if all_truths is None else all_truths / max(1, matched.truths(part))
    return np.array(
        [
            matched.precision_at(COCO_LEVELS, area=part, threshold=t, weight=weight).mean()
            for t in range(matched.thresholds)
        ]
    )


def _ranges(edges: Sequence[str], unit: str) -> list[str]:
    if not edges:
        return ["all"]
    between = [f"{low} to {high}{unit}" for low, high in pairwise(edges)]
    return [f"to {edges[0]}{unit}", *between, f"over {edges[-1]}{unit}"]
