"""A figure over a side's seeds, and how it is written."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields
from typing import Any

from vertebra.evaluation.statistics.comparison import mean_and_spread
from vertebra.ground.formats import NBSP, NONE, ap, known


@dataclass(frozen=True)
class Spread:
    """Mean and standard deviation (n - 1) over n runs; std: None for one run, both None where a run has no figure."""

    mean: float | None
    std: float | None
    n: int

    @classmethod
    def over(cls, values: Sequence[float]) -> Spread:
        if None in map(known, values):
            return cls(None, None, len(values))
        return cls(*mean_and_spread(values), len(values))

    def __str__(self) -> str:
        """Return '45.0 ± 0.6' of an AP figure, without the spread where there is one run."""
        return ap(self.mean) + ("" if self.std is None else f" ± {ap(self.std)}")


def with_figures_beside(one: Any) -> dict[str, Any]:
    """Return a dataclass's fields, those of its mapping `figures` beside the others: report.json has them so."""
    return {name: getattr(one, name) for name in (part.name for part in fields(one)) if name != "figures"} | one.figures


def with_unit(figure: Spread | None, write: Callable[[float | None], str]) -> str:
    """Return '207 ± 2 ms': mean and standard deviation of a measure, in the unit that `write` gives the mean."""
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
