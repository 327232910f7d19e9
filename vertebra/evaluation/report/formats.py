"""How figures with a spread and differences with an interval are written; `ground.formats` writes plain numbers."""

from __future__ import annotations

import re
from collections.abc import Callable

from vertebra.evaluation.report.content import Spread
from vertebra.evaluation.statistics.comparison import Difference
from vertebra.ground.formats import NBSP, NONE, ap, interval, signed


def mean_and_spread(figure: Spread) -> str:
    """'45.0 ± 0.6' of an AP figure, without the spread where there is one run."""
    return ap(figure.mean) + ("" if figure.std is None else f" ± {ap(figure.std)}")


def plus_minus(difference: Difference) -> str:
    """'6.0 ± 0.4' of a difference: its size, and half its interval."""
    return f"{ap(abs(difference.estimate))}{NBSP}±{NBSP}{ap(difference.high - difference.estimate)}"


def change(difference: Difference | None) -> str:
    """'+6.0 (+5.6 to +6.4)' of a difference with its interval."""
    if difference is None:
        return NONE
    return f"{signed(difference.estimate)} ({interval(difference.low, difference.high)})"


def spread(figure: Spread | None, write: Callable[[float | None], str]) -> str:
    """'207 ± 2 ms': mean and standard deviation of a measure, in the unit that `write` gives the mean."""
    if figure is None:
        return NONE
    mean, std = figure.mean, figure.std
    if not std or mean is None:
        return write(mean)
    number, _, unit = write(mean).partition(NBSP)
    if not re.fullmatch(r"\d+(\.\d+)?", number) or NBSP in unit or float(number) == 0:  # minutes and seconds, say
        return f"{write(mean)} ± {write(std)}"
    digits = len(number.partition(".")[2])
    return f"{number} ± {std * float(number) / mean:.{digits}f}" + (f"{NBSP}{unit}" if unit else "")
