"""COCO's twelve figures for boxes and masks. pycocotools is the judge: it matches and accumulates, this file
feeds it.

Legend: T IoU thresholds .50:.05:.95, R 101 recall levels, K classes, A area ranges, M detections an image (1,
10, 100).

What is done around it, and why:
- Truths get new ids from 1, since pycocotools reads an id of 0 as "not matched". Their order is kept.
- `difficult` objects (VOC's flag) are, with difficult="ignore" (default), neither to be found nor punished,
  with the ordinary IoU and at most one detection each, exactly as COCO treats objects outside an area range.
  Calling them crowds would not do: a crowd's IoU is overlap over the detection's own area, and it absorbs any
  number of them. difficult="count" makes them ordinary objects. Files without the flag are not concerned.
- A detection's area (which decides what an area range overlooks) is its box's for boxes and its mask's for masks.
  pycocotools takes the box's for masks too where the file's first entry has one; so published mask figures are
  made of files without boxes, and detectron2 and mmdetection take the boxes out before they score.
- Where there is no truth (a class, or a size) pycocotools says -1; here it is NaN, and null in JSON.
"""

from __future__ import annotations

import contextlib
import io
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, get_args

import numpy as np

from vertebra.evaluation.metrics.files import (
    MASKS,
    NEEDS,
    Entry,
    EvaluationError,
    Truth,
    area_of,
    class_names,
    none_for_nan,
    read_predictions,
    read_truth,
)
from vertebra.evaluation.metrics.segmentations import encode

IouType = Literal["bbox", "segm"]
Difficult = Literal["ignore", "count"]

FIGURES = ("AP", "AP50", "AP75", "APs", "APm", "APl", "AR1", "AR10", "AR100", "ARs", "ARm", "ARl")


@dataclass(frozen=True)
class CocoFigures:
    """The twelve figures and each class's, 0..100, NaN where there is no truth.

    figures: by the names in FIGURES. per_class: {"AP", "AP50", "APs", "APm", "APl"} by class name. truths:
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
        """Fit for JSON: NaN becomes null."""
        return {
            "iou_type": self.iou_type,
            "difficult": self.difficult,
            "figures": none_for_nan(self.figures.items()),
            "per_class": {name: none_for_nan(values.items()) for name, values in self.per_class.items()},
            "truths": self.truths,
            "curves": {name: curve for name, curve in self.curves.items() if self.truths[name]},
        }


def coco_figures(
    truth: Truth | str | Path,
    predictions: Sequence[Entry] | str | Path,
    *,
    iou_type: IouType = "bbox",
    difficult: Difficult = "ignore",
) -> CocoFigures:
    """COCO figures of COCO results against COCO JSON truth (dicts or paths, neither is changed).

    An empty list scores 0. Raises EvaluationError with a sentence for files that cannot be scored.
    """
    truth = read_truth(truth, needs=NEEDS.get(iou_type, "bbox"))
    judge = _run(truth, predictions, iou_type, difficult)
    with contextlib.redirect_stdout(io.StringIO()):
        judge.accumulate()
        judge.summarize()
    precision_TRKA = judge.eval["precision"][..., -1]
    names = class_names(truth)
    per_class, curves, truths = {}, {}, {}
    counts = _count_truths(judge)
    for k, category_id in enumerate(judge.params.catIds):
        by_area = [_percent(precision_TRKA[:, :, k, a]) for a in range(4)]
        per_class[names[category_id]] = {
            "AP": by_area[0],
            "AP50": _percent(precision_TRKA[0, :, k, 0]),
            "APs": by_area[1],
            "APm": by_area[2],
            "APl": by_area[3],
        }
        truths[names[category_id]] = counts[category_id]
        curve_R = precision_TRKA[0, :, k, 0]
        curves[names[category_id]] = np.where(curve_R < 0, np.nan, curve_R).tolist()
    figures = {name: _percent(value) for name, value in zip(FIGURES, judge.stats)}
    return CocoFigures(iou_type, difficult, figures, per_class, truths, curves)


def _run(
    truth: Truth,
    predictions: Sequence[Entry] | str | Path,
    iou_type: IouType,
    difficult: Difficult,
) -> Any:
    """pycocotools' COCOeval after `evaluate`, without a word on the console."""
    if iou_type not in get_args(IouType) or difficult not in get_args(Difficult):
        raise EvaluationError(
            f"iou_type is bbox or segm, difficult is ignore or count; got {iou_type!r}, {difficult!r}"
        )
    predictions = read_predictions(predictions, truth, needs=NEEDS[iou_type])
    with contextlib.redirect_stdout(io.StringIO()):
        judge = _judge_class()(_truth_index(truth), _results_index(truth, predictions, iou_type), iou_type)
        judge.ignore_difficult = difficult == "ignore"
        judge.evaluate()
    return judge


def _judge_class() -> type:
    from pycocotools.cocoeval import COCOeval

    class Judge(COCOeval):  # type: ignore[misc]
        """COCOeval that also ignores difficult objects; its own `ignore` is overwritten from `iscrowd`."""

        ignore_difficult = True

        def _prepare(self) -> None:
            super()._prepare()
            for objects in self._gts.values():
                for entry in objects:
                    if self.ignore_difficult and entry.get("difficult"):
                        entry["ignore"] = 1

    return Judge


def _truth_index(truth: Truth) -> Any:
    annotations = []
    for index, entry in enumerate(truth["annotations"], start=1):
        annotations.append(dict(entry, id=index, iscrowd=int(entry.get("iscrowd") or 0), area=area_of(entry)))
    return _index(truth, annotations)


def _results_index(truth: Truth, predictions: Sequence[Entry], iou_type: IouType) -> Any:
    areas = None if iou_type == "bbox" else mask_areas(predictions)
    results = []
    for index, entry in enumerate(predictions, start=1):
        copy = dict(entry, id=index, iscrowd=0)
        copy["area"] = areas[index - 1] if areas is not None else entry["bbox"][2] * entry["bbox"][3]
        results.append(copy)
    return _index(truth, results)


def mask_areas(predictions: Sequence[Entry]) -> list[int]:
    """Pixels of each prediction's mask."""
    from pycocotools import mask

    runs = [encode(entry[MASKS], entry[MASKS]["size"]) for entry in predictions]
    # One by one: a list of more than 255 overflows inside pycocotools 2.0.11 under NumPy 2.
    return [int(mask.area(run)) for run in runs]


def _index(truth: Truth, annotations: list[Entry]) -> Any:
    from pycocotools.coco import COCO

    index = COCO()
    index.dataset = {"images": truth["images"], "categories": truth["categories"], "annotations": annotations}
    index.createIndex()
    return index


def _count_truths(judge: Any) -> dict[int, int]:
    counts = dict.fromkeys(judge.params.catIds, 0)
    for (_, category_id), objects in judge._gts.items():
        counts[category_id] += sum(not entry["ignore"] for entry in objects)
    return {int(category_id): count for category_id, count in counts.items()}


def _percent(values: Any) -> float:
    """Mean of the values that are not -1, in 0..100; NaN where all are."""
    values = np.asarray(values)
    values = values[values > -1]
    return float(100 * values.mean()) if values.size else float("nan")
