"""Recall of proposals: AR at 100, 300 and 1000 an image, by size, classes aside (COCO's `useCats = 0`).

A file of proposals is COCO results JSON whose category_id may be missing: image_id, bbox, score.

Legend: D proposals, G truths, T IoU thresholds, A sizes, M limits.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from vertebra.evaluation.metrics.files import Difficult, Entry, Truth
from vertebra.evaluation.metrics.matching import SIZES, THRESHOLDS_T, take_wanted_first
from vertebra.evaluation.metrics.overlaps import measure

LIMITS = (100, 300, 1000)


@dataclass(frozen=True)
class ProposalRecall:
    """Recall (0..100) of the truths of one size by limit: `average` over IoU .50:.05:.95, `at50` at .50."""

    size: str
    truths: int
    average: dict[int, float]
    at50: dict[int, float]

    def to_dict(self) -> dict[str, Any]:
        figures = {f"AR@{limit}": value for limit, value in self.average.items()}
        figures |= {f"R50@{limit}": value for limit, value in self.at50.items()}
        return {"size": self.size, "truths": self.truths, **figures}


def proposal_recall(
    truth: Truth, proposals: Sequence[Entry] | str | Path, *, difficult: Difficult = "ignore"
) -> list[ProposalRecall]:
    """Return the recall of each size, all sizes first. Raises UserError for files that cannot be scored."""
    overlaps = measure(truth, proposals, floor=float(THRESHOLDS_T[0]), difficult=difficult, classless=True)
    overlaps = overlaps.first(overlaps.place_D, LIMITS[-1])
    pairs = overlaps.pairs.last_of_equals_first()
    rows = []
    for size, (low, high) in SIZES.items():
        wanted_G = ~overlaps.aside_G & (overlaps.area_G >= low) & (overlaps.area_G <= high)
        truths = int(wanted_G.sum())
        found_TM = np.zeros((len(THRESHOLDS_T), len(LIMITS)))
        for t, iou in enumerate(THRESHOLDS_T):
            taken_D, _ = take_wanted_first(overlaps, pairs.where(pairs.iou_P >= iou), wanted_G)
            place_H = overlaps.place_D[taken_D >= 0]
            # Matching is by falling score, so what the first 100 take does not depend on those behind them.
            found_TM[t] = [(place_H < limit).sum() for limit in LIMITS]
        recall_TM = 100 * found_TM / truths if truths else np.full_like(found_TM, np.nan)
        average, at50 = recall_TM.mean(axis=0).tolist(), recall_TM[0].tolist()
        rows.append(ProposalRecall(size, truths, dict(zip(LIMITS, average)), dict(zip(LIMITS, at50))))
    return rows
