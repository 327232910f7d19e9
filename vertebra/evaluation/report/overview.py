"""Several heads at a glance: each one's sentence, backbones by heads, and AP against cost over all of them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from markupsafe import Markup

from vertebra.evaluation.plots.svg import STYLES, swatch
from vertebra.evaluation.report import formats
from vertebra.evaluation.report.charts import front_chart
from vertebra.evaluation.report.costs import fronts
from vertebra.ground.table import Cell, Row, Table


def assemble(
    told: Sequence[tuple[str, Mapping[str, Any]]], *, title: str | None, failed: Sequence[str]
) -> dict[str, Any]:
    """The overview of (folder, content of that head's report): one sentence a head, figures and costs of every side."""
    heads = [
        {
            "head": content["head"] or folder,
            "page": f"{folder}/report.html",
            "headline": content["headline"],
            "first": content["first"],
            "sides": [
                {name: side[name] for name in ("label", "seeds", "figures", "cost", "file")}
                for side in content["sides"]
            ],
            "expectations": content["expectations"],
        }
        for folder, content in told
    ]
    everything = [
        {**side, "label": f"{side['label']}, {head['head']}", "head": place}
        for place, head in enumerate(heads)
        for side in head["sides"]
    ]
    drawn = fronts(everything)
    for front in drawn.values():  # a point's form tells its head
        for point in front["points"]:
            point["style"] = everything[point["side"]]["head"] % STYLES
    return {
        "title": title or f"Backbones in {len(heads)} heads: {formats.joined([head['head'] for head in heads])}",
        "first": [
            *dict.fromkeys(line for head in heads for line in head["first"]),
            *(f"Without a result: {sentence.rstrip('.')}." for sentence in failed),
        ],
        "heads": heads,
        "fronts": drawn,
        "failed": list(failed),
    }


def table(content: Mapping[str, Any]) -> Table:
    """Backbones by heads: AP, mean ± standard deviation over seeds, with the number of seeds where it is not all."""
    labels = list(dict.fromkeys(side["label"] for head in content["heads"] for side in head["sides"]))
    figures = [{side["label"]: side for side in head["sides"]} for head in content["heads"]]
    counts = {len(side["seeds"]) for head in content["heads"] for side in head["sides"]}
    rows = []
    for label in labels:
        sides = [head.get(label) for head in figures]
        seeds = ["" if side is None or len(counts) == 1 else f"n = {len(side['seeds'])}" for side in sides]
        cells = [
            Cell(formats.NONE if side is None else formats.mean_and_spread(side["figures"]["AP"]), n)
            for side, n in zip(sides, seeds)
        ]
        rows.append(Row(label, cells))
    return Table("", [head["head"] for head in content["heads"]], rows, "AP")


def draw(content: Mapping[str, Any]) -> dict[str, Any]:
    """The fronts over all heads, and each head's mark."""
    return {
        "charts": {name: front_chart(name, front) for name, front in content["fronts"].items()},
        "swatches": [Markup(swatch(place % STYLES)) for place in range(len(content["heads"]))],
    }
