"""pycocotools' matching for a whole data set at once: which detections hit, miss or are overlooked.

Legend: D detections, G truths, P pairs (class, image) with both, A area ranges, T IoU thresholds .50:.05:.95, I images.

The rules are COCOeval's, and a test holds every flag against it: 100 detections of a class and image, best first and
equal scores in the file's order; each takes the free truth that it overlaps most (the last of equals), an overlooked
one (crowd, difficult, outside the area range) only where no other is left; crowds can be taken again; what takes an
overlooked truth, or takes none and is itself outside the range, is overlooked. COCOeval walks detection by detection;
here the first detections of all (class, image) pairs choose at once, then the second ones, and so on.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, get_args

import numpy as np
from numpy.typing import NDArray

from vertebra.evaluation.metrics.average_precision import BoolArray, FloatArray, IntArray
from vertebra.evaluation.metrics.coco import Difficult, IouType, mask_areas
from vertebra.evaluation.metrics.files import (
    NEEDS,
    Entry,
    EvaluationError,
    Truth,
    area_of,
    class_names,
    read_predictions,
    read_truth,
)
from vertebra.evaluation.statistics.reweighting import Matched

AREAS = ("all", "small", "medium", "large")
_RANGES_A2 = np.array([[0, 1e10], [0, 32**2], [32**2, 96**2], [96**2, 1e10]], dtype=np.float64)
THRESHOLDS_T: FloatArray = np.linspace(0.5, 0.95, 10)
_BITS_T = 1 << np.arange(len(THRESHOLDS_T))
_MOST = 100  # detections of a class and image
_ELEMENTS = 1 << 21  # of one working array

BitsArray = NDArray[np.uint16]


def match_coco(
    truth: Truth | str | Path,
    predictions: Sequence[Entry] | str | Path,
    *,
    iou_type: IouType = "bbox",
    difficult: Difficult = "ignore",
    sizes: bool = True,
) -> dict[str, Matched]:
    """Every class's detections, best first, by class name in the order of the category ids.

    Areas are those of AREAS, without `sizes` the first alone. Equal scores stand in the order of image ids, then of
    the file, as in COCOeval. Images are numbered in the truth's order. Raises EvaluationError as `coco_figures` does.
    """
    if iou_type not in get_args(IouType) or difficult not in get_args(Difficult):
        raise EvaluationError(
            f"iou_type is bbox or segm, difficult is ignore or count; got {iou_type!r}, {difficult!r}"
        )
    truth = read_truth(truth, needs=NEEDS[iou_type])
    predictions = read_predictions(predictions, truth, needs=NEEDS[iou_type])
    names = class_names(truth)
    category_C = sorted(names)
    place_of = {image["id"]: place for place, image in enumerate(truth["images"])}
    by_id_I = np.array([place_of[id_] for id_ in sorted(place_of)], dtype=np.int64)
    ranges_A2 = _RANGES_A2 if sizes else _RANGES_A2[:1]
    keys = _Keys({id_: k for k, id_ in enumerate(category_C)}, {id_: k for k, id_ in enumerate(sorted(place_of))})
    masks_of = truth["images"] if iou_type == "segm" else None
    truths = _Truths(truth["annotations"], keys, difficult, ranges_A2, masks_of)
    found = _Detections(predictions, keys, ranges_A2, masks_of)
    hit_DA, ignored_DA = _match(truths, found)
    result = {}
    images = max(1, len(place_of))
    for k, category_id in enumerate(category_C):
        low, high = np.searchsorted(found.key_D, [k * images, (k + 1) * images])
        mine_G = truths.key_G // images == k
        image_G = by_id_I[truths.key_G[mine_G] % images]
        order_D = low + np.argsort(-found.scores_D[low:high], kind="stable")
        result[names[category_id]] = Matched(
            image_D=by_id_I[found.key_D[order_D] % images],
            scores_D=found.scores_D[order_D],
            hit_AD=hit_DA[order_D].T.copy(),
            ignored_AD=ignored_DA[order_D].T.copy(),
            truths_AI=np.stack(
                [np.bincount(image_G[~out_G], minlength=len(place_of)) for out_G in truths.ignored_GA[mine_G].T]
            ),
            thresholds=len(THRESHOLDS_T),
        )
    return result


class _Keys:
    """One number for a class and an image, in the order of the ids of both."""

    def __init__(self, classes: dict[int, int], images: dict[int, int]):
        self._classes, self._images, self._count = classes, images, max(1, len(images))

    def __call__(self, entries: Sequence[Entry]) -> IntArray:
        return np.array(
            [self._classes[entry["category_id"]] * self._count + self._images[entry["image_id"]] for entry in entries],
            dtype=np.int64,
        )


class _Truths:
    """All truths, sorted by key, in the file's order within one."""

    def __init__(
        self,
        entries: Sequence[Entry],
        keys: _Keys,
        difficult: Difficult,
        ranges_A2: FloatArray,
        masks_of: Sequence[Entry] | None,
    ):
        key_G = keys(entries)
        order_G = np.argsort(key_G, kind="stable")
        self.key_G = key_G[order_G]
        entries = [entries[place] for place in order_G]
        self.boxes_G4 = np.array([e["bbox"] for e in entries], dtype=np.float64).reshape(-1, 4)
        self.runs = None if masks_of is None else _runs(entries, masks_of)
        self.crowd_G = np.array([bool(e.get("iscrowd")) for e in entries], dtype=bool)
        area_G = np.array([area_of(e) for e in entries], dtype=np.float64)
        out_G = self.crowd_G.copy()
        if difficult == "ignore":
            out_G |= np.array([bool(e.get("difficult")) for e in entries], dtype=bool)
        self.ignored_GA = out_G[:, None] | _outside(area_G, ranges_A2)


