"""Student's t distribution with any number of degrees of freedom: tails and quantiles, by the incomplete beta function.

Abramowitz & Stegun 1964, 26.5.8 (the continued fraction) and 26.7.1 (t's distribution by it).
"""

from __future__ import annotations

import math

_TINY = 1e-300


def two_sided_p(t: float, freedom: float) -> float:
    """The probability of a value at least as far from 0 as `t`; `freedom` may be fractional, or infinite (normal)."""
    if math.isinf(freedom):
        return math.erfc(abs(t) / math.sqrt(2))
    if math.isinf(t):
        return 0.0
    return _incomplete_beta(freedom / (freedom + t * t), freedom / 2, 0.5)


def quantile(level: float, freedom: float) -> float:
    """The t with a share `level` (0..1) of the distribution within -t..t."""
    return t_of_p(1 - level, freedom)


def t_of_p(p_value: float, freedom: float) -> float:
    """The t whose `two_sided_p` is `p_value` (0 < p_value <= 1)."""
    low, high = 0.0, 1.0
    while two_sided_p(high, freedom) > p_value:
        low, high = high, 2 * high
    for _ in range(80):
        middle = (low + high) / 2
        low, high = (middle, high) if two_sided_p(middle, freedom) > p_value else (low, middle)
    return (low + high) / 2


def _incomplete_beta(x: float, a: float, b: float) -> float:
    """The regularised incomplete beta function I_x(a, b)."""
    if x <= 0 or x >= 1:
        return float(x >= 1)
    if x > (a + 1) / (a + b + 2):  # where the fraction converges fast
        return 1 - _incomplete_beta(1 - x, b, a)
    logarithm = math.lgamma(a + b) - math.lgamma(a) - math.lgamma(b) + a * math.log(x) + b * math.log1p(-x)
    return math.exp(logarithm) / (a * _fraction(x, a, b))


def _fraction(x: float, a: float, b: float) -> float:
    """1 + d1/(1 + d2/(1 + ...)), from the front by Lentz's rule."""
    value, front, back = 1.0, 1.0, 0.0
    for step in range(1, 1000):
        m = step // 2
        if step % 2:
            d = -(a + m) * (a + b + m) * x / ((a + 2 * m) * (a + 2 * m + 1))
        else:
            d = m * (b - m) * x / ((a + 2 * m - 1) * (a + 2 * m))
        back = 1 / (1 + d * back or _TINY)
        front = 1 + d / front or _TINY
        value *= front * back
        if abs(front * back - 1) < 1e-15:
            break
    return value
