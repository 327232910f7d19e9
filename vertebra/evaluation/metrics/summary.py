"""All figures of one detector on one test set, as they stand in a run's evaluation.json."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from vertebra.evaluation.metrics.coco import coco_figures
from vertebra.evaluation.metrics.files import (
    MASKS,
    CheckedTruth,
    Difficult,
    Entry,
    Predictions,
    Truth,
    read_predictions,
    read_truth,
)
from vertebra.evaluation.metrics.voc import Metric, voc_figures
from vertebra.ground.doubts import ObjectColumns, doubts
from vertebra.ground.formats import counted
from vertebra.ground.parse import as_json

MASK_FIGURES = ("AP", "AP50", "AP75", "APs", "APm", "APl")  # those of the masks that go into the log


def summarise(truth: Truth, predictions: Sequence[Entry], *, voc_metric: Metric = "voc07") -> dict[str, Any]:
    """Return COCO's twelve figures, VOC's mAP, and both for each class; 0..100, None where there is no truth.

    Where every object and every prediction has a mask (see `have_masks`) also `coco_segm`: COCO's twelve of the masks,
    and each class's segm_AP and segm_AP50. VOC's difficult objects are ignored in all. Widths count as in our files
    (`exact`), where VOC's inclusive corners have been moved to edges by the reader: so the figure is the devkit's.
    Where the truth has no object at all, as test sets whose annotations are not published, `note` says so.
    """
    truth = read_truth(truth)
    predictions = read_predictions(predictions, truth)
    note = {} if truth["annotations"] else {"note": nothing_to_score(truth)}
    coco = coco_figures(truth, predictions)
    voc = voc_figures(truth, predictions, metric=voc_metric)
    per_class = {name: {**values, "truths": coco.truths[name]} for name, values in coco.per_class.items()}
    segm = {}
    if have_masks(truth, predictions):
        masks = coco_figures(truth, predictions, iou_type="segm")
        segm = {"coco_segm": masks.figures}
        for name, values in masks.per_class.items():
            per_class[name] |= {f"segm_{figure}": values[figure] for figure in ("AP", "AP50")}
    summary = {
        "coco": coco.figures,
        **segm,
        "voc": {"metric": voc_metric, "mAP": voc.mAP, "per_class": voc.per_class},
        "per_class": per_class,
        "images": len(truth["images"]),
        **note,
    }
    return {name: as_json(part) for name, part in summary.items()}


def nothing_to_score(truth: Truth) -> str:
    """Return the note on a truth without objects."""
    return (
        f"There is nothing to score against: the truth of {counted(len(truth['images']), 'image')} has no object "
        "(a test set's annotations may not be published); the predictions are whole, and can be sent to its server."
    )


def words(truth: CheckedTruth, *, difficult: Difficult = "ignore") -> list[str]:
    """Return what to know of COCO's figures on a checked truth: what is odd in it, and where pycocotools' differ."""
    aside_G = truth.crowd_G | truth.difficult_G
    columns = ObjectColumns(truth.image_G, truth.class_G, truth.xywh_G4, truth.area_G, aside_G)
    found = [f"{reason}; {hint}" for reason, hint in doubts(columns)]
    return [*found, *filter(None, [ignored(truth) if difficult == "ignore" else ""])]


def ignored(truth: Truth) -> str:
    """Return a sentence where difficult objects make COCO's figures differ from pycocotools'; else ''."""
    count = sum(bool(entry.get("difficult")) and not entry.get("iscrowd") for entry in truth["annotations"])
    if not count:
        return ""
    return (
        f"difficult objects ({count}) are neither to be found nor punished, also in COCO's figures: pycocotools, which "
        "does not know VOC's flag, counts them and gives other ones (score.py --difficult count gives its)"
    )


def is_aside(entry: Mapping[str, Any]) -> bool:
    """Return True for crowd and difficult objects: neither finding nor missing them counts."""
    return bool(entry.get("iscrowd")) or bool(entry.get("difficult"))


def have_masks(truth: Truth, predictions: Predictions) -> bool:
    """Return whether every object has a mask to score, and every prediction one in RLE, as COCO results have it.

    No predictions at all score 0.
    """
    objects = truth["annotations"]
    return bool(objects) and all(entry.get(MASKS) for entry in objects) and predictions.have_masks


def log_figures(summary: dict[str, Any]) -> dict[str, float]:
    """Return the figures for a log line and curves: COCO's, VOC's mAP, the masks' as segm_AP ...; no empty ones."""
    figures = {**summary["coco"], "VOC": summary["voc"]["mAP"]}
    figures |= {f"segm_{name}": summary["coco_segm"][name] for name in MASK_FIGURES if "coco_segm" in summary}
    return {name: value for name, value in figures.items() if value is not None}  # None: nothing to find
