"""All figures of one detector on one test set, as they stand in a run's evaluation.json."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from evaluation.coco import coco_figures
from evaluation.files import Entry, Truth, none_for_nan
from evaluation.voc import Metric, voc_figures


def summarise(truth: Truth, predictions: Sequence[Entry], *, voc_metric: Metric = "voc07") -> dict[str, Any]:
    """COCO's twelve figures, VOC's mAP, and both for each class; 0..100, None where there is no truth.

    VOC's difficult objects are ignored in both. Widths count as in our files (`exact`), where VOC's inclusive
    corners have been moved to edges by the reader: so the figure is the devkit's. Where the truth has no object at
    all, as test sets whose annotations are not published, `note` says so.
    """
    note = {} if truth["annotations"] else {"note": nothing_to_score(truth)}
    coco = coco_figures(truth, predictions)
    voc = voc_figures(truth, predictions, metric=voc_metric)
    voc_per_class = none_for_nan(voc.per_class.items())
    return {
        "coco": none_for_nan(coco.figures.items()),
        "voc": {"metric": voc_metric, **none_for_nan([("mAP", voc.mAP)]), "per_class": voc_per_class},
        "per_class": {
            name: {**none_for_nan(values.items()), "truths": coco.truths[name]}
            for name, values in coco.per_class.items()
        },
        "images": len(truth["images"]),
        **note,
    }


def nothing_to_score(truth: Truth) -> str:
    """What to say of a truth without objects."""
    return (
        f"There is nothing to score against: the truth of these {len(truth['images'])} images has no object "
        "(a test set's annotations may not be published); the predictions are whole, and can be sent to its server."
    )
