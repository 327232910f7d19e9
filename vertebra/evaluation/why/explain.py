"""Everything that explains one file of predictions, as one dict that JSON and a report can take.

A file is judged once, and what explains it, and resamples of its errors, are made of the verdicts.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from vertebra.evaluation.metrics.files import (
    NEEDS,
    CheckedTruth,
    Difficult,
    Entry,
    IouType,
    Predictions,
    Truth,
    read_predictions,
    read_truth,
)
from vertebra.evaluation.metrics.overlaps import Overlaps, measure
from vertebra.evaluation.why.calibration import calibration
from vertebra.evaluation.why.confusion import confusion
from vertebra.evaluation.why.errors import Verdicts, classify, tide_errors
from vertebra.evaluation.why.operating import best_score
from vertebra.evaluation.why.proposals import proposal_recall
from vertebra.evaluation.why.slices import by_crowding, by_size
from vertebra.ground.errors import UserError
from vertebra.ground.parse import as_json
from vertebra.ground.rules import FLAGS

Explanation = dict[str, Any]
OF_THE_TRUTH = ("images", "truths", "iou", "background_iou", "low", "high")  # what no detector changes


@dataclass(frozen=True)
class Judged:
    """Predictions beside their truth: what overlaps (from an IoU of 0.5 or less on), and what TIDE says of each."""

    truth: CheckedTruth
    found: Predictions
    iou_type: IouType
    difficult: Difficult
    overlaps: Overlaps
    verdicts: Verdicts


def judge(
    truth: Truth | str | Path,
    predictions: Sequence[Entry] | str | Path,
    *,
    iou_type: IouType = "bbox",
    difficult: Difficult = "ignore",
    iou: float = 0.5,
    background: float = 0.1,
) -> Judged:
    """Return TIDE's verdicts at `iou` and `background` on files or lists in COCO's format, which are never changed.

    Raises UserError for what cannot be scored.
    """
    truth = read_truth(truth, needs=NEEDS[iou_type])
    found = read_predictions(predictions, truth, needs=NEEDS[iou_type])
    overlaps = measure(truth, found, floor=min(background, 0.5), iou_type=iou_type, difficult=difficult)
    return Judged(truth, found, iou_type, difficult, overlaps, classify(overlaps, iou=iou, background=background))


def explain(
    judged: Judged, *, score: float | None = None, proposals: Sequence[Entry] | str | Path | None = None
) -> Explanation:
    """Return TIDE's errors, confusions from `score` on (default: the score of the highest F1), calibration, AP by size
    and crowding and, given a file of proposals, their recall.

    Raises UserError for proposals that cannot be scored.
    """
    truth, overlaps = judged.truth, judged.overlaps
    coco_sizes, quantiles = by_size(overlaps)
    return {
        "images": overlaps.images,
        "truths": int((~overlaps.aside_G).sum()),
        "detections": len(judged.found),
        "iou_type": judged.iou_type,
        "difficult": judged.difficult,
        "errors": as_json(tide_errors(judged.verdicts)),
        "confusion": confusion(overlaps, best_score(overlaps) if score is None else score).to_dict(),
        "calibration": as_json(calibration(overlaps, truth, judged.found)),
        "size": as_json({"coco": coco_sizes, "quantiles": quantiles}),
        "crowding": as_json(by_crowding(overlaps, truth)),
        "proposals": None
        if proposals is None
        else as_json(proposal_recall(truth, proposals, difficult=judged.difficult)),
    }


def difference(first: Any, second: Any) -> Any:
    """Return every figure of `second` less that of `first`, in the shape of an explanation; None where either has none.

    Both are of one truth. Names and what belongs to the truth stay; lists whose rows differ (the classes most
    confused) are left out.
    """
    if isinstance(first, dict) and isinstance(second, dict):
        return {
            key: first[key] if key in OF_THE_TRUTH else difference(first[key], second[key])
            for key in first
            if key in second and key not in ("most_confused", "classes_without_truth")
        }
    if isinstance(first, list) and isinstance(second, list):
        return [difference(*pair) for pair in zip(first, second)]
    if isinstance(first, str):
        return first
    return None if first is None or second is None else second - first


def require_same_truth(first: Truth, second: Truth, names: tuple[str, str]) -> None:
    """Raise UserError where two truths differ in what is scored, so that their figures do not compare."""
    for part, fields in (
        ("images", ("id",)),
        ("categories", ("id", "name")),
        ("annotations", ("image_id", "category_id", "bbox", *FLAGS)),
    ):
        facts = [[[_field(entry, name) for name in fields] for entry in truth[part]] for truth in (first, second)]
        if facts[0] != facts[1]:
            raise UserError(
                f"{names[0]} and {names[1]} differ in their {part}, and detectors compare on one truth alone; "
                "evaluate both on one test set (tools/eval_det.py RUN_DIR --test-source ... --output OTHER_DIR)"
            )


def _field(entry: Entry, name: str) -> Any:
    """Return a field; a flag that is not there is 0."""
    return entry.get(name) or 0 if name in FLAGS else entry.get(name)