class _Detections:
    """The detections that count (100 a class and image), sorted by key and falling score."""

    def __init__(self, entries: Sequence[Entry], keys: _Keys, ranges_A2: FloatArray, masks_of: Sequence[Entry] | None):
        key_D = keys(entries)
        scores_D = np.array([entry["score"] for entry in entries], dtype=np.float64)
        order_D = np.lexsort((-scores_D, key_D))  # stable
        rank_D = _ranks(key_D[order_D])
        order_D, self.rank_D = order_D[rank_D < _MOST], rank_D[rank_D < _MOST]
        self.key_D, self.scores_D = key_D[order_D], scores_D[order_D]
        entries = [entries[place] for place in order_D]
        self.boxes_D4 = np.zeros((0, 4))
        self.runs = None if masks_of is None else _runs(entries, masks_of)
        if masks_of is not None:
            area_D = np.array(mask_areas(entries), dtype=np.float64)
        else:
            self.boxes_D4 = np.array([e["bbox"] for e in entries], dtype=np.float64).reshape(-1, 4)
            area_D = self.boxes_D4[:, 2] * self.boxes_D4[:, 3]
        self.outside_DA = _outside(area_D, ranges_A2)


def _outside(area_K: FloatArray, ranges_A2: FloatArray) -> BoolArray:
    return (area_K[:, None] < ranges_A2[:, 0]) | (area_K[:, None] > ranges_A2[:, 1])


def _ranks(key_D: IntArray) -> IntArray:
    """Place of each within its run of equal keys."""
    start_D = np.searchsorted(key_D, key_D, side="left")
    return np.arange(len(key_D)) - start_D


