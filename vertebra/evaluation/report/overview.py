"""Several heads in one overview: each one's headline, backbones by heads, and AP against cost over all of them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from markupsafe import Markup

from vertebra.evaluation.plots.svg import STYLES, swatch
from vertebra.evaluation.report.assess import without_result
from vertebra.evaluation.report.charts import front_chart
from vertebra.evaluation.report.content import Content, Front, Outcome, SideCost, SideFacts
from vertebra.evaluation.report.costs import fronts
from vertebra.evaluation.report.spread import Spread
from vertebra.ground import formats
from vertebra.ground.table import Cell, Row, Table


@dataclass(frozen=True)
class HeadSide:
    label: str
    seeds: Sequence[Any]
    figures: Mapping[str, Spread]
    cost: SideCost
    file: bool


@dataclass(frozen=True)
class Head:
    """The parts of a head's report that the overview repeats; page: relative path of the whole."""

    head: str
    page: str
    headline: str
    caveat: str
    first: Sequence[str]
    sides: Sequence[HeadSide]
    expectations: Sequence[Outcome]


@dataclass(frozen=True)
class Overview:
    title: str
    first: Sequence[str]
    heads: Sequence[Head]
    fronts: Mapping[str, Front]
    failed: Sequence[str]

    @property
    def caveats(self) -> list[str]:
        """Each caveat once."""
        return list(dict.fromkeys(head.caveat for head in self.heads if head.caveat))


def assess_heads(reports: Sequence[tuple[str, Content]], *, title: str | None, failed: Sequence[str]) -> Overview:
    """Return the overview of (folder, that head's report)."""
    heads = [
        Head(
            head=content.head or folder,
            page=f"{folder}/report.html",
            headline=content.headline,
            caveat=content.caveat,
            first=content.first,
            sides=[HeadSide(side.label, side.seeds, side.figures, side.cost, side.file) for side in content.sides],
            expectations=content.expectations,
        )
        for folder, content in reports
    ]
    first = [line for head in heads for line in head.first] + without_result(failed)
    return Overview(
        title=title or f"Backbones in {len(heads)} heads: {formats.joined([head.head for head in heads])}",
        first=list(dict.fromkeys(first)),
        heads=heads,
        fronts=_fronts([(head.head, content.sides) for head, (_, content) in zip(heads, reports)]),
        failed=list(failed),
    )


def _fronts(heads: Sequence[tuple[str, Sequence[SideFacts]]]) -> dict[str, Front]:
    """Return AP against cost over the sides of all heads; a point's style tells its head."""
    sides = [replace(side, label=f"{side.label}, {head}") for head, of_head in heads for side in of_head]
    styles = [place % STYLES for place, (_, of_head) in enumerate(heads) for _ in of_head]
    return {
        name: replace(front, points=[replace(point, style=styles[point.side]) for point in front.points])
        for name, front in fronts(sides).items()
    }


def table(overview: Overview) -> Table:
    """Backbones by heads: AP, mean ± standard deviation over seeds, with the number of seeds where it varies."""
    labels = list(dict.fromkeys(side.label for head in overview.heads for side in head.sides))
    by_label = [{side.label: side for side in head.sides} for head in overview.heads]
    counts = {len(side.seeds) for head in overview.heads for side in head.sides}

    def cell(side: HeadSide | None) -> Cell:
        if side is None:
            return Cell(formats.NONE)
        return Cell(str(side.figures["AP"]), f"n = {len(side.seeds)}" if len(counts) > 1 else "")

    rows = [Row(label, [cell(sides.get(label)) for sides in by_label]) for label in labels]
    return Table("", [head.head for head in overview.heads], rows, "AP")


def draw(overview: Overview) -> dict[str, Any]:
    """Return the fronts over all heads, and each head's mark."""
    return {
        "charts": {name: front_chart(front) for name, front in overview.fronts.items()},
        "swatches": [Markup(swatch(place % STYLES)) for place in range(len(overview.heads))],
    }
