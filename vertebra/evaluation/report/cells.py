"""A table as text, and what the cells of several tables have in common."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from vertebra.evaluation.report import formats

NOT_DISTINGUISHABLE = "not distinguishable"


@dataclass(frozen=True)
class Row:
    """A name and a cell a column; `subs` stand small under the cells; `best` are the bold ones.

    values: what the columns of a table that can be sorted sort by, None: the cell's text.
    """

    name: str
    cells: list[str]
    note: str = ""
    subs: list[str] = field(default_factory=list)
    best: set[int] = field(default_factory=set)
    values: list[float | None] = field(default_factory=list)


@dataclass(frozen=True)
class Table:
    """Columns after the first, whose heading is `corner`; rows in named groups (one without a name: no heading)."""

    title: str
    corner: str
    columns: list[str]
    groups: list[tuple[str, list[Row]]]
    note: str = ""

    @property
    def rows(self) -> list[Row]:
        return [row for _, rows in self.groups for row in rows]


def labels(content: Mapping[str, Any]) -> list[str]:
    return [side["label"] for side in content["sides"]]


def p_cell(difference: Mapping[str, Any] | None) -> str:
    """The p-value, corrected where it is one of many."""
    if difference is None:
        return formats.NONE
    adjusted = difference["adjusted_p"]
    return formats.p_value(difference["p_value"] if adjusted is None else adjusted)


def verdict(difference: Mapping[str, Any] | None) -> str:
    return "" if difference is None or difference["distinguishable"] else NOT_DISTINGUISHABLE


def estimate(difference: Mapping[str, Any] | None) -> float | None:
    return None if difference is None else difference["estimate"]
