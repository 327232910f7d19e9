"""Several seeds of one net as one curve, with their spread."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from vertebra.evaluation.report.curves import Point, rounded, smoothed, thinned
from vertebra.evaluation.statistics.comparison import mean_and_spread
from vertebra.evaluation.study.protocols import Group

SMOOTHING = 0.02  # share of a training curve over which its mean is taken
Span = tuple[float, float, float]


@dataclass(frozen=True)
class Curves:
    """A net's training and test error over the iterations, means over seeds; test_band: (iteration, mean - and +
    deviation)."""

    label: str
    family: str
    depth: int
    train: list[Point]
    test: list[Point]
    test_band: list[Span]


@dataclass(frozen=True)
class Responses:
    """Standard deviation of what each 3x3 layer of a net gives, in order: means over the runs that were measured."""

    label: str
    family: str
    depth: int
    runs: int
    images: int
    deviations: list[float]
    mean: float


def mean_curves(group: Group) -> Curves:
    train, _ = mean_curve([thinned(smoothed(run.train_curve, SMOOTHING)) for run in group.runs])
    test, band = mean_curve([run.test_curve for run in group.runs])
    return Curves(**group.net.facts, train=rounded(train, 4), test=rounded(test, 4), test_band=rounded(band, 4))


def mean_curve(lines: Sequence[Sequence[Point]]) -> tuple[list[Point], list[Span]]:
    """Return the mean over the lines at the first one's x and, of several, (x, mean - deviation, mean + deviation).

    A line without a point at such an x is read between its neighbours, beyond its ends at the end.
    """
    axes = [np.array(line).T for line in lines if line]
    points, spans = [], []
    for x in axes[0][0].tolist() if axes else ():
        mean, deviation = mean_and_spread([float(np.interp(x, xs, ys)) for xs, ys in axes])
        points.append((x, mean))
        if deviation is not None:
            spans.append((x, mean - deviation, mean + deviation))
    return points, spans


def mean_responses(group: Group) -> Responses | None:
    """Return each 3x3 layer's deviation, the mean over those seeds that were measured; None where none was."""
    measured = [run.responses for run in group.runs if run.responses]
    if not measured:
        return None
    layers = zip(*(one["layers"] for one in measured))
    deviations = [mean_and_spread([layer["deviation"] for layer in same])[0] for same in layers]
    rounded, mean = [round(value, 5) for value in deviations], round(mean_and_spread(deviations)[0], 4)
    images = measured[0]["images"]
    return Responses(**group.net.facts, runs=len(measured), images=images, deviations=rounded, mean=mean)
