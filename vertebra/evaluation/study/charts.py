"""The paper's figures. A depth has one colour in all of them; a plain net's line is dashed where both kinds share a
chart; training is thin, test is bold.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence

from markupsafe import Markup

from vertebra.evaluation.plots.axes import Axis
from vertebra.evaluation.plots.lines import Series, line_chart
from vertebra.evaluation.plots.svg import STYLES, Point, swatch
from vertebra.evaluation.statistics.comparison import mean_and_spread
from vertebra.evaluation.study.averages import Curves, Responses
from vertebra.evaluation.study.nets import Net
from vertebra.evaluation.study.protocols import Group
from vertebra.ground import formats

Captioned = tuple[str, Markup]

FIRST_STEPS = 0.12  # of a training: their errors would flatten all that follows
FAMILY_NAMES = {"plain": "Plain nets", "residual": "Residual nets", "vgg": "VGG", "other": "Other nets"}


def styles_by_depth(nets: Iterable[Net | Curves]) -> dict[int, int]:
    """Return a style for each depth, in their order."""
    return {depth: place % STYLES for place, depth in enumerate(sorted({net.depth for net in nets}))}


def curve_charts(curves: Sequence[Curves]) -> list[Captioned]:
    """Figures 1, 4 and 6: error over the iterations, a panel for each family, on equal axes."""
    drawn = [one for one in curves if one.train or one.test]
    if not drawn:
        return []
    styles = styles_by_depth(drawn)
    x = Axis("iteration", 0.0, max(at for one in drawn for at, _ in (*one.train, *one.test)))
    y = _error_axis(drawn, x.high)
    panels = []
    for family, name in FAMILY_NAMES.items():
        members = [one for one in drawn if one.family == family]
        if not members:
            continue
        series = [line for one in members for line in _train_and_test(one, styles[one.depth], y.high, members)]
        ends = [f"{one.label} ends at {formats.points(one.test[-1][1])}" for one in members if one.test]
        label = f"Error over the iterations, {name}: {'; '.join(ends)}"
        panels.append((name, line_chart(series, x, y, label=label, width=540)))
    return panels


def _train_and_test(one: Curves, style: int, high: float, members: Sequence[Curves]) -> list[Series]:
    label = one.label
    band = [(at, min(lower, high), min(upper, high)) for at, lower, upper in one.test_band]
    is_alone = sum(other.depth == one.depth for other in members) == 1 and one.depth
    end = f"{one.depth} layers" if is_alone else label  # as the paper writes
    return [
        Series(f"{label}, training", _below(one.train, high), style, kind="thin"),
        Series(f"{label}, test", _below(one.test, high), style, kind="bold", band=band, end=end),
    ]


def _error_axis(curves: Sequence[Curves], iterations: float) -> Axis:
    errors = [
        error
        for one in curves
        for line in (one.train, one.test)
        for at, error in line
        if at >= FIRST_STEPS * iterations or len(line) == 1
    ]
    low, high = min(errors), max(errors)
    high = min(100.0, high + 0.06 * (high - low) + 0.5)
    return Axis("error (%)", 0.0 if low < 0.45 * high else math.floor(low * 0.95), high, "{:.2f}")


def _below(points: Sequence[Point], high: float) -> list[Point]:
    """The curve from where it first comes down to the chart's top; peaks afterwards are cut off there."""
    first = next((place for place, (_, error) in enumerate(points) if error <= high), len(points))
    return [(at, min(error, high)) for at, error in points[first:]]


def depth_chart(groups: Sequence[Group]) -> Markup | None:
    """Error by depth, plain beside residual, training beside test; bars are a standard deviation each way."""
    series = []
    for family, style in (("plain", 1), ("residual", 0)):
        members = [group for group in groups if group.net.family == family]
        test = [(group.net.depth, group.test_errors()) for group in members]
        training = [(group.net.depth, group.train_errors) for group in members]
        series.append(_by_depth(f"{family}, test", style, f"bold {family}", test))
        series.append(_by_depth(f"{family}, training", style, f"thin {family}", training))
    points = [point for line in series for point in line.points]
    depths = sorted({depth for depth, _ in points})
    if len(depths) < 2:
        return None
    edges = [edge for line in series for _, *ends in line.whiskers for edge in ends] + [error for _, error in points]
    low, high = min(edges), max(edges)
    room, margin = 0.08 * (high - low) + 0.3, 0.06 * (depths[-1] - depths[0])
    x = Axis("layers", depths[0] - margin, depths[-1] + margin, ticks=depths)
    y = Axis("error (%)", max(0.0, low - room), min(100.0, high + room), "{:.2f}")
    figures = "; ".join(
        f"{line.name}: " + ", ".join(f"{depth:g} layers {formats.points(error)}" for depth, error in line.points)
        for line in series
        if line.points
    )
    return line_chart(series, x, y, label=f"Error by depth. {figures}", width=600, columns=40)


def _by_depth(name: str, style: int, kind: str, errors: Iterable[tuple[int, Sequence[float]]]) -> Series:
    """The error at each depth: of a net's shortcuts, the one that needs no parameters before the others."""
    by_depth: dict[int, Sequence[float]] = {}
    for depth, values in errors:
        if values:
            by_depth.setdefault(depth, values)
    points, whiskers = [], []
    for depth, values in sorted(by_depth.items()):
        mean, deviation = mean_and_spread(values)
        points.append((float(depth), mean))
        if deviation is not None:
            whiskers.append((float(depth), mean - deviation, mean + deviation))
    return Series(name, points, style, markers=True, kind=kind, whiskers=whiskers, end=name)


def response_charts(responses: Sequence[Responses], styles: Mapping[int, int]) -> list[Captioned]:
    """Figure 7: the layers' deviations in the order of the layers, and sorted."""
    if not responses:
        return []
    means = "; ".join(f"{one.label}: mean {one.mean:.3f}" for one in responses)
    layers = float(max(len(one.deviations) for one in responses))
    y = Axis("std", 0.0, 1.06 * max(value for one in responses for value in one.deviations), "{:.3f}")
    charts = []
    for caption, name, is_sorted in (
        ("In the order of the layers", "layer", False),
        ("Sorted by size", "layer, sorted by size", True),
    ):
        series = []
        for one in responses:
            values = sorted(one.deviations, reverse=True) if is_sorted else one.deviations
            points = [(float(place), value) for place, value in enumerate(values, 1)]
            series.append(Series(one.label, points, styles[one.depth], kind=one.family))
        label = f"Standard deviation of the layers' responses, {caption.lower()}. {means}"
        charts.append((caption, line_chart(series, Axis(name, 1.0, layers), y, label=label)))
    return charts


def legend(responses: Sequence[Responses], styles: Mapping[int, int]) -> list[Captioned]:
    """Return name and line of each net whose responses are drawn."""
    return [(one.label, swatch(styles[one.depth], kind=one.family, dot=False)) for one in responses]
