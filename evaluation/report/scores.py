"""Each run's figures from its predictions, and the intervals of differences: `evaluation.coco` and `.bootstrap`."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from evaluation.bootstrap import Metric, bootstrap_difference
from evaluation.coco import CocoFigures, coco_figures
from evaluation.report.collect import Run
from evaluation.report.reading import ReportError, first_of

RESAMPLES = 1000
INTERVALS: dict[str, Metric] = {
    "AP": "coco",
    "AP50": "coco50",
}  # the figures whose differences get an interval, and bootstrap's name
TOLERANCE = 0.05  # AP: what rounding in evaluation.json may cost


def score(run: Run, truth: dict[str, Any]) -> CocoFigures:
    """The run's predictions scored anew, for classes and curves; `ReportError` if evaluation.json says otherwise."""
    figures = coco_figures(truth, run.predictions)
    if math.isnan(figures["AP"]):
        raise ReportError(f"{run.directory / 'truth.json'} has no object to find, so there is no AP to compare.")
    for name in INTERVALS:
        found, told = figures[name], first_of(run.evaluation, f"coco.{name}")
        if not isinstance(told, (int, float)) or abs(found - told) > TOLERANCE:
            raise ReportError(
                f"{run.directory / 'evaluation.json'} says {name} {told}, but predictions.json scores {found:.2f}: "
                f"they are not of one evaluation. Score the run again with: python tools/eval_det.py {run.directory}"
            )
    return figures


class PairedIntervals:
    """95 % intervals of differences between runs, both scored on the same resampled images; each pair once."""

    def __init__(self, runs: Sequence[Run], truth: dict[str, Any]):
        self._runs, self._truth = runs, truth
        self._known: dict[tuple[int, int], dict[str, tuple[float, float]]] = {}

    def between(self, first: int, second: int) -> dict[str, tuple[float, float]]:
        """(low, high) of second minus first, by figure."""
        if (second, first) in self._known:
            return {name: (-high, -low) for name, (low, high) in self._known[second, first].items()}
        if (first, second) not in self._known:
            self._known[first, second] = {
                name: self._draw(self._runs[first], self._runs[second], metric) for name, metric in INTERVALS.items()
            }
        return self._known[first, second]

    def _draw(self, first: Run, second: Run, metric: Metric) -> tuple[float, float]:
        interval = bootstrap_difference(
            self._truth,
            first.predictions,
            second.predictions,
            metric=metric,
            resamples=RESAMPLES,
        )
        return interval.low, interval.high
