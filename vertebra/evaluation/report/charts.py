"""The report's charts, from its content to the SVG of `plots`."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

from markupsafe import Markup

from vertebra.evaluation.plots.axes import Axis
from vertebra.evaluation.plots.lines import Series, line_chart, small_curve
from vertebra.evaluation.plots.rows import Interval, bar_limit, difference_bar, group_chart, interval_chart
from vertebra.evaluation.plots.scatter import Dot, scatter
from vertebra.evaluation.plots.svg import STYLES, swatch
from vertebra.evaluation.report.content import Content, Front, PrecisionRecall
from vertebra.evaluation.report.costs import COSTS
from vertebra.evaluation.report.reasons import Reasons
from vertebra.evaluation.report.spread import Spread
from vertebra.evaluation.report.tables import measured_on
from vertebra.evaluation.statistics.comparison import Difference
from vertebra.evaluation.why.errors import KINDS, SPECIAL
from vertebra.ground import formats

Bars = Sequence[Mapping[int, Markup]]  # for each row of a table, by its column


@dataclass(frozen=True)
class Charts:
    """Every chart of the page; None where there is nothing to draw. swatches: by label, for legends and headings. From
    `precision` on: of detectors alone."""

    swatches: Mapping[str, Markup]
    front: Markup | None
    other_fronts: Mapping[str, Markup]
    intervals: Markup | None
    loss: Markup | None
    figure: Markup | None
    class_bars: Bars
    precision: Markup | None = None
    per_class_precision: Mapping[str, Markup] = field(default_factory=dict)
    error_bars: Bars = ()
    reliability: Markup | None = None
    sizes: Markup | None = None


def draw(content: Content) -> Charts:
    labels = content.labels
    fronts = {
        name: front_chart(front, note=measured_on(content.sides) if name == "flops" else "")
        for name, front in content.fronts.items()
    }
    charts = Charts(
        swatches={label: swatch(style % STYLES) for style, label in enumerate(labels)},
        front=fronts.pop("flops", None),
        other_fronts=fronts,
        intervals=_intervals(content),
        loss=_loss(content),
        figure=_figure(content),
        class_bars=_class_bars(content),
    )
    if content.precision_recall is None or content.reasons is None:
        return charts
    return replace(
        charts,
        precision=_precision(content, content.precision_recall),
        per_class_precision=_per_class_precision(content, content.precision_recall),
        error_bars=_error_bars(content, content.reasons),
        reliability=_reliability(content, content.reasons),
        sizes=_sizes(content),
    )


def front_chart(front: Front, *, note: str = "") -> Markup:
    """Draw the main figure against a cost, whiskers of the spread over seeds, and the Pareto line."""
    measure = COSTS[front.measure]
    texts = [
        f"{Spread(point.figure, point.spread, 1)} {front.figure} at {measure.write(point.cost)}"
        for point in front.points
    ]
    dots = [
        Dot(
            point.label,
            point.cost,
            point.figure,
            style=point.style % STYLES,
            title=f"{point.label}: {text}",
            spread=point.spread or 0.0,
        )
        for point, text in zip(front.points, texts)
    ]
    line = formats.joined([front.points[place].label for place in front.pareto])
    dotted = "; ".join(dot.title for dot in dots)
    return scatter(
        dots,
        f"{measure.name}{f', {note}' if note else ''}",
        front.figure,
        line=front.pareto,
        write=measure.write,
        label=f"{front.figure} against {measure.name}. {dotted}. On the Pareto line: {line}.",
    )


def _intervals(content: Content) -> Markup | None:
    """Draw the pair's differences in the two main figures, or every side's to the baseline in the first."""
    labels, two, task = content.labels, len(content.sides) == 2, content.task
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
        for name in ((task.main, task.second) if two else (task.main,))
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


def _loss(content: Content) -> Markup | None:
    series = []
    for place, side in enumerate(content.training):
        style = place % STYLES
        series += [Series("", (), style, faint=run.loss) for run in side.runs]
        series.append(Series(side.label, side.loss, style))
    points = [point for line in series for point in line.points]
    if not points:
        return None
    # The first iterations' spike would flatten the rest: the axis ends where 99 % of the smoothed points lie below.
    values = sorted(point[1] for point in points)
    high = values[min(len(values) - 1, math.ceil(0.99 * len(values)))] * 1.15
    series = [replace(line, faint=[(x, min(y, high)) for x, y in line.faint]) for line in series]
    x = Axis("iteration", 0.0, max(point[0] for point in points))
    return line_chart(series, x, Axis("total loss", 0.0, high, "{:.3f}"), label="Total loss over the iterations")


def _figure(content: Content) -> Markup | None:
    series, main = [], content.task.main
    for place, side in enumerate(content.training):
        style = place % STYLES
        series += [Series("", (), style, faint=run.figures[main]) for run in side.runs if len(side.runs) > 1]
        series.append(Series(side.label, side.figures[main], style, markers=True))
    points = [point for line in series for point in (*line.points, *line.faint)]
    if not points:
        return None
    ends = "; ".join(f"{line.name} ends at {formats.ap(line.points[-1][1])}" for line in series if line.points)
    x = Axis("iteration", 0.0, max(point[0] for point in points))
    y = Axis(main, 0.0, max(5.0, max(point[1] for point in points) * 1.12), "{:.1f}")
    return line_chart(series, x, y, label=f"{main} over the iterations: {ends}")


def _curves(lines: Sequence[Sequence[float]], labels: Sequence[str], step: int = 1) -> list[Series]:
    levels = range(0, 101, step)
    return [
        Series(label, [(level / 100, line[level]) for level in levels], style % STYLES)
        for style, (label, line) in enumerate(zip(labels, lines))
        if line
    ]


def _precision(content: Content, curves: PrecisionRecall) -> Markup:
    series = _curves(curves.mean, content.labels)
    x, y = Axis("recall", 0.0, 1.0, "{:.2f}"), Axis("precision", 0.0, 1.0, "{:.2f}")
    return line_chart(series, x, y, label="Precision over recall at IoU 0.5, mean over the classes", height=360)


def _per_class_precision(content: Content, curves: PrecisionRecall) -> dict[str, Markup]:
    rows = {row.name: row for row in content.per_class}
    drawn = {}
    for name, lines in curves.per_class.items():
        ap50 = ", ".join(f"{label} {one}" for label, one in zip(content.labels, rows[name].figures["AP50"]))
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


def _error_bars(content: Content, reasons: Reasons) -> Bars:
    """Draw for each kind of error a bar of each pair, in the colour of the side that loses less, by column."""
    labels, differences = content.labels, reasons.differences
    limit = bar_limit(one.estimate for pair in differences.values() for one in pair.values() if one)

    def bar(a: str, b: str, one: Difference | None) -> Markup:
        less = b if one and one.estimate < 0 else a
        return _bar(one, limit, labels.index(less) % STYLES)

    return [
        {len(labels) + 2 * place: bar(a, b, kinds[kind]) for place, ((a, b), kinds) in enumerate(differences.items())}
        for kind in (*KINDS, *SPECIAL)
    ]


def _reliability(content: Content, reasons: Reasons) -> Markup | None:
    """Draw precision over score by bins; on the diagonal a score is the chance of being right."""
    series = [Series("", (), 4, faint=[(0.0, 0.0), (1.0, 1.0)])]
    for place, (label, one) in enumerate(zip(content.labels, reasons.explanations)):
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
