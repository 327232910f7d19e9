"""The oracle of COCO's figures: pycocotools' own evaluation, without its printing."""

from __future__ import annotations

import contextlib
import copy
import io
import math
from typing import Any

from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from tests.evaluation.cases import Entry


class Evaluation(COCOeval):
    """COCOeval in which difficult objects are ignored as objects outside an area range are."""

    ignore_difficult = False

    def _prepare(self) -> None:
        super()._prepare()
        for entries in self._gts.values():
            for entry in entries:
                entry["ignore"] = int(entry["ignore"] or (self.ignore_difficult and entry.get("difficult", 0)))


def cocoeval(
    truth: Entry, predictions: list[Entry], iou_type: str = "bbox", difficult: str = "count", **settings: Any
) -> COCOeval:
    """COCOeval after `summarize`; with `settings`, parameters other than COCO's, after `accumulate`.

    Masks are scored without their boxes: beside a box pycocotools takes the box's area for the mask's.
    """
    left_out = "bbox" if iou_type == "segm" else None
    found = [{key: value for key, value in entry.items() if key != left_out} for entry in predictions]
    with contextlib.redirect_stdout(io.StringIO()):
        index = COCO()
        index.dataset = copy.deepcopy(truth)
        index.createIndex()
        evaluation = Evaluation(index, index.loadRes(copy.deepcopy(found)), iou_type)
        evaluation.ignore_difficult = difficult == "ignore"
        for name, value in settings.items():
            setattr(evaluation.params, name, value)
        evaluation.evaluate()
        evaluation.accumulate()
        if not settings:
            evaluation.summarize()
    return evaluation


def percent(value: float) -> float:
    """A figure on the 0-100 scale, NaN where pycocotools has -1."""
    return math.nan if value == -1 else 100 * value
