"""The report's tables in Markdown, with the same cells as in HTML."""

from __future__ import annotations

from collections.abc import Sequence

from vertebra.evaluation.report.cells import Row, Table
from vertebra.evaluation.report.formats import markdown


def table(told: Table) -> str:
    """A pipe table: names to the left, figures to the right, what stands small in brackets, the best bold."""
    lines = [_line([told.corner, *told.columns]), "|---|" + "---:|" * len(told.columns)]
    lines += [_line([_name(row), *_cells(row)], escaped=True) for row in told.rows]
    return "\n".join(lines) + "\n"


def _name(row: Row) -> str:
    return markdown(f"{row.name} ({row.note})" if row.note else row.name)


def _cells(row: Row) -> list[str]:
    subs = [*row.subs, *[""] * (len(row.cells) - len(row.subs))]
    told = [f"{cell} ({sub})" if sub else cell for cell, sub in zip(row.cells, subs)]
    return [f"**{markdown(cell)}**" if place in row.best else markdown(cell) for place, cell in enumerate(told)]


def _line(cells: Sequence[str], *, escaped: bool = False) -> str:
    return "| " + " | ".join(cells if escaped else map(markdown, cells)) + " |"
