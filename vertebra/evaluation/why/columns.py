"""The figures of several detectors side by side: a column for each, and differences with their intervals."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from vertebra.evaluation.statistics.comparison import Difference
from vertebra.ground import formats
from vertebra.ground.table import Cell

Write = Callable[[float | None], str]
NOT_DISTINGUISHABLE = "not distinguishable"


@dataclass(frozen=True)
class Columns:
    """A column for each detector and, of two on a console, one for the change. detailed: with two decimals, not one."""

    labels: Sequence[str]
    detailed: bool

    @property
    def shows_change(self) -> bool:
        return self.detailed and len(self.labels) == 2

    def headings(self, figure: str = "") -> list[str]:
        """Return the columns' names, the figure's before the first."""
        first, *others = self.labels
        change = [f"{others[0]} {formats.MINUS} {first}"] if self.shows_change else []
        return [f"{figure} {first}".strip(), *others, *change]

    def ap(self, values: Sequence[float | None]) -> list[str]:
        """Return the cells of a figure in 0..100."""
        return self._cells(values, formats.points if self.detailed else formats.ap, self.change)

    def counts(self, values: Sequence[float | None]) -> list[str]:
        """Return the cells of how often something is."""
        return self._cells(values, formats.tally, formats.signed_tally)

    def change(self, change: float) -> str:
        """Return the change of a figure in 0..100 with its sign."""
        return (formats.signed_points if self.detailed else formats.signed)(change)

    def _cells(self, values: Sequence[float | None], write: Write, write_change: Callable[[float], str]) -> list[str]:
        cells = [write(value) for value in values]
        if self.shows_change:
            first, second = values
            cells.append(written_change(first, second, write_change))
        return cells


def written_change(first: float | None, second: float | None, write: Callable[[float], str]) -> str:
    """Return second less first, if both are known."""
    return formats.NONE if first is None or second is None else write(second - first)


def difference_cells(
    difference: Difference | None, detailed: bool = False, *, verdict: bool = True
) -> list[Cell | str]:
    """Return the difference with its interval, and its p-value (corrected where it is one of many).

    verdict: note under the difference that it is not distinguishable from 0.
    """
    if difference is None:
        return [formats.NONE, formats.NONE]
    write = formats.signed_points if detailed else formats.signed
    note = NOT_DISTINGUISHABLE if verdict and not difference.distinguishable else ""
    return [
        Cell(difference.text(write), note, value=difference.estimate),
        Cell(formats.p_value(difference.p), value=difference.p),
    ]
