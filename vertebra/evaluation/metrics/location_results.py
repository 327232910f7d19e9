"""A localiser's results for people and for other programs: figures, COCO results, ILSVRC's submission file.

Legend: I images, Q guesses an image (best first), C classes.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vertebra.evaluation.metrics.files import Entry
from vertebra.evaluation.predict.localisation import (
    Guesses,
    LocationTruth,
    errors_by_class,
    location_error,
    overlaps,
    placed_boxes,
    with_true_class,
)
from vertebra.ground.formats import counted

CONVENTION = "right: IoU >= 0.5 with any box of the class; a box 1-based and inclusive is x0 = xmin - 1 .. x1 = xmax"


def summarise(
    oracle: Guesses,
    predicted: Guesses | None,
    truth: LocationTruth,
    class_names: Sequence[str],
    *,
    usual_share_hw: tuple[float, float],
) -> dict[str, Any]:
    """Return all figures, fit for JSON.

    oracle: one box an image, for the true class. predicted: of the classes that a classifier gave. usual_share_hw:
    of the trivial guess in the middle of the image, height and width as shares of the image's.
    """
    trivial = {"whole_image": placed_boxes(truth, (1.0, 1.0)), "centre_box": placed_boxes(truth, usual_share_hw)}
    summary: dict[str, Any] = {
        "images": len(truth),
        "convention": CONVENTION,
        "oracle": {
            **vars(location_error(oracle, truth, 1)),
            "mean_iou": float(overlaps(oracle.boxes_IQ4, truth).mean()),
        },
        "baselines": {
            name: vars(location_error(with_true_class(boxes_I4, truth), truth, 1)) for name, boxes_I4 in trivial.items()
        },
        "centre_box_share_hw": list(usual_share_hw),
        "by_class": errors_by_class(oracle, truth, class_names),
    }
    if predicted is not None:
        counts = {"top-1": 1, f"top-{predicted.classes_IQ.shape[1]}": predicted.classes_IQ.shape[1]}
        summary["predicted"] = {name: vars(location_error(predicted, truth, count)) for name, count in counts.items()}
    return summary


def coco_rows(
    guesses: Guesses, image_ids: Sequence[int], class_scores_IQ: NDArray[np.float64] | None = None
) -> list[Entry]:
    """Return the guesses as COCO results, category ids counting from 1.

    score is the class's (None: the box's), box_score the box's.
    """
    rows: list[Entry] = []
    xywh_IQ4 = guesses.boxes_IQ4.astype(np.float64)
    xywh_IQ4[..., 2:] -= xywh_IQ4[..., :2]
    scores_IQ = guesses.scores_IQ if class_scores_IQ is None else class_scores_IQ
    for place, image_id in enumerate(image_ids):
        for rank, label in enumerate(guesses.classes_IQ[place].tolist()):
            rows.append(
                {
                    "image_id": int(image_id),
                    "category_id": label + 1,
                    "bbox": np.round(xywh_IQ4[place, rank], 3).tolist(),
                    "score": float(scores_IQ[place, rank]),
                    "box_score": float(guesses.scores_IQ[place, rank]),
                }
            )
    return rows


def ilsvrc_lines(guesses: Guesses, ids_C: Sequence[int], file_names: Sequence[str]) -> str:
    """Return ILSVRC's localisation submission, a line an image, in the order of the names.

    A line is `id xmin ymin xmax ymax` for each guess, corners counted from 1 and belonging to the box.
    """
    corners_IQ4 = np.rint(guesses.boxes_IQ4).astype(np.int64) + np.array([1, 1, 0, 0])
    order = sorted(range(len(file_names)), key=lambda place: file_names[place].rpartition("/")[2])
    return "".join(
        " ".join(
            " ".join(map(str, (ids_C[label], *corners)))
            for label, corners in zip(guesses.classes_IQ[place].tolist(), corners_IQ4[place].tolist())
        )
        + "\n"
        for place in order
    )


def sentence(summary: dict[str, Any]) -> str:
    """Return the figures in a few lines for people."""
    oracle, baselines = summary["oracle"], summary["baselines"]
    lines = [f"{counted(summary['images'], 'image')}, {summary['view']}", f"true class given    {_error_text(oracle)}"]
    lines += [f"  {name.replace('_', ' '):<17} {_error_text(baseline)}" for name, baseline in baselines.items()]
    for name, figures in summary.get("predicted", {}).items():
        low, high = figures["class_error_interval"]
        lines.append(
            f"{name:<19} {_error_text(figures)}; class error {figures['class_error']:.2f} [{low:.2f}, {high:.2f}]; "
            f"wrong: {figures['class_wrong']} by class, {figures['box_wrong']} by box"
        )
    return "\n".join(lines)


def _error_text(figures: dict[str, Any]) -> str:
    low, high = figures["error_interval"]
    return f"localisation error {figures['error']:6.2f} % [{low:.2f}, {high:.2f}]"
