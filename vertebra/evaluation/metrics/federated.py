"""LVIS' rules where they differ from COCO's, since no image has been looked through for all of its 1,203 classes.

A detection is judged where its class is known to be in the image (it has a truth there) or known not to be
(`neg_category_ids`); others are left out. Where a class is there but not every instance was marked
(`not_exhaustive_category_ids`), a detection that takes no truth is neither right nor wrong. The 300 best detections of
an image count, of all classes together and before any is left out. Classes are rare (in up to 10 training images),
common (up to 100) or frequent by the categories' `frequency`. The figures are lvis-api's (Gupta, Dollár, Girshick
2019, "LVIS: A Dataset for Large Vocabulary Instance Segmentation").
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from vertebra.evaluation.metrics.average_precision import BoolArray, IntArray, mean_of_known
from vertebra.evaluation.metrics.files import CheckedTruth, class_names
from vertebra.evaluation.metrics.overlaps import Overlaps
from vertebra.ground.errors import UserError

MOST = 300
FREQUENCIES = {"r": "APr", "c": "APc", "f": "APf"}
FIGURES = ("AP", "AP50", "AP75", "APs", "APm", "APl", *FREQUENCIES.values(), "AR300", "ARs", "ARm", "ARl")
_LISTS = ("neg_category_ids", "not_exhaustive_category_ids")
_HINT = "LVIS' files have it; score others by the metric coco"


def judge(overlaps: Overlaps, truth: CheckedTruth) -> tuple[Overlaps, BoolArray]:
    """Return the detections that LVIS judges, and which of them are wrong where they take no truth.

    Raises UserError where an image has not both lists of classes.
    """
    absent, not_exhaustive = (_pairs_listed(truth, name) for name in _LISTS)
    there = overlaps.image_G * len(overlaps.names) + overlaps.class_G
    key_D = overlaps.image_D * len(overlaps.names) + overlaps.class_D
    judged_D = (overlaps.place_D < MOST) & np.isin(key_D, np.concatenate([there, absent]))
    return overlaps.only(judged_D), ~np.isin(key_D[judged_D], not_exhaustive)


def _pairs_listed(truth: CheckedTruth, name: str) -> IntArray:
    """Return image place x classes + class place of each class that an image lists; unknown classes cannot be found."""
    class_place = {id_: place for place, id_ in enumerate(class_names(truth))}
    keys = []
    for place, image in enumerate(truth["images"]):
        listed = image.get(name)
        if not isinstance(listed, list):
            raise UserError(f"the truth's image {image['id']}", f"has no list {name}", _HINT)
        keys += [place * len(class_place) + class_place[id_] for id_ in listed if id_ in class_place]
    return np.array(keys, np.int64)


def by_frequency(truth: CheckedTruth, class_ap: Mapping[str, float]) -> dict[str, float]:
    """Return APr, APc and APf from each class's AP. Raises UserError where a class has no frequency."""
    names = class_names(truth)
    of_group: dict[str, list[float]] = {frequency: [] for frequency in FREQUENCIES}
    for category in truth["categories"]:
        if category.get("frequency") not in of_group:
            raise UserError(f"the truth's category {category['id']}", "has no frequency (r, c or f)", _HINT)
        of_group[category["frequency"]].append(class_ap[names[category["id"]]])
    return {FREQUENCIES[frequency]: mean_of_known(np.array(values)) for frequency, values in of_group.items()}
