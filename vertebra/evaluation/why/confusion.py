"""Which class is taken for which, at one score and one IoU.

Every detection from the score on and every truth that counts appears once: first detections take truths of their own
class (the diagonal, COCO's matches), then those left over take free truths of other classes. What remains is
background taken for an object (extra detections of a found object among it), and objects missed.

Legend: D detections, K classes; the matrix is (K + 1) x (K + 1): rows the truth, columns the detection, the last of
each background.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from vertebra.evaluation.metrics.average_precision import IntArray
from vertebra.evaluation.metrics.matching import take
from vertebra.evaluation.metrics.overlaps import Overlaps
from vertebra.evaluation.why.operating import IOU, hits

MOST = 10  # pairs of classes that are confused


@dataclass(frozen=True)
class Confusion:
    """counts: rows are the truth's class, columns the detection's; the last of both is background."""

    names: list[str]
    score: float
    counts: IntArray

    def to_dict(self) -> dict[str, Any]:
        diagonal = int(np.trace(self.counts[:-1, :-1]))
        return {
            "score": self.score,
            "iou": IOU,
            "classes": self.names,
            "rows": "truth, last row: background",
            "columns": "detection, last column: missed",
            "counts": self.counts.tolist(),
            "right": diagonal,
            "wrong_class": int(self.counts[:-1, :-1].sum()) - diagonal,
            "background": int(self.counts[-1].sum()),
            "missed": int(self.counts[:, -1].sum()),
            "most_confused": [
                [truth, detection, *counts] for truth, detection, counts in most_confused(self.names, self.counts[None])
            ],
        }


def most_confused(names: Sequence[str], counts_SKK: ArrayLike) -> list[tuple[str, str, list[Any]]]:
    """Return (truth's class, detection's class, each side's count) of the pairs with the greatest count of any side.

    counts_SKK: each side's matrix, with or without the background; means over seeds may stand in it.
    """
    off_SKK = np.array(counts_SKK)[:, : len(names), : len(names)]
    off_SKK[:, np.eye(len(names), dtype=bool)] = 0
    greatest_KK = off_SKK.max(axis=0)
    order = np.argsort(-greatest_KK, axis=None, kind="stable")[:MOST]
    rows, columns = np.unravel_index(order, greatest_KK.shape)
    return [(names[r], names[c], off_SKK[:, r, c].tolist()) for r, c in zip(rows, columns) if greatest_KK[r, c]]


def confusion(overlaps: Overlaps, score: float) -> Confusion:
    """Return the confusions of the detections with a score of `score` or more."""
    shown = overlaps.only(overlaps.score_D >= score)
    detections, truths, classes = len(shown.score_D), len(shown.class_G), len(shown.names)
    taken_D, counted_D = hits(shown)
    free_G = ~shown.aside_G
    free_G[taken_D[taken_D >= 0]] = False
    left_D = counted_D & (taken_D < 0)
    pairs = shown.pairs
    others = pairs.where((pairs.iou_P >= IOU) & free_G[pairs.truth_P] & left_D[pairs.detection_P])
    taken_D = np.where(left_D, take(others, detections, truths), taken_D)
    free_G[taken_D[taken_D >= 0]] = False
    true_D = np.append(shown.class_G, classes)[taken_D]  # -1, no truth, is background
    counts = np.zeros((classes + 1, classes + 1), dtype=np.int64)
    np.add.at(counts, (true_D[counted_D], shown.class_D[counted_D]), 1)
    counts[:classes, classes] = shown.truths_by_class(free_G)
    return Confusion(shown.names, score, counts)
