"""The report's charts as inline SVG: themed by the page's CSS variables, crisp at any size, readable without colour.

A series is told by its place: colour, dash and marker of class `s0`, `s1`, ... stand in style.css.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

from markupsafe import Markup

from vertebra.evaluation.report import formats
from vertebra.evaluation.report.svg import STYLES, element, marker, nice_ticks, path, tick_text

Point = tuple[float, float]
Span = tuple[float, float, float]

END_PX = 15.0  # least distance of two names at the lines' ends


@dataclass(frozen=True)
class Series:
    """A named line; `style` chooses colour, dash and marker; `faint` is drawn under it as a thin trace.

    kind: further classes of the line, "thin" and "plain" among them. band: (x, low, high), shaded under the line.
    whiskers: the same, as bars at its points. end: what is written at its right end.
    """

    name: str
    points: Sequence[Point]
    style: int
    faint: Sequence[Point] = ()
    markers: bool = False
    kind: str = ""
    band: Sequence[Span] = ()
    whiskers: Sequence[Span] = ()
    end: str = ""


@dataclass(frozen=True)
class Axis:
    """What an axis shows: its name, its range, how its values are written in hover titles, and its ticks (none: round
    numbers)."""

    name: str
    low: float
    high: float
    format: str = "{:g}"
    ticks: Sequence[float] = ()

    def place(self, value: float, start: float, end: float) -> float:
        share = (value - self.low) / (self.high - self.low) if self.high > self.low else 0.5
        return start + share * (end - start)


def line_chart(
    series: Sequence[Series],
    x: Axis,
    y: Axis,
    *,
    label: str,
    width: int = 520,
    height: int = 320,
    columns: int = 60,
) -> Markup:
    """A chart of lines with grid, axes and a hover title over each of `columns` vertical strips.

    `label` is the text alternative of the whole chart.
    """
    room = max([7.4 * len(line.end) + 10 for line in series if line.end] + [10.0])
    left, right, top, bottom = 46.0, width - room, 12.0, height - 42.0

    def spot(point: Point) -> Point:
        return x.place(point[0], left, right), y.place(point[1], bottom, top)

    parts = [_grid(x, y, left, right, top, bottom)]
    parts += [_band(line, spot) for line in series if line.band]
    for line in series:
        if line.faint:
            parts.append(_line(line.faint, spot, f"trace s{line.style}"))
        parts.append(_line(line.points, spot, f"line s{line.style} {line.kind}".rstrip()))
        for at, low, high in line.whiskers:
            (across, lowest), (_, highest) = spot((at, low)), spot((at, high))
            parts.append(element("line", x1=across, x2=across, y1=lowest, y2=highest, class_=f"error s{line.style}"))
        if line.markers:
            shape = f"dot s{line.style} {line.kind}".rstrip()
            parts += [marker(line.style, *spot(point), class_=shape) for point in line.points]
    parts += _ends(series, spot, right, bottom)
    parts.append(_hover(series, x, y, left, right, top, bottom, columns))
    return element(
        "svg",
        *parts,
        viewBox=f"0 0 {width} {height}",
        class_="chart",
        role="img",
        aria_label=label,
        width="100%",
    )


def _band(line: Series, spot) -> Markup:
    edge = [(at, high) for at, _, high in line.band] + [(at, low) for at, low, _ in reversed(line.band)]
    return element("path", d=path(map(spot, edge)) + "Z", class_=f"band s{line.style}")


def _ends(series: Sequence[Series], spot, right: float, bottom: float) -> list[Markup]:
    """The lines' names at their right ends."""
    ended = [line for line in series if line.end and line.points]
    places = apart([min(spot(line.points[-1])[1], bottom) for line in ended], END_PX, bottom)
    return [
        element("text", line.end, x=right + 6, y=y + 4, class_=f"label s{line.style}") for line, y in zip(ended, places)
    ]


def apart(wanted: Sequence[float], least: float, highest: float) -> list[float]:
    """Places near the wanted ones, in their order, at least `least` from each other and none above `highest`."""
    order = sorted(range(len(wanted)), key=lambda index: wanted[index])
    places = list(wanted)
    for before, after in pairwise(order):
        places[after] = max(places[after], places[before] + least)
    for index in reversed(order):  # what was pushed out pushes back
        places[index] = min(places[index], highest)
        highest = places[index] - least
    return places


