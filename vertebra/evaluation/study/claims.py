"""Whether depth costs plain nets what it does not cost residual ones: differences of means over seeds, with intervals.

A difference is a sum of group means with signs; its interval is Welch's: groups of a few runs each, with spreads of
their own, and Student's t for as many degrees of freedom as they leave.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass

CONFIDENCE = 0.95


@dataclass(frozen=True)
class Difference:
    """A difference in points. `se`, `low` and `high` are None where a group is a single run: no spread is known.

    runs: of the smallest group.
    """

    value: float
    se: float | None
    low: float | None
    high: float | None
    runs: int

    @property
    def sign(self) -> int:
        """1 or -1 where the interval leaves out 0, else 0."""
        if self.low is None or self.high is None:
            return 0
        return (self.low > 0) - (self.high < 0)


def difference(plus: Sequence[Sequence[float]], minus: Sequence[Sequence[float]]) -> Difference:
    """The means of the groups `plus` less the means of the groups `minus`, each group the figures of its runs."""
    value = sum(map(statistics.fmean, plus)) - sum(map(statistics.fmean, minus))
    groups = [*plus, *minus]
    runs = min(map(len, groups))
    if runs < 2:
        return Difference(value, None, None, None, runs)
    shares = [statistics.variance(group) / len(group) for group in groups]
    se = math.sqrt(sum(shares))
    if se == 0:
        return Difference(value, 0.0, value, value, runs)
    freedom = sum(shares) ** 2 / sum(share**2 / (len(group) - 1) for share, group in zip(shares, groups))
    half = student_quantile(CONFIDENCE, freedom) * se
    return Difference(value, se, value - half, value + half, runs)


def student_quantile(confidence: float, freedom: float) -> float:
    """The t that a variable of Student's distribution exceeds neither way with this probability."""
    low, high = 0.0, 1.0
    while student_within(high, freedom) < confidence:
        high *= 2
    for _ in range(60):
        middle = (low + high) / 2
        low, high = (middle, high) if student_within(middle, freedom) < confidence else (low, middle)
    return (low + high) / 2


def student_within(t: float, freedom: float, pieces: int = 400) -> float:
    """P(|T| < t), by Simpson's rule on the density over the angle whose tangent is T / sqrt(freedom)."""
    scale = math.exp(math.lgamma((freedom + 1) / 2) - math.lgamma(freedom / 2)) / math.sqrt(math.pi)
    step = math.atan(t / math.sqrt(freedom)) / pieces
    weights = (1 if place in (0, pieces) else 2 + 2 * (place % 2) for place in range(pieces + 1))
    return 2 * scale * step / 3 * sum(w * math.cos(place * step) ** (freedom - 1) for place, w in enumerate(weights))
