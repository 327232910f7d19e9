"""One table for every place: aligned text for a terminal, Markdown for a file; HTML is the report's Jinja macro."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import groupby

from vertebra.ground.formats import MINUS, NBSP, NONE, TIMES

PLAIN = str.maketrans({MINUS: "-", NONE: "-", TIMES: "x", NBSP: " "})


@dataclass(frozen=True)
class Cell:
    """text; `sub` stands small under it; the best of a table are bold; value: what a column is sorted by."""

    text: str
    sub: str = ""
    best: bool = False
    value: float | None = None

    def __str__(self) -> str:
        return f"{self.text} ({self.sub})" if self.sub else self.text


@dataclass(frozen=True)
class Row:
    """A name, its small print, and a cell for each column. Neighbours of one `group` stand under its heading."""

    name: str
    cells: Sequence[Cell | str]
    note: str = ""
    group: str = ""

    @property
    def full_cells(self) -> list[Cell]:
        """The cells, plain text as a Cell."""
        return [cell if isinstance(cell, Cell) else Cell(cell) for cell in self.cells]

    def __str__(self) -> str:
        return f"{self.name} ({self.note})" if self.note else self.name


def _without_pipes(text: str) -> str:
    return text.replace("|", "\\|")


@dataclass(frozen=True)
class Table:
    """Rows under columns. corner: the heading of the rows' names; left: columns of words, which are aligned left.

    heads: for each column the lines that stand above its name; neighbours with equal ones share them.
    """

    title: str
    columns: Sequence[str]
    rows: Sequence[Row]
    corner: str = ""
    note: str = ""
    left: frozenset[str] = field(default_factory=frozenset)
    heads: Sequence[Sequence[str]] = ()

    @property
    def groups(self) -> list[tuple[str, list[Row]]]:
        """Neighbouring rows of one group under its name, in the rows' order."""
        return [(name, list(rows)) for name, rows in groupby(self.rows, key=lambda row: row.group)]

    @property
    def spanning_heads(self) -> list[tuple[Sequence[str], int]]:
        """The lines above the columns, each with how many neighbours share them."""
        return [(head, len(list(same))) for head, same in groupby(self.heads)]

    def text(self) -> str:
        """Return the table aligned for a terminal, its title above and its note below.

        Typographic marks of figures become plain ones, which every terminal has; names stay as they are.
        """
        lines = list(self._lines(str))
        widths = [max(len(line[column]) for line in lines) for column in range(len(lines[0]))]
        is_left = [True, *(name in self.left for name in self.columns)]
        head, *body = (
            "  ".join(
                cell.ljust(width) if left else cell.rjust(width).translate(PLAIN)
                for cell, width, left in zip(line, widths, is_left)
            ).rstrip()
            for line in lines
        )
        written, below = [head], iter(body)
        for name, rows in self.groups:
            written += [*filter(None, [name]), *(next(below) for _ in rows)]
        return "\n".join([*filter(None, [self.title]), *written, *filter(None, [self.note])])

    def markdown(self, escape: Callable[[str], str] = _without_pipes) -> str:
        """Return a pipe table, without title and note. escape: makes plain text safe in a cell of Markdown."""

        def written(cell: Cell | str) -> str:
            text = escape(str(cell))
            return f"**{text}**" if isinstance(cell, Cell) and cell.best else text

        head, *body = ("| " + " | ".join(line) + " |" for line in self._lines(written))
        rule = "|---|" + "".join("---|" if name in self.left else "---:|" for name in self.columns)
        return "\n".join([head, rule, *body]) + "\n"

    def _lines(self, write: Callable[[Cell | str], str]) -> Iterator[list[str]]:
        heads = self.heads or [()] * len(self.columns)
        names = [f"{name} ({'; '.join(head)})" if head else name for name, head in zip(self.columns, heads)]
        yield [write(self.corner), *map(write, names)]
        for row in self.rows:
            yield [write(str(row)), *map(write, row.cells)]
