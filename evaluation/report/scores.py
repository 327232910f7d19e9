"""Each run's figures from its predictions, and what their differences are worth: `evaluation.coco`, `.comparison`."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from evaluation.coco import CocoFigures, coco_figures
from evaluation.comparison import Difference, compare_sides, corrected
from evaluation.report.collect import Run
from evaluation.report.reading import ReportError, first_of
from evaluation.resampling import COCO_FIGURES, VOC_LEVELS, Resampled, draw_counts, resample_coco, resample_voc

RESAMPLES = 1000
CHECKED = ("AP", "AP50")  # figures that are scored anew
VOC = "VOC mAP"
TOLERANCE = 0.05  # AP: what rounding in evaluation.json may cost


def score(run: Run, truth: dict[str, Any]) -> CocoFigures:
    """The run's predictions scored anew, for classes and curves; `ReportError` if evaluation.json says otherwise."""
    figures = coco_figures(truth, run.predictions)
    if math.isnan(figures["AP"]):
        raise ReportError(f"{run.directory / 'truth.json'} has no object to find, so there is no AP to compare.")
    for name in CHECKED:
        found, told = figures[name], first_of(run.evaluation, f"coco.{name}")
        if not isinstance(told, (int, float)) or abs(found - told) > TOLERANCE:
            raise ReportError(
                f"{run.directory / 'evaluation.json'} says {name} {told}, but predictions.json scores {found:.2f}: "
                f"they are not of one evaluation. Score the run again with: python tools/eval_det.py {run.directory}"
            )
    return figures


class PairedIntervals:
    """95 % intervals of differences between runs, all scored on the same resampled images; each run once.

    Figures: COCO's of boxes by size, and VOC's where every run has one and the same.
    """

    def __init__(self, runs: Sequence[Run], truth: dict[str, Any]):
        counts_SI = draw_counts(len(truth["images"]), RESAMPLES, seed=0)
        self._runs = [_resampled(run, truth, counts_SI, _voc_metric(runs)) for run in runs]

    def between(self, first: int, second: int) -> dict[str, tuple[float, float]]:
        """(low, high) of second minus first, by figure."""
        told = {name: self.sides([first], [second], name) for name in self._runs[0]}
        return {name: (one.low, one.high) for name, one in told.items() if one is not None}

    def figures(self) -> list[str]:
        """The names of the figures."""
        return list(self._runs[0])

    def values(self, places: Sequence[int], figure: str) -> list[float]:
        """A figure of some runs on the images as they are."""
        return [float(self._runs[place][figure].mean_S[0]) for place in places]

    def sides(self, first: Sequence[int], second: Sequence[int], figure: str) -> Difference | None:
        """The mean of the second runs minus that of the first ones; None where there is nothing to measure."""
        sides = [np.stack([self._runs[place][figure].mean_S for place in side]) for side in (first, second)]
        return compare_sides(*sides)

    def by_class(self, first: Sequence[int], second: Sequence[int], figure: str) -> dict[str, Difference | None]:
        """The same of each class, with p-values corrected over the classes."""
        told = {}
        for name in self._runs[0][figure].classes:
            sides = [np.stack([self._runs[place][figure].of(name) for place in side]) for side in (first, second)]
            told[name] = compare_sides(*sides)
        return corrected(told)


def _voc_metric(runs: Sequence[Run]) -> Any:
    """The VOC metric that all runs were scored by, or None."""
    metrics = {first_of(run.evaluation, "voc.metric") for run in runs}
    metric = metrics.pop()
    return metric if not metrics and metric in VOC_LEVELS else None


def _resampled(run: Run, truth: dict[str, Any], counts_SI: np.ndarray, voc: Any) -> dict[str, Resampled]:
    told = resample_coco(truth, run.predictions, counts_SI, figures=list(COCO_FIGURES))
    if voc:
        told[VOC] = resample_voc(truth, run.predictions, counts_SI, metric=voc)
    return told
