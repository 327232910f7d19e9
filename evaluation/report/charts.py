"""Which charts the report has: from its content to the SVG of `figures`."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from markupsafe import Markup

from evaluation.report import figures, formats
from evaluation.report.figures import Axis, Interval, Series


def draw(content: Mapping[str, Any]) -> dict[str, Any]:
    """Every chart of the page by name; the lists run as their rows in `content` do."""
    labels = [run["label"] for run in content["runs"]]
    return {
        "swatches": [figures.swatch(style) for style in range(len(labels))],
        "intervals": _intervals(content, labels),
        "loss": _loss(content, labels),
        "ap": _ap(content, labels),
        "precision": _precision(content, labels),
        "per_class_precision": _per_class_precision(content, labels),
        "bars": _bars(content["per_class"], content, labels),
        "size_bars": _bars(content["per_size"], content, labels),
        "sizes": figures.size_chart(
            [(row["name"], row["AP"]) for row in content["per_size"]],
            labels,
            label="AP by object size: "
            + "; ".join(f"{row['name']}: {', '.join(map(formats.ap, row['AP']))}" for row in content["per_size"]),
        ),
    }


def _intervals(content: Mapping[str, Any], labels: Sequence[str]) -> Markup:
    """The differences of AP and AP50 with their intervals: of the pair, or of every run to the baseline."""
    rows = []
    for comparison in content["differences_to_baseline"]:
        for name in ("AP", "AP50"):
            difference = comparison["differences"][name]
            span = formats.interval(difference["low"], difference["high"])
            rows.append(
                Interval(
                    name if len(labels) == 2 else f"{comparison['b']} {name}",
                    difference["value"],
                    difference["low"],
                    difference["high"],
                    f"{formats.signed(difference['value'])} ({span})",
                    style=labels.index(comparison["b"]),
                )
            )
    better = f"{labels[1]} better" if len(labels) == 2 else f"better than {labels[0]}"
    told = "; ".join(f"{row.name}: {row.text}" for row in rows)
    return figures.interval_chart(
        rows, worse=f"{labels[0]} better", better=better, label=f"Differences with 95 % intervals: {told}"
    )


def _loss(content: Mapping[str, Any], labels: Sequence[str]) -> Markup | None:
    series = [
        Series(line["label"], line["loss_smoothed"], style, faint=line["loss"])
        for style, line in enumerate(content["training"])
    ]
    points = [point for line in series for point in line.points]
    if not points:
        return None
    # The first iterations' spike would flatten the rest: the axis ends where 99 % of the smoothed points lie below.
    values = sorted(point[1] for point in points)
    high = values[min(len(values) - 1, math.ceil(0.99 * len(values)))] * 1.15
    x = Axis("iteration", 0.0, max(point[0] for point in points))
    return figures.line_chart(
        series, x, Axis("total loss", 0.0, high, "{:.3f}"), label="Total loss over the iterations"
    )


def _ap(content: Mapping[str, Any], labels: Sequence[str]) -> Markup | None:
    series = [Series(line["label"], line["AP"], style, markers=True) for style, line in enumerate(content["training"])]
    points = [point for line in series for point in line.points]
    if not points:
        return None
    told = "; ".join(f"{line.name} ends at {formats.ap(line.points[-1][1])}" for line in series if line.points)
    x = Axis("iteration", 0.0, max(point[0] for point in points))
    y = Axis("AP", 0.0, max(5.0, max(point[1] for point in points) * 1.12), "{:.1f}")
    return figures.line_chart(series, x, y, label=f"AP over the iterations: {told}")


def _curves(lines: Sequence[Sequence[float]], labels: Sequence[str], step: int = 1) -> list[Series]:
    levels = range(0, 101, step)
    return [
        Series(label, [(level / 100, line[level]) for level in levels], style)
        for style, (label, line) in enumerate(zip(labels, lines))
        if line
    ]


def _precision(content: Mapping[str, Any], labels: Sequence[str]) -> Markup:
    series = _curves(content["precision_recall"]["mean"], labels)
    x, y = Axis("recall", 0.0, 1.0, "{:.2f}"), Axis("precision", 0.0, 1.0, "{:.2f}")
    return figures.line_chart(series, x, y, label="Precision over recall at IoU 0.5, mean over the classes", height=360)


def _per_class_precision(content: Mapping[str, Any], labels: Sequence[str]) -> dict[str, Markup]:
    rows = {row["name"]: row for row in content["per_class"]}
    drawn = {}
    for name, lines in content["precision_recall"]["per_class"].items():
        told = ", ".join(f"{label} {formats.ap(value)}" for label, value in zip(labels, rows[name]["AP50"]))
        drawn[name] = figures.small_curve(
            _curves(lines, labels, step=2), label=f"Precision over recall, {name}; AP50: {told}"
        )
    return drawn


def _bars(rows: Sequence[Mapping[str, Any]], content: Mapping[str, Any], labels: Sequence[str]) -> list[Markup]:
    limit = max([abs(row["difference"]) for row in rows if row["difference"] is not None] + [1.0])
    first, second = (labels.index(label) for label in content["pair"])
    return [figures.difference_bar(row["difference"], limit, styles=(first, second)) for row in rows]
