"""Detections and truths of a data set, and which of them overlap: measured once, used many times.

Legend: D detections of all images, ordered by image (the truth's order) and falling score, equal scores as in the
file; G truths of all images in the file's order; P pairs of one detection and one truth of the same image.

IoU is pycocotools', and with a crowd the share of the detection that lies in it (COCO's rule). Pairs below a floor
are not kept: of the millions of pairs of a data set, a few hundred thousand touch.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from vertebra.evaluation.metrics.average_precision import BoolArray, FloatArray, IntArray
from vertebra.evaluation.metrics.files import (
    MASKS,
    NEEDS,
    CheckedTruth,
    Difficult,
    Entry,
    IouType,
    Predictions,
    Truth,
    class_names,
    places_of,
    read_predictions,
    read_truth,
)
from vertebra.ground import boxes, rle

_PAIRS_AT_ONCE = 1 << 18  # a few arrays of so many numbers stay in a processor's cache


@dataclass(frozen=True)
class Pairs:
    """Overlapping pairs in order of detection, and of falling IoU for each; of equals the first truth comes first."""

    detection_P: IntArray
    truth_P: IntArray
    iou_P: FloatArray

    def where(self, keep_P: BoolArray) -> Pairs:
        return Pairs(self.detection_P[keep_P], self.truth_P[keep_P], self.iou_P[keep_P])

    def last_of_equals_first(self) -> Pairs:
        """Return the pairs in the order in which pycocotools chooses: of truths with equal IoU the last."""
        order_P = np.lexsort((-self.truth_P, -self.iou_P, self.detection_P))
        return Pairs(self.detection_P[order_P], self.truth_P[order_P], self.iou_P[order_P])


@dataclass(frozen=True)
class Overlaps:
    """Detections, truths and their pairs, as arrays.

    names: the classes, by place. image_, class_: places of image and class. place_D: how many detections of its image
    come before it, class_place_D: how many of its image and class. source_D: its place in the list of predictions.
    aside_G: truths neither to be found nor punished (crowds; difficult objects where they are ignored). Areas are the
    truth's `area` and the detection's own, in pixels.
    """

    names: list[str]
    images: int
    image_D: IntArray
    class_D: IntArray
    score_D: FloatArray
    area_D: FloatArray
    source_D: IntArray
    place_D: IntArray
    class_place_D: IntArray
    image_G: IntArray
    class_G: IntArray
    area_G: FloatArray
    crowd_G: BoolArray
    aside_G: BoolArray
    pairs: Pairs

    @property
    def same_class_P(self) -> BoolArray:
        return self.class_D[self.pairs.detection_P] == self.class_G[self.pairs.truth_P]

    def matchable(self, iou: float) -> Pairs:
        """Return the pairs of one class with an IoU of `iou` or more, in the order in which pycocotools chooses."""
        return self.pairs.where(self.same_class_P & (self.pairs.iou_P >= iou)).last_of_equals_first()

    def truths_by_class(self, wanted_G: BoolArray) -> IntArray:
        return np.bincount(self.class_G[wanted_G], minlength=len(self.names))

    def first(self, place_D: IntArray, most: int) -> Overlaps:
        """Leave out the detections whose place (`place_D` or `class_place_D`) is `most` or more."""
        return self.only(place_D < most)

    def only(self, keep_D: BoolArray) -> Overlaps:
        """Leave out the other detections. Places (`place_D`, `class_place_D`) stay what they were."""
        if keep_D.all():
            return self
        new_D = np.cumsum(keep_D) - 1
        pairs = self.pairs.where(keep_D[self.pairs.detection_P])
        fields: dict[str, Any] = {
            name: getattr(self, name)[keep_D] for name in self.__dataclass_fields__ if name.endswith("_D")
        }
        return replace(self, **fields, pairs=replace(pairs, detection_P=new_D[pairs.detection_P]))


def measure(
    truth: Truth | str | Path,
    predictions: Sequence[Entry] | str | Path,
    *,
    floor: float = 0.1,
    iou_type: IouType = "bbox",
    difficult: Difficult = "ignore",
    classless: bool = False,
    same_class: bool = False,
    crowd_share: bool = True,
    pixel: float = 0.0,
) -> Overlaps:
    """Pair truth and predictions (COCO's, checked by `metrics.files`) wherever their IoU is `floor` (above 0) or more.

    classless: everything is one class, as for proposals. same_class: pairs of one class only.
    crowd_share: False gives crowds the ordinary IoU. pixel: added to the sides of boxes, 1 where x + width is the last
    pixel inside.
    """
    truth = read_truth(truth, needs=NEEDS[iou_type])
    found = read_predictions(predictions, truth, needs=NEEDS[iou_type], classes=not classless)
    names = class_names(truth)
    image_G, class_G, crowd_G = truth.image_G, truth.class_G, truth.crowd_G
    image_D, class_D = places_of(found.image_id_K, truth.image_id_I), np.zeros(len(found), np.int64)
    if classless:
        class_G = np.zeros(len(class_G), np.int64)
    elif found.category_id_K is not None:
        class_D = places_of(found.category_id_K, np.array(list(names), np.int64))
    order_D = np.lexsort((-found.score_K, image_D))
    image_D, class_D = image_D[order_D], class_D[order_D]

    key_D, key_G = image_D * max(1, len(names)) + class_D, image_G * max(1, len(names)) + class_G
    shapes_D, shapes_G = _shapes(truth, found, iou_type, pixel)
    shapes_D = shapes_D[order_D] if isinstance(shapes_D, np.ndarray) else [shapes_D[d] for d in order_D]
    keys = (key_D, key_G) if same_class else (image_D, image_G)
    return Overlaps(
        names=["any"] if classless else list(names.values()),
        images=len(truth.image_id_I),
        image_D=image_D,
        class_D=class_D,
        score_D=found.score_K[order_D],
        area_D=_areas(shapes_D),
        source_D=order_D,
        place_D=place_in_group(image_D),
        class_place_D=place_in_group(key_D),
        image_G=image_G,
        class_G=class_G,
        area_G=truth.area_G,
        crowd_G=crowd_G,
        aside_G=crowd_G | truth.difficult_G if difficult == "ignore" else crowd_G,
        pairs=_touching(keys, shapes_D, shapes_G, crowd_G & crowd_share, floor),
    )


def neighbours(truth: Truth) -> tuple[IntArray, Pairs]:
    """Return how many others the image of each truth has, crowds among them, and its overlaps (IoU of boxes) with them.

    The overlaps are Pairs of two truths: each pair appears from both sides.
    """
    truth = read_truth(truth)
    plain_G = np.zeros(len(truth.image_G), dtype=bool)
    pairs = _touching((truth.image_G, truth.image_G), truth.xywh_G4, truth.xywh_G4, plain_G, floor=1e-9)
    others_G = np.bincount(truth.image_G, minlength=len(truth.image_id_I))[truth.image_G] - 1
    return others_G, pairs.where(pairs.detection_P != pairs.truth_P)


def place_in_group(group_D: IntArray) -> IntArray:
    """Return how many earlier elements are of the same group, of each element."""
    order_D = np.argsort(group_D, kind="stable")
    grouped_D = group_D[order_D]
    place_D = np.empty(len(group_D), dtype=np.int64)
    place_D[order_D] = np.arange(len(group_D)) - np.searchsorted(grouped_D, grouped_D)
    return place_D


def _shapes(truth: CheckedTruth, found: Predictions, iou_type: IouType, pixel: float) -> tuple[Any, Any]:
    """Return what overlaps, of the predictions and of the truth: arrays of boxes, or lists of RLE."""
    if iou_type == "bbox":
        assert found.xywh_K4 is not None
        longer = np.array([0.0, 0.0, pixel, pixel])
        return found.xywh_K4 + longer, truth.xywh_G4 + longer
    sizes = {image["id"]: (image["height"], image["width"]) for image in truth["images"]}
    predicted = [rle.encode(mask, sizes[id_]) for mask, id_ in zip(found.masks_K or [], found.image_id_K.tolist())]
    return predicted, [rle.encode(entry[MASKS], sizes[entry["image_id"]]) for entry in truth["annotations"]]


def _areas(shapes_D: Any) -> FloatArray:
    if isinstance(shapes_D, np.ndarray):
        return shapes_D[:, 2] * shapes_D[:, 3]
    from pycocotools import mask

    return np.array([mask.area(shape) for shape in shapes_D], dtype=np.float64)


def _touching(keys: tuple[IntArray, IntArray], shapes_D: Any, shapes_G: Any, crowd_G: BoolArray, floor: float) -> Pairs:
    """Pair detections and truths of equal key (image, or image and class) with an IoU of `floor` or more."""
    if isinstance(shapes_D, np.ndarray):
        parts = _box_pairs(*keys, shapes_D, shapes_G, crowd_G)
    else:
        parts = _mask_pairs(*keys, shapes_D, shapes_G, crowd_G)
    found = [part.where(part.iou_P >= floor) for part in parts]
    nothing = Pairs(np.zeros(0, np.int64), np.zeros(0, np.int64), np.zeros(0))
    detection_P, truth_P, iou_P = (
        np.concatenate([getattr(part, name) for part in [nothing, *found]])
        for name in ("detection_P", "truth_P", "iou_P")
    )
    order_P = np.lexsort((truth_P, -iou_P, detection_P))
    return Pairs(detection_P[order_P], truth_P[order_P], iou_P[order_P])


def _box_pairs(
    key_D: IntArray, key_G: IntArray, boxes_D4: FloatArray, boxes_G4: FloatArray, crowd_G: BoolArray
) -> Iterator[Pairs]:
    """Yield all pairs of equal key, about _PAIRS_AT_ONCE at a time."""
    order_G = np.argsort(key_G, kind="stable")
    start_D, stop_D = (np.searchsorted(key_G[order_G], key_D, side=side) for side in ("left", "right"))
    count_D = stop_D - start_D
    paired = np.flatnonzero(count_D)
    part_D = np.cumsum(count_D[paired]) // _PAIRS_AT_ONCE
    for rows in np.split(paired, np.flatnonzero(np.diff(part_D)) + 1):
        detection_P = np.repeat(rows, count_D[rows])
        first_P = np.repeat(start_D[rows] - np.cumsum(count_D[rows]) + count_D[rows], count_D[rows])
        truth_P = order_G[first_P + np.arange(len(first_P))]
        iou_P = boxes.iou(boxes_D4[detection_P], boxes_G4[truth_P], crowd_G[truth_P])
        yield Pairs(detection_P, truth_P, iou_P)


def _mask_pairs(
    key_D: IntArray, key_G: IntArray, masks_D: Sequence[Any], masks_G: Sequence[Any], crowd_G: BoolArray
) -> Iterator[Pairs]:
    """Yield the pairs of each key, with the IoU of their RLE."""
    from pycocotools import mask

    order_D, order_G = np.argsort(key_D, kind="stable"), np.argsort(key_G, kind="stable")
    sorted_D, sorted_G = key_D[order_D], key_G[order_G]
    for key in np.intersect1d(key_D, key_G):
        mine_D, mine_G = (
            order[np.searchsorted(sorted_, key) : np.searchsorted(sorted_, key, side="right")]
            for order, sorted_ in ((order_D, sorted_D), (order_G, sorted_G))
        )
        crowd = crowd_G[mine_G].astype(np.uint8)
        iou_DG = mask.iou([masks_D[d] for d in mine_D], [masks_G[g] for g in mine_G], crowd)
        d, g = np.nonzero(iou_DG)
        yield Pairs(mine_D[d], mine_G[g], iou_DG[d, g])
