"""The report's charts, from its content to the SVG of `plots`."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from markupsafe import Markup

from vertebra.evaluation.plots.axes import Axis
from vertebra.evaluation.plots.lines import Series, line_chart, small_curve
from vertebra.evaluation.plots.rows import Interval, bar_limit, difference_bar, group_chart, interval_chart
from vertebra.evaluation.plots.scatter import Dot, scatter
from vertebra.evaluation.plots.svg import STYLES, swatch
from vertebra.evaluation.report.content import Content, Front
from vertebra.evaluation.report.costs import COSTS
from vertebra.evaluation.report.curves import RunCurves
from vertebra.evaluation.report.spread import Spread
from vertebra.evaluation.report.tables import measured_on
from vertebra.evaluation.statistics.comparison import Difference
from vertebra.evaluation.why.errors import KINDS, SPECIAL
from vertebra.ground import formats

Bars = Sequence[Mapping[int, Markup]]  # for each row of a table, by its column


@dataclass(frozen=True)
class Charts:
    """Every chart of the page; None where there is nothing to draw. swatches: by label, for legends and headings."""

    swatches: Mapping[str, Markup]
    front: Markup | None
    other_fronts: Mapping[str, Markup]
    intervals: Markup | None
    loss: Markup | None
    ap: Markup | None
    precision: Markup
    per_class_precision: Mapping[str, Markup]
    class_bars: Bars
    error_bars: Bars
    reliability: Markup | None
    sizes: Markup


def draw(content: Content) -> Charts:
    labels = content.labels
    fronts = {
        name: front_chart(front, note=measured_on(content.sides) if name == "flops" else "")
        for name, front in content.fronts.items()
    }
    return Charts(
        swatches={label: swatch(style % STYLES) for style, label in enumerate(labels)},
        front=fronts.pop("flops", None),
        other_fronts=fronts,
        intervals=_intervals(content),
        loss=_loss(content),
        ap=_ap(content),
        precision=_precision(content),
        per_class_precision=_per_class_precision(content),
        class_bars=_class_bars(content),
        error_bars=_error_bars(content),
        reliability=_reliability(content),
        sizes=_sizes(content),
    )


def front_chart(front: Front, *, note: str = "") -> Markup:
    """Draw AP against a cost, whiskers of the spread over seeds, and the Pareto line."""
    measure = COSTS[front.measure]
    texts = [f"{Spread(point.AP, point.spread, 1)} AP at {measure.write(point.cost)}" for point in front.points]
    dots = [
        Dot(
            point.label,
            point.cost,
            point.AP,
            style=point.style % STYLES,
            title=f"{point.label}: {text}",
            spread=point.spread or 0.0,
        )
        for point, text in zip(front.points, texts)
    ]
    line = formats.joined([front.points[place].label for place in front.pareto])
    return scatter(
        dots,
        f"{measure.name}{f', {note}' if note else ''}",
        "AP",
        line=front.pareto,
        write=measure.write,
        label=f"AP against {measure.name}. {'; '.join(dot.title for dot in dots)}. On the Pareto line: {line}.",
    )


def _intervals(content: Content) -> Markup | None:
    """Draw the pair's differences in AP and AP50, or every side's difference to the baseline in AP."""
    labels, two = content.labels, len(content.sides) == 2
    rows = [
        Interval(
            name if two else comparison.b,
            difference.estimate,
            difference.low,
            difference.high,
            difference.text(),
            style=labels.index(comparison.b) % STYLES,
        )
        for comparison in content.differences_to_baseline
        for name in (("AP", "AP50") if two else ("AP",))
        if (difference := comparison.differences[name]) is not None
    ]
    if not rows:
        return None
    first, second = (formats.shortened(label) for label in labels[:2])
    better = f"{second} better" if two else f"better than {first}"
    listed = "; ".join(f"{row.name}: {row.text}" for row in rows)
    return interval_chart(
        rows, worse=f"{first} better", better=better, label=f"Differences with 95 % intervals: {listed}"
    )


def _sizes(content: Content) -> Markup:
    listed = "; ".join(f"{row.name}: {', '.join(map(str, row.AP))}" for row in content.per_size)
    groups = [(row.name, [one.mean for one in row.AP]) for row in content.per_size]
    return group_chart(groups, content.labels, empty="no objects of this size", label=f"AP by object size: {listed}")


def _traces(runs: Sequence[RunCurves], name: str, style: int) -> list[Series]:
    """Return the single runs of a side, faint."""
    return [Series("", (), style, faint=getattr(run, name)) for run in runs]


def _loss(content: Content) -> Markup | None:
    series = []
    for place, side in enumerate(content.training):
        style = place % STYLES
        series += [*_traces(side.runs, "loss", style), Series(side.label, side.loss, style)]
    points = [point for line in series for point in line.points]
    if not points:
        return None
    # The first iterations' spike would flatten the rest: the axis ends where 99 % of the smoothed points lie below.
    values = sorted(point[1] for point in points)
    high = values[min(len(values) - 1, math.ceil(0.99 * len(values)))] * 1.15
    series = [replace(line, faint=[(x, min(y, high)) for x, y in line.faint]) for line in series]
    x = Axis("iteration", 0.0, max(point[0] for point in points))
    return line_chart(series, x, Axis("total loss", 0.0, high, "{:.3f}"), label="Total loss over the iterations")


def _ap(content: Content) -> Markup | None:
    series = []
    for place, side in enumerate(content.training):
        style = place % STYLES
        series += _traces(side.runs, "AP", style) if len(side.runs) > 1 else []
        series.append(Series(side.label, side.AP, style, markers=True))
    points = [point for line in series for point in (*line.points, *line.faint)]
    if not points:
        return None
    ends = "; ".join(f"{line.name} ends at {formats.ap(line.points[-1][1])}" for line in series if line.points)
    x = Axis("iteration", 0.0, max(point[0] for point in points))
    y = Axis("AP", 0.0, max(5.0, max(point[1] for point in points) * 1.12), "{:.1f}")
    return line_chart(series, x, y, label=f"AP over the iterations: {ends}")


def _curves(lines: Sequence[Sequence[float]], labels: Sequence[str], step: int = 1) -> list[Series]:
    levels = range(0, 101, step)
    return [
        Series(label, [(level / 100, line[level]) for level in levels], style % STYLES)
        for style, (label, line) in enumerate(zip(labels, lines))
        if line
    ]


def _precision(content: Content) -> Markup:
    series = _curves(content.precision_recall.mean, content.labels)
    x, y = Axis("recall", 0.0, 1.0, "{:.2f}"), Axis("precision", 0.0, 1.0, "{:.2f}")
    return line_chart(series, x, y, label="Precision over recall at IoU 0.5, mean over the classes", height=360)


def _per_class_precision(content: Content) -> dict[str, Markup]:
    rows = {row.name: row for row in content.per_class}
    drawn = {}
    for name, lines in content.precision_recall.per_class.items():
        ap50 = ", ".join(f"{label} {one}" for label, one in zip(content.labels, rows[name].AP50))
        drawn[name] = small_curve(
            _curves(lines, content.labels, step=2), label=f"Precision over recall, {name}; AP50: {ap50}"
        )
    return drawn


def _class_bars(content: Content) -> Bars:
    """Draw the pair's differences, in the better one's colour, by their column in `tables.class_table`."""
    if not content.is_paired:
        return [{} for _ in content.per_class]
    differences = [row.difference for row in content.per_class]
    limit = bar_limit(one.estimate for one in differences if one)
    worse, better = (content.labels.index(label) % STYLES for label in content.pair)
    column = len(content.sides) + 1
    return [{column: _bar(one, limit, better if one and one.estimate > 0 else worse)} for one in differences]


def _bar(difference: Difference | None, limit: float, style: int) -> Markup:
    if difference is None:
        return Markup("")
    return difference_bar(difference.estimate, difference.low, difference.high, limit, style)


def _error_bars(content: Content) -> Bars:
    """Draw for each kind of error a bar of each pair, in the colour of the side that loses less, by column."""
    labels, differences = content.labels, content.reasons.differences
    limit = bar_limit(one.estimate for pair in differences.values() for one in pair.values() if one)

    def bar(a: str, b: str, one: Difference | None) -> Markup:
        less = b if one and one.estimate < 0 else a
        return _bar(one, limit, labels.index(less) % STYLES)

    return [
        {len(labels) + 2 * place: bar(a, b, kinds[kind]) for place, ((a, b), kinds) in enumerate(differences.items())}
        for kind in (*KINDS, *SPECIAL)
    ]


def _reliability(content: Content) -> Markup | None:
    """Draw precision over score by bins; on the diagonal a score is the chance of being right."""
    series = [Series("", (), 4, faint=[(0.0, 0.0), (1.0, 1.0)])]
    for place, (label, one) in enumerate(zip(content.labels, content.reasons.explanations)):
        points = [
            (part["score"], part["precision"])
            for part in (one["calibration"]["bins"] if one["calibration"] else ())
            if part["score"] is not None and part["precision"] is not None
        ]
        if points:
            series.append(Series(label, points, place % STYLES, markers=True))
    if len(series) == 1:
        return None
    x, y = Axis("score", 0.0, 1.0, "{:.2f}"), Axis("precision", 0.0, 1.0, "{:.2f}")
    return line_chart(series, x, y, label="Precision of the detections over their score, by bins of a tenth")
