"""Every figure of the runs, on the images as they are and on resampled ones, and the differences of sides.

Legend: I images, S resamples (row 0: the images as they are), C classes, K runs of a side, T IoU thresholds.

Predictions are matched once by COCO's rules and once by VOC's, and every figure comes from the matches. Row 0 of COCO's
figures equals pycocotools', which tests check, at a tenth of its time.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from vertebra.evaluation.metrics.average_precision import CountsArray, Matched
from vertebra.evaluation.metrics.coco import match_coco
from vertebra.evaluation.metrics.summary import have_masks
from vertebra.evaluation.metrics.voc import match_voc
from vertebra.evaluation.report.reading import first_of
from vertebra.evaluation.report.runs import Run
from vertebra.evaluation.report.sides import Side
from vertebra.evaluation.report.spread import Spread
from vertebra.evaluation.statistics.comparison import Difference, corrected
from vertebra.evaluation.statistics.resampling import (
    COCO_FIGURES,
    VOC_LEVELS,
    Resampled,
    compare,
    draw_counts,
    resample_coco,
    reweigh,
    shown_in,
)
from vertebra.evaluation.statistics.resampling import COCO_LEVELS as LEVELS
from vertebra.evaluation.why.resampling import compare_errors, resample_errors
from vertebra.ground.errors import UserError

RESAMPLES = 1000
ERROR_RESAMPLES = 300  # each kind of error costs as much as AP does
RECALL = "AR100"
MASKS = "mask AP"
VOC = {"VOC 11-point": "voc07", "VOC area": "voc10"}
CHECKED = ("AP", "AP50")  # figures that evaluation.json must have as well
TOLERANCE = 0.05  # AP: what rounding in evaluation.json may cost


@dataclass(frozen=True)
class Scored:
    """One run: figures by name, the AP lost to each kind of error, each class's precision (0..1) at 101 recalls at
    IoU .50, and its truths."""

    figures: dict[str, Resampled]
    errors: dict[str, Resampled]
    curves: dict[str, list[float]]
    truths: dict[str, int]


class Scores:
    """All runs on the same resamples of the images, and their sides' means and differences."""

    def __init__(self, runs: Sequence[Run], sides: Sequence[Side], truth: dict[str, Any]):
        counts_SI = draw_counts(len(truth["images"]), RESAMPLES, seed=0)
        masks = all(have_masks(truth, run.predictions) for run in runs)
        self.sides = sides
        self.runs = [score(run, truth, counts_SI, masks=masks) for run in runs]
        self.names = list(self.runs[0].figures)
        self.classes = list(self.runs[0].truths)
        self.truths = self.runs[0].truths

    def spread(self, side: Side, figure: str, of: str | None = None) -> Spread:
        """Return a figure, or that of one class, over the side's runs on the images as they are."""
        found = [self.runs[place].figures[figure] for place in side.places]
        return Spread.over([float((one.mean_S if of is None else one.of(of))[0]) for one in found])

    def curve(self, side: Side, name: str) -> list[float]:
        """Return a class's precision at 101 recalls, mean over the runs."""
        return np.mean([self.runs[place].curves[name] for place in side.places], axis=0).tolist()

    def difference(self, a: Side, b: Side, figure: str, of: str | None = None) -> Difference | None:
        """Return side b less side a in a figure, or in that of one class; None where there is nothing to measure."""
        first, second = ([self.runs[place].figures[figure] for place in side.places] for side in (a, b))
        return compare(first, second, of=of)

    def class_differences(self, a: Side, b: Side, figure: str) -> dict[str, Difference | None]:
        """Return side b less side a for each class, with p-values corrected over the classes."""
        return corrected({name: self.difference(a, b, figure, name) for name in self.classes})

    def error_differences(self, a: Side, b: Side) -> dict[str, Difference | None]:
        """Return the AP lost to each kind of error by b less that by a, with p-values corrected over the kinds."""
        first, second = ([self.runs[place].errors for place in side.places] for side in (a, b))
        return compare_errors(first, second)


def score(run: Run, truth: dict[str, Any], counts_SI: CountsArray, *, masks: bool) -> Scored:
    """Score the run's predictions anew. Raises UserError if its evaluation.json has another figure."""
    matches = match_coco(truth, run.predictions)
    figures = reweigh(matches, counts_SI, dict(COCO_FIGURES), LEVELS)
    _check(run, {name: float(figures[name].mean_S[0]) for name in CHECKED})
    figures[RECALL] = recall(matches, counts_SI)
    if masks:
        figures[MASKS] = resample_coco(truth, run.predictions, counts_SI, figures=("AP",), iou_type="segm")["AP"]
    voc = match_voc(truth, run.predictions)
    for name, metric in VOC.items():
        figures[name] = reweigh(voc, counts_SI, {name: (0, None)}, VOC_LEVELS[metric])[name]
    errors = resample_errors(truth, run.predictions, counts_SI[:ERROR_RESAMPLES])
    return Scored(
        figures=figures,
        errors=errors,
        curves={name: matched.precision_at(LEVELS).tolist() for name, matched in matches.items()},
        truths={name: matched.truths() for name, matched in matches.items()},
    )


def _check(run: Run, scored: Mapping[str, float]) -> None:
    if math.isnan(scored["AP"]):
        raise UserError(run.path, "its truth has no object to find, so there is no AP to compare")
    for name, value in scored.items() if run.name is None else ():
        recorded = first_of(run.evaluation, f"coco.{name}")
        if not isinstance(recorded, (int, float)) or abs(value - recorded) > TOLERANCE:
            raise UserError(
                run.path / "evaluation.json",
                f"it has {name} {recorded}, but predictions.json scores {value:.2f}: they are not of one evaluation",
                f"score the run again with: python tools/eval_det.py {run.path}",
            )


def recall(matches: Mapping[str, Matched], counts_SI: CountsArray) -> Resampled:
    """Return COCO's AR100: the share of truths found by 100 detections of an image and class, mean over thresholds."""
    images, thresholds = counts_SI.shape[1], next(iter(matches.values())).thresholds
    hits_CI = np.array(
        [
            np.bincount(one.image_D, (one.hit_AD[0][:, None] >> np.arange(thresholds) & 1).sum(axis=1), images)
            for one in matches.values()
        ]
    )
    truths_CI = np.array([one.truths_AI[0] for one in matches.values()])
    drawn_SI = np.concatenate([np.ones((1, images)), counts_SI])
    with np.errstate(invalid="ignore", divide="ignore"):  # of a class without a truth: NaN
        recall_SC = 100 * (drawn_SI @ hits_CI.T) / (thresholds * (drawn_SI @ truths_CI.T.astype(np.float64)))
    return Resampled(tuple(matches), recall_SC, shown_in(matches, images))
