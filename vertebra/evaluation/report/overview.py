"""Several heads in one overview: each one's headline, backbones by heads, and figure against cost over all of them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from vertebra.evaluation.plots.svg import STYLES, swatch
from vertebra.evaluation.report.assess import without_result
from vertebra.evaluation.report.charts import front_chart
from vertebra.evaluation.report.content import Content, Front, SideFacts
from vertebra.evaluation.report.costs import fronts
from vertebra.evaluation.report.task import Task
from vertebra.ground import formats
from vertebra.ground.table import Cell, Row, Table

REPEATED = ("headline", "caveat", "first", "expectations")  # of a head's report
OF_SIDES = ("label", "seeds", "figures", "cost", "file")


@dataclass(frozen=True)
class Head:
    """A head's name, the relative path of its page, and its report."""

    head: str
    page: str
    report: Content

    def to_dict(self) -> dict[str, Any]:
        """Return the parts of the head's report that the overview repeats."""
        sides = [{name: getattr(side, name) for name in OF_SIDES} for side in self.report.sides]
        repeated = {name: getattr(self.report, name) for name in REPEATED}
        return {"head": self.head, "page": self.page, **repeated, "sides": sides}


@dataclass(frozen=True)
class Overview:
    task: Task
    title: str
    first: Sequence[str]
    heads: Sequence[Head]
    fronts: Mapping[str, Front]
    failed: Sequence[str]

    @property
    def caveats(self) -> list[str]:
        """Each caveat once."""
        return list(dict.fromkeys(head.report.caveat for head in self.heads if head.report.caveat))


def assess_heads(reports: Sequence[tuple[str, Content]], failed: Sequence[str]) -> Overview:
    """Return the overview of (folder, that head's report)."""
    heads = [Head(content.head or folder, f"{folder}/report.html", content) for folder, content in reports]
    first = [line for head in heads for line in head.report.first] + without_result(failed)
    task = reports[0][1].task
    return Overview(
        task=task,
        title=f"Backbones in {len(heads)} heads: {formats.joined([head.head for head in heads])}",
        first=list(dict.fromkeys(first)),
        heads=heads,
        fronts=_fronts(task, heads),
        failed=list(failed),
    )


def _fronts(task: Task, heads: Sequence[Head]) -> dict[str, Front]:
    """Return the main figure against cost over the sides of all heads; a point's style tells its head."""
    sides = [replace(side, label=f"{side.label}, {head.head}") for head in heads for side in head.report.sides]
    styles = [place % STYLES for place, head in enumerate(heads) for _ in head.report.sides]
    return {
        name: replace(front, points=[replace(point, style=styles[point.side]) for point in front.points])
        for name, front in fronts(task, sides).items()
    }


def table(overview: Overview) -> Table:
    """Backbones by heads: mean ± standard deviation over seeds, with the seeds' number where it varies."""
    by_label = [{side.label: side for side in head.report.sides} for head in overview.heads]
    labels = list(dict.fromkeys(label for sides in by_label for label in sides))
    counts = {len(side.seeds) for sides in by_label for side in sides.values()}

    def cell(side: SideFacts | None) -> Cell:
        if side is None:
            return Cell(formats.NONE)
        return Cell(str(side.figures[overview.task.main]), f"n = {len(side.seeds)}" if len(counts) > 1 else "")

    rows = [Row(label, [cell(sides.get(label)) for sides in by_label]) for label in labels]
    return Table("", [head.head for head in overview.heads], rows, overview.task.main)


def draw(overview: Overview) -> dict[str, Any]:
    """Return the fronts over all heads, and each head's mark."""
    return {
        "charts": {name: front_chart(front) for name, front in overview.fronts.items()},
        "swatches": [swatch(place % STYLES) for place in range(len(overview.heads))],
    }
