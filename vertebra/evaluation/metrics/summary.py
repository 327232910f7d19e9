"""All figures of one detector on one test set, as they stand in a run's evaluation.json."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from vertebra.evaluation.metrics.coco import coco_figures
from vertebra.evaluation.metrics.files import MASKS, Entry, Truth, none_for_nan
from vertebra.evaluation.metrics.voc import Metric, voc_figures

MASK_FIGURES = ("AP", "AP50", "AP75", "APs", "APm", "APl")  # those of the masks that go into the log


def summarise(truth: Truth, predictions: Sequence[Entry], *, voc_metric: Metric = "voc07") -> dict[str, Any]:
    """Return COCO's twelve figures, VOC's mAP, and both for each class; 0..100, None where there is no truth.

    Where every object and every prediction has a mask (see `have_masks`) also `coco_segm`: COCO's twelve of the masks,
    and each class's segm_AP and segm_AP50. VOC's difficult objects are ignored in all. Widths count as in our files
    (`exact`), where VOC's inclusive corners have been moved to edges by the reader: so the figure is the devkit's.
    Where the truth has no object at all, as test sets whose annotations are not published, `note` says so.
    """
    note = {} if truth["annotations"] else {"note": nothing_to_score(truth)}
    coco = coco_figures(truth, predictions)
    voc = voc_figures(truth, predictions, metric=voc_metric)
    voc_per_class = none_for_nan(voc.per_class.items())
    per_class: dict[str, dict[str, Any]] = {
        name: {**none_for_nan(values.items()), "truths": coco.truths[name]} for name, values in coco.per_class.items()
    }
    segm = {}
    if have_masks(truth, predictions):
        masks = coco_figures(truth, predictions, iou_type="segm")
        segm = {"coco_segm": none_for_nan(masks.figures.items())}
        for name, values in masks.per_class.items():
            per_class[name] |= none_for_nan((f"segm_{figure}", values[figure]) for figure in ("AP", "AP50"))
    return {
        "coco": none_for_nan(coco.figures.items()),
        **segm,
        "voc": {"metric": voc_metric, **none_for_nan([("mAP", voc.mAP)]), "per_class": voc_per_class},
        "per_class": per_class,
        "images": len(truth["images"]),
        **note,
    }


def nothing_to_score(truth: Truth) -> str:
    """Return the note on a truth without objects."""
    return (
        f"There is nothing to score against: the truth of these {len(truth['images'])} images has no object "
        "(a test set's annotations may not be published); the predictions are whole, and can be sent to its server."
    )


def have_masks(truth: Truth, predictions: Sequence[Entry]) -> bool:
    """Return whether every object has a mask to score, and every prediction one in RLE, as COCO results have it.

    No predictions at all score 0.
    """
    objects = truth["annotations"]
    return (
        bool(objects)
        and all(entry.get(MASKS) for entry in objects)
        and all(isinstance(entry.get(MASKS), dict) for entry in predictions)
    )


def log_figures(summary: dict[str, Any]) -> dict[str, float]:
    """Return the figures for a log line and curves: COCO's, VOC's mAP, the masks' as segm_AP ...; no empty ones."""
    figures = {**summary["coco"], "VOC": summary["voc"]["mAP"]}
    figures |= {f"segm_{name}": summary["coco_segm"][name] for name in MASK_FIGURES if "coco_segm" in summary}
    return {name: value for name, value in figures.items() if value is not None}  # None: nothing to find
