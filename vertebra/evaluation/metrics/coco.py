"""COCO's twelve figures for boxes and masks, equal to pycocotools' to rounding.

Legend: D detections of a class, A sizes (see `matching.SIZES`), T IoU thresholds .50:.05:.95, G truths, I images.

The rules are COCOeval's: 100 detections of a class and image, best first and equal scores in the file's order; each
takes the free truth that it overlaps most (the last of equals), an overlooked one (crowd, difficult, outside the size)
only where no other is left; crowds can be taken again; what takes an overlooked truth, or takes none and is itself
outside the size, is overlooked. Three things that pycocotools leaves open, or does otherwise:

- `difficult` objects (VOC's flag) are, with difficult="ignore" (default), neither to be found nor punished,
  with the ordinary IoU and at most one detection each, exactly as COCO treats objects outside a size.
  Calling them crowds would not do: a crowd's IoU is overlap over the detection's own area, and it absorbs any
  number of them. difficult="count" makes them ordinary objects. Files without the flag are not concerned.
- A detection's area (which decides what a size overlooks) is its box's for boxes and its mask's for masks.
  pycocotools takes the box's for masks too where the file's first entry has one; so published mask figures are
  made of files without boxes, and detectron2 and mmdetection take the boxes out before they score.
- Where there is no truth (a class, or a size) pycocotools says -1; here it is NaN, and null in JSON.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, get_args

import numpy as np

from vertebra.evaluation.metrics import federated as lvis
from vertebra.evaluation.metrics.average_precision import (
    COCO_LEVELS,
    FloatArray,
    Matched,
    average_precision,
    mean_of_known,
)
from vertebra.evaluation.metrics.files import (
    NEEDS,
    CheckedTruth,
    Difficult,
    Entry,
    IouType,
    Truth,
    class_names,
    read_truth,
)
from vertebra.evaluation.metrics.matching import MOST, SIZES, THRESHOLDS_T, match_thresholds, split_by_class
from vertebra.evaluation.metrics.overlaps import Overlaps, measure, place_in_group
from vertebra.ground.errors import UserError

FIGURES = ("AP", "AP50", "AP75", "APs", "APm", "APl", "AR1", "AR10", "AR100", "ARs", "ARm", "ARl")
CLASS_FIGURES = ("AP", "AP50", "APs", "APm", "APl")
_AT_50, _AT_75 = 0, 5  # places in THRESHOLDS_T


@dataclass(frozen=True)
class CocoFigures:
    """The twelve figures and each class's, 0..100, NaN where there is no truth.

    figures: by the names in FIGURES. per_class: CLASS_FIGURES by class name, in the order of the category ids. truths:
    objects that count (no crowds, no ignored ones). curves: precision (0..1) at IoU .5 and the recall levels
    0, .01, ... 1.
    """

    iou_type: IouType
    difficult: Difficult
    figures: dict[str, float]
    per_class: dict[str, dict[str, float]]
    truths: dict[str, int]
    curves: dict[str, list[float]]

    def __getitem__(self, name: str) -> float:
        return self.figures[name]

    def to_dict(self) -> dict[str, Any]:
        return {**vars(self), "curves": {name: curve for name, curve in self.curves.items() if self.truths[name]}}


def coco_figures(
    truth: Truth | str | Path,
    predictions: Sequence[Entry] | str | Path,
    *,
    iou_type: IouType = "bbox",
    difficult: Difficult = "ignore",
    federated: bool = False,
) -> CocoFigures:
    """Return COCO's figures of COCO results against COCO JSON truth (dicts or paths, neither is changed).

    An empty list scores 0. federated: LVIS' rules and figures (see `metrics.federated`). Raises UserError
    with a sentence for files that cannot be scored.
    """
    truth = read_truth(truth, needs=NEEDS[iou_type])
    matches = match_coco(truth, predictions, iou_type=iou_type, difficult=difficult, federated=federated)
    by_class = {name: class_figures(matched) for name, matched in matches.items()}
    values = np.array(list(by_class.values())).reshape(len(matches), len(FIGURES))
    figures = {name: mean_of_known(values[:, place]) for place, name in enumerate(FIGURES)}
    if federated:
        figures |= lvis.by_frequency(truth, dict(zip(by_class, values[:, 0]))) | {"AR300": figures["AR100"]}
        figures = {name: figures[name] for name in lvis.FIGURES}
    return CocoFigures(
        iou_type,
        difficult,
        figures,
        per_class={
            name: {figure: float(row[FIGURES.index(figure)]) for figure in CLASS_FIGURES}
            for name, row in by_class.items()
        },
        truths={name: matched.truths() for name, matched in matches.items()},
        curves={name: matched.precision_at(COCO_LEVELS).tolist() for name, matched in matches.items()},
    )


def match_coco(
    truth: Truth | str | Path,
    predictions: Sequence[Entry] | str | Path,
    *,
    iou_type: IouType = "bbox",
    difficult: Difficult = "ignore",
    sizes: bool = True,
    federated: bool = False,
) -> dict[str, Matched]:
    """Match every class's detections, best first, by class name in the order of the category ids.

    Areas are those of SIZES, without `sizes` the first alone. federated: by LVIS' rules. Equal scores
    stand in the order of image ids, then of the file, as in COCOeval. Images are numbered in the truth's order. Raises
    UserError as `coco_figures` does.
    """
    if iou_type not in get_args(IouType) or difficult not in get_args(Difficult):
        raise UserError(f"iou_type is bbox or segm, difficult is ignore or count; got {iou_type!r}, {difficult!r}")
    truth = read_truth(truth, needs=NEEDS[iou_type])
    floor = THRESHOLDS_T[0]
    overlaps = measure(truth, predictions, floor=floor, iou_type=iou_type, difficult=difficult, same_class=True)
    return match_overlaps(overlaps, truth, sizes=sizes, federated=federated)


def match_overlaps(
    overlaps: Overlaps, truth: CheckedTruth, *, sizes: bool = True, federated: bool = False
) -> dict[str, Matched]:
    """Match what was measured with a floor of 0.5 at most, as `match_coco` does."""
    if federated:
        overlaps, exhaustive_D = lvis.judge(overlaps, truth)
    else:
        overlaps = overlaps.first(overlaps.class_place_D, MOST)
        exhaustive_D = np.ones(len(overlaps.score_D), dtype=bool)
    ranges_A2 = np.array(list(SIZES.values()))[: None if sizes else 1]
    inside_AG, counted_AD = (
        (ranges_A2[:, :1] <= area_K) & (area_K <= ranges_A2[:, 1:]) for area_K in (overlaps.area_G, overlaps.area_D)
    )
    wanted_AG = inside_AG & ~overlaps.aside_G
    hit_AD, ignored_AD = match_thresholds(overlaps, wanted_AG, counted_AD & exhaustive_D)

    rank_I = np.argsort(np.argsort(truth.image_id_I))
    order_D = np.lexsort((overlaps.class_place_D, rank_I[overlaps.image_D], -overlaps.score_D, overlaps.class_D))
    by_class = split_by_class(overlaps, order_D, hit_AD, ignored_AD, wanted_AG)
    return {overlaps.names[k]: by_class[k] for k in np.argsort(list(class_names(truth)))}


def class_figures(matched: Matched) -> FloatArray:
    """Return the figures of one class in the order of FIGURES, 0..100, NaN where there is no truth."""
    ap_AT = np.array(
        [
            [average_precision(matched, COCO_LEVELS, area=a, threshold=t) for t in range(matched.thresholds)]
            for a in range(len(SIZES))
        ]
    )
    found_AD = (matched.hit_AD[..., None] >> np.arange(matched.thresholds) & 1).sum(axis=2)
    truths_A = matched.thresholds * matched.truths_AI.sum(axis=1).astype(np.float64)
    truths_A[truths_A == 0] = np.nan
    rank_D = place_in_group(matched.image_D)
    # No more than are taken have been matched, 100 an image (LVIS: 300, of all classes).
    recalls = [found_AD[0, rank_D < most].sum() / truths_A[0] for most in (1, 10, len(rank_D))]
    ap_A = ap_AT.mean(axis=1)
    figures = [
        ap_A[0],
        ap_AT[0, _AT_50],
        ap_AT[0, _AT_75],
        *ap_A[1:],
        *recalls,
        *found_AD[1:].sum(axis=1) / truths_A[1:],
    ]
    return 100 * np.array(figures)
