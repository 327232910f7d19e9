"""Every figure of detectors, on the images as they are and on resampled ones, and what else a report has of them alone.

Predictions are measured and classified once, matched once by COCO's rules and once by VOC's, and every figure comes
from that. Row 0 of COCO's figures equals pycocotools', which tests check, at a tenth of its time.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from vertebra.evaluation.metrics.average_precision import CountsArray, Matched
from vertebra.evaluation.metrics.coco import match_overlaps
from vertebra.evaluation.metrics.files import class_names
from vertebra.evaluation.metrics.matching import SIZES
from vertebra.evaluation.metrics.summary import have_masks, is_aside
from vertebra.evaluation.metrics.voc import match_voc, recall_levels
from vertebra.evaluation.report.content import Comparison, DataFacts, PrecisionRecall, SideFacts, SizeRow
from vertebra.evaluation.report.runs import DetectorRun
from vertebra.evaluation.report.scores import RESAMPLES, Scored, Scores, require_recorded
from vertebra.evaluation.report.sides import Side
from vertebra.evaluation.report.task import DETECTION
from vertebra.evaluation.statistics.comparison import Difference
from vertebra.evaluation.statistics.resampling import (
    COCO_FIGURES,
    Resampled,
    draw_counts,
    resample_coco,
    reweigh,
    shown_in,
)
from vertebra.evaluation.statistics.resampling import COCO_LEVELS as LEVELS
from vertebra.evaluation.why.explain import Explanation, explain, judge
from vertebra.evaluation.why.resampling import compare_errors, resample_errors

ERROR_RESAMPLES = 300  # each kind of error costs as much as AP does
IOU = 0.5  # of the curves
VOC = {"VOC 11-point": "voc07", "VOC area": "voc10"}


@dataclass(frozen=True)
class ScoredBoxes(Scored):
    """errors: the AP lost to each kind. explanation: of `why.explain`. curves: each class's precision (0..1) at 101
    recalls at IoU .50. truths: of each class."""

    errors: dict[str, Resampled]
    explanation: Explanation
    curves: dict[str, list[float]]
    truths: dict[str, int]


class BoxScores(Scores):
    runs: Sequence[ScoredBoxes]

    def __init__(self, runs: Sequence[DetectorRun], sides: Sequence[Side]):
        truth = runs[0].truth
        counts_SI = draw_counts(len(truth["images"]), RESAMPLES, seed=0)
        masks = all(have_masks(truth, run.predictions) for run in runs)
        scored = [score(run, truth, counts_SI, masks=masks) for run in runs]
        data = DataFacts(len(truth["images"]), len(truth["annotations"]), list(class_names(truth).values()))
        super().__init__(DETECTION, sides, scored, scored[0].truths, data)

    def curve(self, side: Side, name: str) -> list[float]:
        """Return a class's precision at 101 recalls, mean over the runs."""
        return np.mean([self.runs[place].curves[name] for place in side.places], axis=0).tolist()

    def error_differences(self, a: Side, b: Side) -> dict[str, Difference | None]:
        """Return the AP lost to each kind of error by b less that by a, with p-values corrected over the kinds."""
        first, second = ([self.runs[place].errors for place in side.places] for side in (a, b))
        return compare_errors(first, second)


def score(run: DetectorRun, truth: dict[str, Any], counts_SI: CountsArray, *, masks: bool) -> ScoredBoxes:
    """Score the run's predictions anew. Raises UserError if its evaluation.json has another figure."""
    judged = judge(truth, run.predictions)
    matches = match_overlaps(judged.overlaps, judged.truth)
    figures = reweigh(matches, counts_SI, dict(COCO_FIGURES), LEVELS)
    require_recorded(DETECTION, run, figures, {"AP": "coco.AP", "AP50": "coco.AP50"})
    figures["AR100"] = recall(matches, counts_SI)
    if masks:
        figures["mask AP"] = resample_coco(truth, run.predictions, counts_SI, figures=("AP",), iou_type="segm")["AP"]
    voc = match_voc(truth, run.predictions)
    for name, metric in VOC.items():
        figures[name] = reweigh(voc, counts_SI, {name: (0, None)}, recall_levels(metric))[name]
    return ScoredBoxes(
        figures=figures,
        errors=resample_errors(judged.verdicts, counts_SI[:ERROR_RESAMPLES]),
        explanation=explain(judged, proposals=run.proposals),
        curves={name: matched.precision_at(LEVELS).tolist() for name, matched in matches.items()},
        truths={name: matched.truths() for name, matched in matches.items()},
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


def per_size(truth: Mapping[str, Any], described: Sequence[SideFacts], pair: Comparison | None) -> list[SizeRow]:
    """Return AP by COCO's three sizes."""
    areas = [annotation["area"] for annotation in truth["annotations"] if not is_aside(annotation)]
    return [
        SizeRow(
            name=name,
            figure=figure,
            truths=sum(low <= area < high for area in areas),
            AP=[side.figures[figure] for side in described],
            difference=pair.differences[figure] if pair else None,
        )
        for figure, (name, (low, high)) in zip(("APs", "APm", "APl"), list(SIZES.items())[1:])
    ]


def precision_recall(scores: BoxScores) -> PrecisionRecall:
    """Return the curves at 101 recalls, means over seeds."""
    classes = [name for name in scores.classes if scores.truths[name]]
    curves = np.array([[scores.curve(side, name) for side in scores.sides] for name in classes])
    return PrecisionRecall(
        iou=IOU,
        recall=[level / 100 for level in range(101)],
        mean=curves.mean(axis=0).round(4).tolist(),
        per_class=dict(zip(classes, curves.round(4).tolist())),
    )