def _line(points: Sequence[Point], spot, kind: str) -> Markup:
    return element("path", d=path(spot(point) for point in points), class_=kind) if points else Markup("")


def _grid(x: Axis, y: Axis, left: float, right: float, top: float, bottom: float) -> Markup:
    parts = []
    for value in y.ticks or nice_ticks(y.low, y.high):
        at = y.place(value, bottom, top)
        parts.append(element("line", x1=left, x2=right, y1=at, y2=at, class_="grid"))
        parts.append(element("text", tick_text(value), x=left - 7, y=at + 4, class_="tick end"))
    for value in x.ticks or nice_ticks(x.low, x.high):
        at = x.place(value, left, right)
        parts.append(element("line", x1=at, x2=at, y1=bottom, y2=bottom + 4, class_="axis"))
        parts.append(element("text", tick_text(value), x=at, y=bottom + 18, class_="tick mid"))
    parts.append(element("line", x1=left, x2=right, y1=bottom, y2=bottom, class_="axis"))
    parts.append(element("text", x.name, x=(left + right) / 2, y=bottom + 36, class_="name mid"))
    turn = f"rotate(-90 12 {(top + bottom) / 2:g})"
    parts.append(element("text", y.name, x=12.0, y=(top + bottom) / 2, transform=turn, class_="name mid"))
    return element("g", *parts)


def _hover(
    series: Sequence[Series],
    x: Axis,
    y: Axis,
    left: float,
    right: float,
    top: float,
    bottom: float,
    columns: int,
) -> Markup:
    """Invisible strips whose titles give every series' value there."""
    step = (right - left) / columns
    strips = []
    for column in range(columns):
        at = x.low + (column + 0.5) / columns * (x.high - x.low)
        told = []
        for line in series:
            if line.points:
                near = min(line.points, key=lambda point: abs(point[0] - at))
                told.append(f"{line.name}: {y.format.format(near[1])} ({x.format.format(near[0])})")
        if told:
            title = element("title", "\n".join(told))
            strips.append(
                element(
                    "rect",
                    title,
                    x=left + column * step,
                    y=top,
                    width=step,
                    height=bottom - top,
                    class_="strip",
                )
            )
    return element("g", *strips)


def small_curve(series: Sequence[Series], *, label: str) -> Markup:
    """A small multiple on the unit square: frame, half-lines and the lines, no numbers."""
    size, edge = 120.0, 3.0
    low, high = edge, size - edge

    def spot(point: Point) -> Point:
        return low + point[0] * (high - low), high - point[1] * (high - low)

    middle = (low + high) / 2
    parts = [
        element("rect", x=low, y=low, width=high - low, height=high - low, class_="frame"),
        element("path", d=f"M{low:g} {middle:g}H{high:g}M{middle:g} {low:g}V{high:g}", class_="grid"),
    ]
    parts += [_line(line.points, spot, f"line s{line.style}") for line in series]
    return element("svg", *parts, viewBox="0 0 120 120", class_="small chart", role="img", aria_label=label)


@dataclass(frozen=True)
class Interval:
    """A difference with its interval, as one row of `interval_chart`; `text` is written at its right."""

    name: str
    value: float
    low: float
    high: float
    text: str
    style: int = 1


