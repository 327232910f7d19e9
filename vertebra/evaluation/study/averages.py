"""Several seeds of one net as one figure or one curve, with their spread."""

from __future__ import annotations

import bisect
from collections.abc import Sequence

from vertebra.evaluation.report.curves import Point
from vertebra.evaluation.statistics.comparison import mean_and_spread

Span = tuple[float, float, float]


def mean_curve(curves: Sequence[Sequence[Point]]) -> tuple[list[Point], list[Span]]:
    """The mean over the curves at the first one's x, and (x, mean - deviation, mean + deviation) where there are more.

    A curve that has no point at such an x is read between its neighbours.
    """
    curves = [curve for curve in curves if curve]
    if not curves:
        return [], []
    points, spans = [], []
    for x, _ in curves[0]:
        mean, deviation = mean_and_spread([value_at(curve, x) for curve in curves])
        points.append((x, mean))
        if deviation is not None:
            spans.append((x, mean - deviation, mean + deviation))
    return points, spans


def value_at(curve: Sequence[Point], x: float) -> float:
    """The curve's value at x: between points by the straight line, beyond its ends the end's."""
    place = bisect.bisect_left(curve, x, key=lambda point: point[0])
    if place == len(curve):
        return curve[-1][1]
    if place == 0 or curve[place][0] == x:
        return curve[place][1]
    (left, low), (right, high) = curve[place - 1], curve[place]
    return low + (high - low) * (x - left) / (right - left)


def rounded(points: Sequence[Sequence[float]]) -> list[list[float]]:
    """For files: x as it is, values with four decimals."""
    return [[point[0], *(round(value, 4) for value in point[1:])] for point in points]
