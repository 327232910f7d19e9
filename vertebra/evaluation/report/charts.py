"""The report's charts, from its content to the SVG of `plots`."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from markupsafe import Markup

from vertebra.evaluation.plots.axes import Axis
from vertebra.evaluation.plots.lines import Series, line_chart, small_curve
from vertebra.evaluation.plots.rows import Interval, bar_limit, difference_bar, group_chart, interval_chart
from vertebra.evaluation.plots.scatter import Dot, scatter
from vertebra.evaluation.plots.svg import STYLES, swatch
from vertebra.evaluation.report import formats
from vertebra.evaluation.report.costs import COSTS
from vertebra.evaluation.report.tables import at_test


def draw(content: Mapping[str, Any]) -> dict[str, Any]:
    """Every chart of the page by name; the lists run as their rows in `content` do."""
    labels = [side["label"] for side in content["sides"]]
    drawn = {
        name: front_chart(name, front, note=at_test(content["sides"]) if name == "flops" else "")
        for name, front in content["fronts"].items()
    }
    return {
        "swatches": {label: swatch(style % STYLES) for style, label in enumerate(labels)},
        "front": drawn.pop("flops", None),
        "other_fronts": drawn,
        "intervals": _intervals(content, labels),
        "loss": _loss(content),
        "ap": _ap(content),
        "precision": _precision(content, labels),
        "per_class_precision": _per_class_precision(content, labels),
        "class_bars": _bars(content["per_class"], content, labels),
        "error_bars": _error_bars(content, labels),
        "reliability": _reliability(content, labels),
        "sizes": group_chart(
            [(row["name"], [one["mean"] for one in row["AP"]]) for row in content["per_size"]],
            labels,
            empty="no objects of this size",
            label="AP by object size: "
            + "; ".join(
                f"{row['name']}: {', '.join(formats.mean_and_spread(one) for one in row['AP'])}"
                for row in content["per_size"]
            ),
        ),
    }


def front_chart(name: str, front: Mapping[str, Any], *, note: str = "") -> Markup:
    """The scatter of one of `costs.fronts`: AP against a cost, whiskers of the spread over seeds, the Pareto line."""
    points, measure = front["points"], COSTS[front.get("measure", name)]
    texts = [
        f"{formats.mean_and_spread({'mean': point['AP'], 'std': point['spread']})} AP at {measure.write(point['cost'])}"
        for point in points
    ]
    dots = [
        Dot(
            point["label"],
            point["cost"],
            point["AP"],
            style=point.get("style", point["side"]) % STYLES,
            title=f"{point['label']}: {text}",
            spread=point["spread"] or 0.0,
        )
        for point, text in zip(points, texts)
    ]
    line = formats.joined([points[place]["label"] for place in front["pareto"]])
    return scatter(
        dots,
        f"{measure.name}{f', {note}' if note else ''}",
        "AP",
        line=front["pareto"],
        write=measure.write,
        label=f"AP against {measure.name}. {'; '.join(dot.title for dot in dots)}. On the Pareto line: {line}.",
    )


def _intervals(content: Mapping[str, Any], labels: Sequence[str]) -> Markup | None:
    """The differences with their intervals: of the pair in AP and AP50, or of every side to the baseline in AP; None
    where there are none."""
    rows = []
    for comparison in content["differences_to_baseline"]:
        for name in ("AP", "AP50") if len(labels) == 2 else ("AP",):
            difference = comparison["differences"][name]
            if difference is None:
                continue
            rows.append(
                Interval(
                    name if len(labels) == 2 else comparison["b"],
                    difference["estimate"],
                    difference["low"],
                    difference["high"],
                    formats.change(difference),
                    style=labels.index(comparison["b"]) % STYLES,
                )
            )
    if not rows:
        return None
    first, second = (formats.shortened(label) for label in labels[:2])
    better = f"{second} better" if len(labels) == 2 else f"better than {first}"
    told = "; ".join(f"{row.name}: {row.text}" for row in rows)
    return interval_chart(
        rows, worse=f"{first} better", better=better, label=f"Differences with 95 % intervals: {told}"
    )


def _traces(line: Mapping[str, Any], name: str, style: int) -> list[Series]:
    """The single runs of a side, faint."""
    return [Series("", (), style, faint=run[name]) for run in line["runs"]]


def _loss(content: Mapping[str, Any]) -> Markup | None:
    series = []
    for place, line in enumerate(content["training"]):
        series += [*_traces(line, "loss", place % STYLES), Series(line["label"], line["loss"], place % STYLES)]
    points = [point for line in series for point in line.points]
    if not points:
        return None
    # The first iterations' spike would flatten the rest: the axis ends where 99 % of the smoothed points lie below.
    values = sorted(point[1] for point in points)
    high = values[min(len(values) - 1, math.ceil(0.99 * len(values)))] * 1.15
    series = [replace(line, faint=[(x, min(y, high)) for x, y in line.faint]) for line in series]
    x = Axis("iteration", 0.0, max(point[0] for point in points))
    return line_chart(series, x, Axis("total loss", 0.0, high, "{:.3f}"), label="Total loss over the iterations")


def _ap(content: Mapping[str, Any]) -> Markup | None:
    series = []
    for place, line in enumerate(content["training"]):
        series += _traces(line, "AP", place % STYLES) if len(line["runs"]) > 1 else []
        series.append(Series(line["label"], line["AP"], place % STYLES, markers=True))
    points = [point for line in series for point in (*line.points, *line.faint)]
    if not points:
        return None
    told = "; ".join(f"{line.name} ends at {formats.ap(line.points[-1][1])}" for line in series if line.points)
    x = Axis("iteration", 0.0, max(point[0] for point in points))
    y = Axis("AP", 0.0, max(5.0, max(point[1] for point in points) * 1.12), "{:.1f}")
    return line_chart(series, x, y, label=f"AP over the iterations: {told}")


def _curves(lines: Sequence[Sequence[float]], labels: Sequence[str], step: int = 1) -> list[Series]:
    levels = range(0, 101, step)
    return [
        Series(label, [(level / 100, line[level]) for level in levels], style % STYLES)
        for style, (label, line) in enumerate(zip(labels, lines))
        if line
    ]


def _precision(content: Mapping[str, Any], labels: Sequence[str]) -> Markup:
    series = _curves(content["precision_recall"]["mean"], labels)
    x, y = Axis("recall", 0.0, 1.0, "{:.2f}"), Axis("precision", 0.0, 1.0, "{:.2f}")
    return line_chart(series, x, y, label="Precision over recall at IoU 0.5, mean over the classes", height=360)


def _per_class_precision(content: Mapping[str, Any], labels: Sequence[str]) -> dict[str, Markup]:
    rows = {row["name"]: row for row in content["per_class"]}
    drawn = {}
    for name, lines in content["precision_recall"]["per_class"].items():
        told = ", ".join(f"{label} {formats.mean_and_spread(one)}" for label, one in zip(labels, rows[name]["AP50"]))
        drawn[name] = small_curve(_curves(lines, labels, step=2), label=f"Precision over recall, {name}; AP50: {told}")
    return drawn


def _bars(
    rows: Sequence[Mapping[str, Any]], content: Mapping[str, Any], labels: Sequence[str]
) -> list[dict[int, Markup]]:
    """The pair's differences, in the better one's colour, by their column in `tables.class_table`."""
    if len(content["pair"]) < 2:
        return [{} for _ in rows]
    limit = bar_limit(row["difference"]["estimate"] for row in rows if row["difference"])
    styles = [labels.index(label) % STYLES for label in content["pair"]]
    return [
        {len(labels) + 1: _bar(one, limit, styles[one["estimate"] > 0] if one else 0)}
        for one in (row["difference"] for row in rows)
    ]


def _bar(difference: Mapping[str, Any] | None, limit: float, style: int) -> Markup:
    if difference is None:
        return Markup("")
    return difference_bar(difference["estimate"], difference["low"], difference["high"], limit, style)


def _error_bars(content: Mapping[str, Any], labels: Sequence[str]) -> list[dict[int, Markup]]:
    """For each kind of error a bar of each pair, in the colour of the side that loses less, by column."""
    errors = content["reasons"]["errors"]
    limit = bar_limit(one["estimate"] for pair in errors["differences"] for one in pair["kinds"].values() if one)

    def bar(pair: Mapping[str, Any], kind: str) -> Markup:
        one = pair["kinds"][kind]
        return _bar(one, limit, labels.index(pair["b" if one and one["estimate"] < 0 else "a"]) % STYLES)

    return [
        {len(labels) + 2 * place: bar(pair, kind["kind"]) for place, pair in enumerate(errors["differences"])}
        for kind in errors["kinds"]
    ]


def _reliability(content: Mapping[str, Any], labels: Sequence[str]) -> Markup | None:
    """Precision over score by bins; the diagonal is a score that means what it says."""
    series = [Series("", (), 4, faint=[(0.0, 0.0), (1.0, 1.0)])]
    for place, told in enumerate(content["reasons"]["calibration"]):
        points = [
            (one["score"], one["precision"])
            for one in (told["bins"] if told else ())
            if one["score"] is not None and one["precision"] is not None
        ]
        if points:
            series.append(Series(labels[place], points, place % STYLES, markers=True))
    if len(series) == 1:
        return None
    x, y = Axis("score", 0.0, 1.0, "{:.2f}"), Axis("precision", 0.0, 1.0, "{:.2f}")
    return line_chart(series, x, y, label="Precision of the detections over their score, by bins of a tenth")