def interval_chart(rows: Sequence[Interval], *, worse: str, better: str, label: str) -> Markup:
    """Differences as points with whiskers about a zero line; `worse` and `better` name the two sides. Long names are
    shortened: a row's stands whole in its hover title."""
    width, row, top = 500.0, 34.0, 28.0
    left = 16 + 7.6 * max(len(formats.shortened(interval.name)) for interval in rows)
    right, height = width - 192.0, top + row * len(rows) + 26.0
    reach = max([abs(edge) for interval in rows for edge in (interval.low, interval.high, interval.value)] + [1.0])
    lowest = min([0.0] + [interval.low for interval in rows])
    highest = max([0.0] + [interval.high for interval in rows])
    axis = Axis("AP", min(lowest, -0.15 * reach) - 0.06 * reach, max(highest, 0.15 * reach) + 0.06 * reach)

    def at(value: float) -> float:
        return axis.place(value, left, right)

    base = top + row * len(rows)
    parts = [element("line", x1=left, x2=right, y1=base, y2=base, class_="axis")]
    for tick in nice_ticks(axis.low, axis.high, 4):
        parts.append(element("line", x1=at(tick), x2=at(tick), y1=base, y2=base + 4, class_="axis"))
        parts.append(element("text", _signed_tick(tick), x=at(tick), y=base + 18, class_="tick mid"))
    parts.append(element("line", x1=at(0), x2=at(0), y1=top - 6, y2=base, class_="zero"))
    start = max(0.0, min(at(0) + 8, width - 7.0 * (len(better) + 2)))
    end = min(at(0), start) - 8
    if end > 7.0 * (len(worse) + 2):  # left out where it does not fit
        parts.append(element("text", f"← {worse}", x=end, y=12.0, class_="side end"))
    parts.append(element("text", f"{better} →", x=start, y=12.0, class_="side"))
    for index, interval in enumerate(rows):
        parts.append(_interval_row(interval, at, top + row * (index + 0.5), left, right))
    return element(
        "svg",
        *parts,
        viewBox=f"0 0 {width:g} {height:g}",
        class_="chart",
        role="img",
        aria_label=label,
        width="100%",
    )


def _interval_row(interval: Interval, at, y: float, left: float, right: float) -> Markup:
    low, high = at(interval.low), at(interval.high)
    whisker = f"M{low:.1f} {y - 5:g}V{y + 5:g}M{low:.1f} {y:g}H{high:.1f}M{high:.1f} {y - 5:g}V{y + 5:g}"
    return element(
        "g",
        element("title", f"{interval.name}: {interval.text}"),
        element("text", formats.shortened(interval.name), x=left - 12, y=y + 4, class_="row end"),
        element("path", d=whisker, class_="whisker"),
        marker(interval.style, at(interval.value), y, 5.0, class_=f"dot s{interval.style}"),
        element("text", interval.text, x=right + 10, y=y + 4, class_="row value"),
    )


def _signed_tick(value: float) -> str:
    return "+" + tick_text(value) if value > 0 else tick_text(value)


def swatch(style: int, *, kind: str = "", dot: bool = True) -> Markup:
    """A series' line and marker, for legends."""
    return element(
        "svg",
        element("path", d="M1 7H33", class_=f"line s{style} {kind}".rstrip()),
        marker(style, 17.0, 7.0, class_=f"dot s{style}") if dot else "",
        viewBox="0 0 34 14",
        class_="swatch",
        aria_hidden="true",
    )


def size_chart(groups: Sequence[tuple[str, Sequence[float | None]]], names: Sequence[str], *, label: str) -> Markup:
    """Figures 0-100 by group (object sizes), a marker for each run, joined by a line from lowest to highest."""
    width, row, left, right, top = 520.0, 46.0, 82.0, 500.0, 8.0
    highest = max([value for _, values in groups for value in values if value is not None] + [10.0])
    axis = Axis("AP", 0.0, min(100.0, highest * 1.12))
    base = top + row * len(groups)
    parts = []
    for tick in nice_ticks(axis.low, axis.high):
        at = axis.place(tick, left, right)
        parts.append(element("line", x1=at, x2=at, y1=top, y2=base, class_="grid"))
        parts.append(element("text", tick_text(tick), x=at, y=base + 18, class_="tick mid"))
    for index, (name, values) in enumerate(groups):
        y = top + row * (index + 0.5)
        parts.append(element("text", name, x=left - 12, y=y + 4, class_="row end"))
        known = [axis.place(value, left, right) for value in values if value is not None]
        if not known:
            parts.append(element("text", "no objects of this size", x=left + 8, y=y + 4, class_="tick"))
            continue
        parts.append(element("line", x1=min(known), x2=max(known), y1=y, y2=y, class_="whisker"))
        for style, (run, value) in enumerate(zip(names, values)):
            if value is not None:
                title = element("title", f"{name}, {run}: {value:.1f}")
                style %= STYLES
                dot = marker(style, axis.place(value, left, right), y, 6.0, class_=f"dot s{style}")
                parts.append(element("g", title, dot))
    parts.append(element("text", "AP", x=(left + right) / 2, y=base + 36, class_="name mid"))
    return element(
        "svg",
        *parts,
        viewBox=f"0 0 {width:g} {base + 44:g}",
        class_="chart",
        role="img",
        aria_label=label,
        width="100%",
    )
