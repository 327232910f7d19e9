"""Cells that several tables have in common."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from vertebra.evaluation.report import formats
from vertebra.ground.table import Cell

NOT_DISTINGUISHABLE = "not distinguishable"


def labels(content: Mapping[str, Any]) -> list[str]:
    return [side["label"] for side in content["sides"]]


def difference_cells(difference: Mapping[str, Any] | None, *, verdict: bool = True) -> list[Cell]:
    """A difference with its interval, and its p-value, corrected where it is one of many.

    verdict: note under it that it is not distinguishable from 0.
    """
    if difference is None:
        return [Cell(formats.NONE), Cell(formats.NONE)]
    p_value = difference["p_value"] if difference["adjusted_p"] is None else difference["adjusted_p"]
    note = "" if difference["distinguishable"] or not verdict else NOT_DISTINGUISHABLE
    return [
        Cell(formats.change(difference), note, value=difference["estimate"]),
        Cell(formats.p_value(p_value), value=p_value),
    ]


def spread_cell(figure: Mapping[str, Any], *, best: bool = False) -> Cell:
    """Mean and standard deviation over seeds."""
    return Cell(formats.mean_and_spread(figure), best=best, value=figure["mean"])
