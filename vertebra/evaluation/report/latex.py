"""The main table as a LaTeX tabular (booktabs), with the same cells as in HTML and Markdown."""

from __future__ import annotations

from collections.abc import Sequence

from vertebra.ground.formats import APOSTROPHE, MINUS, NBSP, NONE, TIMES
from vertebra.ground.table import Cell, Row, Table

ESCAPED = {
    "\\": r"\textbackslash{}",
    "{": r"\{",
    "}": r"\}",
    "&": r"\&",
    "%": r"\%",
    "$": r"\$",
    "#": r"\#",
    "_": r"\_",
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    "<": r"\textless{}",
    ">": r"\textgreater{}",
    "|": r"\textbar{}",
    "±": r"$\pm$",
    MINUS: "$-$",
    TIMES: r"$\times$",
    NONE: "--",
    NBSP: "~",
    APOSTROPHE: "'",
}


def escape(text: str) -> str:
    """Return text for LaTeX's text mode."""
    return "".join(ESCAPED.get(character, character) for character in text)


def tabular(table: Table, comments: Sequence[str]) -> str:
    """Return a tabular for \\usepackage{booktabs}: comments first, rules between groups, the best bold."""
    lines = [*(f"% {' '.join(comment.split())}" for comment in comments), r"% needs \usepackage{booktabs}"]
    lines += [rf"\begin{{tabular}}{{l{'r' * len(table.columns)}}}", r"\toprule"]
    lines.append(_line([table.corner, *table.columns]))
    for name, rows in table.groups:
        lines.append(r"\midrule")
        if name:
            lines.append(rf"\multicolumn{{{len(table.columns) + 1}}}{{l}}{{\emph{{{escape(name)}}}}} \\")
        lines += [_row(row) for row in rows]
    return "\n".join([*lines, r"\bottomrule", r"\end{tabular}"]) + "\n"


def _row(row: Row) -> str:
    return " & ".join([_first(escape(str(row))), *map(_cell, row.full_cells)]) + r" \\"


def _cell(cell: Cell) -> str:
    text = rf"\textbf{{{escape(cell.text)}}}" if cell.best else escape(cell.text)
    return f"{text} ({escape(cell.sub)})" if cell.sub else text


def _line(cells: Sequence[str]) -> str:
    first, *others = map(escape, cells)
    return " & ".join([_first(first), *others]) + r" \\"


def _first(cell: str) -> str:
    """Protect the first cell of a row: after a row's end, LaTeX reads [ as the space to leave and * as its option."""
    return "{}" + cell if cell.startswith(("[", "*")) else cell