def _match(truths: _Truths, found: _Detections) -> tuple[BitsArray, BitsArray]:
    """hit_DA and ignored_DA, one bit a threshold."""
    every = int(_BITS_T.sum())
    hit_DA: BitsArray = np.zeros(found.outside_DA.shape, dtype=np.uint16)
    ignored_DA = np.where(found.outside_DA, every, 0).astype(np.uint16)
    key_P, first_P, count_P = np.unique(found.key_D, return_index=True, return_counts=True)
    truth_P = np.searchsorted(truths.key_G, key_P, side="left")
    truths_P = np.searchsorted(truths.key_G, key_P, side="right") - truth_P
    width_P = 1 << np.ceil(np.log2(np.maximum(truths_P, 1))).astype(np.int64)
    for width in np.unique(width_P[truths_P > 0]):
        members_P = np.flatnonzero((truths_P > 0) & (width_P == width))
        members_P = members_P[np.argsort(-count_P[members_P], kind="stable")]
        cells = int(width) * max(hit_DA.shape[1] * len(_BITS_T), _MOST)
        step = max(1, _ELEMENTS // cells)
        for start in range(0, len(members_P), step):
            part_P = members_P[start : start + step]
            spans = (first_P[part_P], count_P[part_P], truth_P[part_P], truths_P[part_P])
            _match_pairs(truths, found, spans, int(width), hit_DA, ignored_DA)
    return hit_DA, ignored_DA


def _match_pairs(
    truths: _Truths,
    found: _Detections,
    spans: tuple[IntArray, IntArray, IntArray, IntArray],
    width: int,
    hit_DA: BitsArray,
    ignored_DA: BitsArray,
) -> None:
    """Some pairs, those with most detections first: flags go into hit_DA and ignored_DA.

    spans: first detection, detections, first truth, truths (at most `width`) of each pair.
    """
    first_P, count_P, truth_P, truths_P = spans
    iou_PDG = np.full((len(first_P), count_P.max(), width), -1.0)
    for pair, (d, n, g, m) in enumerate(zip(first_P, count_P, truth_P, truths_P)):
        iou_PDG[pair, :n, :m] = _ious(truths, found, slice(d, d + n), slice(g, g + m))
    index_PG = np.minimum(truth_P[:, None] + np.arange(width), len(truths.key_G) - 1)
    crowd_PG = truths.crowd_G[index_PG]
    counts_PAG = ~truths.ignored_GA[index_PG].transpose(0, 2, 1)
    free_PATG = np.ones((len(first_P), counts_PAG.shape[1], len(THRESHOLDS_T), width), dtype=bool)
    needed_T1 = np.minimum(THRESHOLDS_T, 1 - 1e-10)[:, None]
    for rank in range(iou_PDG.shape[1]):
        active = int(np.searchsorted(-count_P, -rank, side="left"))  # those with more than `rank`
        iou_PG = iou_PDG[:active, rank]
        can_PATG = (iou_PG[:, None, None] >= needed_T1) & (free_PATG[:active] | crowd_PG[:active, None, None])
        counted_PATG = can_PATG & counts_PAG[:active, :, None]
        is_hit_PAT = counted_PATG.any(axis=3)
        choice_PATG = np.where(is_hit_PAT[..., None], counted_PATG, can_PATG)
        taken_PAT = choice_PATG.any(axis=3)
        overlap_PATG = np.where(choice_PATG, iou_PG[:, None, None], -1.0)
        best_PAT = width - 1 - overlap_PATG[..., ::-1].argmax(axis=3)  # the last of equals
        p, a, t = np.nonzero(taken_PAT)
        free_PATG[p, a, t, best_PAT[p, a, t]] = False
        row_P = first_P[:active] + rank
        left_out_PAT = np.where(taken_PAT, ~is_hit_PAT, found.outside_DA[row_P][..., None])
        hit_DA[row_P] = is_hit_PAT @ _BITS_T
        ignored_DA[row_P] = left_out_PAT @ _BITS_T


def _ious(truths: _Truths, found: _Detections, d: slice, g: slice) -> Any:
    from pycocotools import mask

    crowd = truths.crowd_G[g].astype(int).tolist()
    if found.runs is None or truths.runs is None:
        return mask.iou(found.boxes_D4[d], truths.boxes_G4[g], crowd)
    return mask.iou(found.runs[d], truths.runs[g], crowd)


def _runs(entries: Sequence[Entry], images: Sequence[Entry]) -> list[Any]:
    """The entries' masks as pycocotools' compressed run lengths."""
    from pycocotools.coco import COCO

    index = COCO()
    index.imgs = {image["id"]: image for image in images}
    return [index.annToRLE(entry) for entry in entries]
