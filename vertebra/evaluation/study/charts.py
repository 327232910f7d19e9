"""The paper's figures from the report's content. A depth has one colour in all of them; a plain net's line is dashed
where both kinds share a chart; training is thin, test is bold.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from markupsafe import Markup

from vertebra.evaluation.plots.axes import Axis
from vertebra.evaluation.plots.lines import Series, line_chart
from vertebra.evaluation.plots.svg import STYLES
from vertebra.evaluation.report import formats
from vertebra.evaluation.report.curves import Point

SETTLED = 0.12  # the errors of the first steps would flatten all that follows
FAMILY_NAMES = {"plain": "Plain nets", "residual": "Residual nets", "vgg": "VGG", "other": "Other nets"}


def draw(content: Mapping[str, Any]) -> dict[str, Any]:
    """Every chart of the page: (caption, SVG) pairs by the figure that they are."""
    return {
        "curves": _curves(content["curves"]),
        "depth": _depth(content["nets"]),
        "responses": _responses(content["responses"], styles_by_depth(content["nets"])),
    }


def styles_by_depth(nets: Sequence[Mapping[str, Any]]) -> dict[int, int]:
    """A style for each depth, in their order."""
    return {depth: place % STYLES for place, depth in enumerate(sorted({net["depth"] for net in nets}))}


def _curves(lines: Sequence[Mapping[str, Any]]) -> list[tuple[str, Markup]]:
    """Figures 1, 4 and 6: error over the iterations, a panel for each family, on equal axes."""
    drawn = [line for line in lines if line["train"] or line["test"]]
    if not drawn:
        return []
    styles = styles_by_depth(drawn)
    x = Axis("iteration", 0.0, max(point[0] for line in drawn for kind in ("train", "test") for point in line[kind]))
    y = _error_axis(drawn, x.high)
    panels = []
    for family in ("plain", "residual", "vgg", "other"):
        members = [line for line in drawn if line["family"] == family]
        if not members:
            continue
        series = []
        for line in members:
            style, name = styles[line["depth"]], line["label"]
            series.append(Series(f"{name}, training", _below(line["train"], y.high), style, kind="thin"))
            band = [(at, min(low, y.high), min(high, y.high)) for at, low, high in line["test_band"]]
            test = _below(line["test"], y.high)
            series.append(Series(f"{name}, test", test, style, kind="bold", band=band, end=_end_name(line, members)))
        told = "; ".join(
            f"{line['label']} ends at {formats.points(line['test'][-1][1])}" for line in members if line["test"]
        )
        chart = line_chart(series, x, y, label=f"Error over the iterations, {FAMILY_NAMES[family]}: {told}", width=540)
        panels.append((FAMILY_NAMES[family], chart))
    return panels


def _end_name(line: Mapping[str, Any], members: Sequence[Mapping[str, Any]]) -> str:
    """'56 layers' as the paper writes; the whole name where two members have one depth."""
    alone = sum(other["depth"] == line["depth"] for other in members) == 1 and line["depth"]
    return f"{line['depth']} layers" if alone else str(line["label"])


def _error_axis(lines: Sequence[Mapping[str, Any]], iterations: float) -> Axis:
    settled = [
        point[1]
        for line in lines
        for kind in ("train", "test")
        for point in line[kind]
        if point[0] >= SETTLED * iterations or len(line[kind]) == 1
    ]
    low, high = min(settled), max(settled)
    high = min(100.0, high + 0.06 * (high - low) + 0.5)
    return Axis("error (%)", 0.0 if low < 0.45 * high else math.floor(low * 0.95), high, "{:.2f}")


def _below(points: Sequence[Sequence[float]], high: float) -> list[Point]:
    """The curve from where it first comes down to the chart's top; peaks afterwards are cut off there."""
    first = next((place for place, point in enumerate(points) if point[1] <= high), len(points))
    return [(point[0], min(point[1], high)) for point in points[first:]]


def _depth(nets: Sequence[Mapping[str, Any]]) -> Markup | None:
    """Error by depth, plain beside residual, training beside test; bars are a standard deviation each way."""
    series = []
    for family, style in (("plain", 1), ("residual", 0)):
        for name, kind in (("test_error", "bold"), ("train_error", "thin")):
            members = _one_a_depth([net for net in nets if net["family"] == family and net[name]["mean"] is not None])
            points = [(float(net["depth"]), net[name]["mean"]) for net in members]
            whiskers = [
                (
                    float(net["depth"]),
                    net[name]["mean"] - net[name]["deviation"],
                    net[name]["mean"] + net[name]["deviation"],
                )
                for net in members
                if net[name]["deviation"] is not None
            ]
            told = f"{family}, {'test' if kind == 'bold' else 'training'}"
            series.append(
                Series(told, points, style, markers=True, kind=f"{kind} {family}", whiskers=whiskers, end=told)
            )
    points = [point for line in series for point in line.points]
    depths = {point[0] for point in points}
    if len(depths) < 2:
        return None
    edges = [edge for line in series for span in line.whiskers for edge in span[1:]] + [point[1] for point in points]
    low, high = min(edges), max(edges)
    room = 0.08 * (high - low) + 0.3
    shallow, deep = min(depths), max(depths)
    margin = 0.06 * (deep - shallow)
    x = Axis("layers", shallow - margin, deep + margin, ticks=sorted(depths))
    y = Axis("error (%)", max(0.0, low - room), min(100.0, high + room), "{:.2f}")
    told = "; ".join(
        f"{line.name}: " + ", ".join(f"{point[0]:g} layers {formats.points(point[1])}" for point in line.points)
        for line in series
        if line.points
    )
    return line_chart(series, x, y, label=f"Error by depth. {told}", width=600, columns=40)


def _one_a_depth(nets: Sequence[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
    """The first net of each depth: of a net's shortcuts, the one that needs no parameters before the others."""
    by_depth: dict[int, Mapping[str, Any]] = {}
    for net in nets:
        by_depth.setdefault(net["depth"], net)
    return [by_depth[depth] for depth in sorted(by_depth)]


def _responses(nets: Sequence[Mapping[str, Any]], styles: Mapping[int, int]) -> list[tuple[str, Markup]]:
    """Figure 7: the layers' deviations in the order of the layers, and sorted."""
    if not nets:
        return []
    high = 1.06 * max(value for net in nets for value in net["deviations"])
    x = Axis("layer", 1.0, float(max(len(net["deviations"]) for net in nets)))
    charts = []
    for caption, name, ordered in (
        ("In the order of the layers", "layer", lambda values: values),
        ("Sorted by size", "layer, sorted by size", lambda values: sorted(values, reverse=True)),
    ):
        series = [
            Series(
                net["label"],
                [(float(place), value) for place, value in enumerate(ordered(net["deviations"]), 1)],
                styles[net["depth"]],
                kind=net["family"],
            )
            for net in nets
        ]
        told = "; ".join(f"{net['label']}: mean {net['mean']:.3f}" for net in nets)
        axis, label = (
            Axis(name, x.low, x.high),
            f"Standard deviation of the layers' responses, {caption.lower()}. {told}",
        )
        charts.append((caption, line_chart(series, axis, Axis("std", 0.0, high, "{:.3f}"), label=label)))
    return charts
