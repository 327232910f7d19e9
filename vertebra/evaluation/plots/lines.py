"""Lines over an axis, with traces, bands, whiskers, names at their ends, and hover titles."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

from markupsafe import Markup

from vertebra.evaluation.plots.axes import Axis, Frame
from vertebra.evaluation.plots.svg import Point, drawing, element, line, marker, path

Span = tuple[float, float, float]

END_PX = 15.0  # least distance of two names at the lines' ends


@dataclass(frozen=True)
class Series:
    """A named line; `style` chooses colour, dash and marker; `faint` is drawn under it as a thin trace.

    kind: further classes of the line, "thin" and "plain" among them. band: (x, low, high), shaded under the line.
    whiskers: the same, as bars at its points. end: the text at its right end.
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


def line_chart(
    series: Sequence[Series], x: Axis, y: Axis, *, label: str, width: int = 520, height: int = 320, columns: int = 60
) -> Markup:
    """Return a chart of lines with grid, axes and a hover title over each of `columns` vertical strips."""
    room = max([7.4 * len(one.end) + 10 for one in series if one.end] + [10.0])
    frame = Frame(x, y, left=46.0, right=width - room, top=12.0, bottom=height - 42.0)
    parts = [frame.axes(), *(_band(one, frame) for one in series if one.band)]
    for one in series:
        parts += _drawn(one, frame)
    parts += _ends(series, frame)
    parts.append(_hover(series, frame, columns))
    return drawing(parts, width, height, label)


def small_curve(series: Sequence[Series], *, label: str) -> Markup:
    """Return a small multiple on the unit square: frame, half-lines and the lines, no numbers."""
    low, middle, high = 3.0, 60.0, 117.0
    frame = Frame(Axis("", 0.0, 1.0), Axis("", 0.0, 1.0), left=low, right=high, top=low, bottom=high)
    parts = [
        element("rect", x=low, y=low, width=high - low, height=high - low, class_="frame"),
        element("path", d=f"M{low:g} {middle:g}H{high:g}M{middle:g} {low:g}V{high:g}", class_="grid"),
        *(_line(one.points, frame, f"line s{one.style}") for one in series),
    ]
    return element("svg", *parts, viewBox="0 0 120 120", class_="small chart", role="img", aria_label=label)


def spread_labels(wanted: Sequence[float], least: float, highest: float) -> list[float]:
    """Return places near the wanted ones, in their order, at least `least` apart and none above `highest`."""
    order = sorted(range(len(wanted)), key=lambda index: wanted[index])
    places = list(wanted)
    for before, after in pairwise(order):
        places[after] = max(places[after], places[before] + least)
    for index in reversed(order):  # what was pushed out pushes back
        places[index] = min(places[index], highest)
        highest = places[index] - least
    return places


def _drawn(one: Series, frame: Frame) -> list[Markup]:
    """Trace, line, whiskers and markers of a series."""
    parts = [_line(one.faint, frame, f"trace s{one.style}")] if one.faint else []
    parts.append(_line(one.points, frame, f"line s{one.style} {one.kind}".rstrip()))
    for at, low, high in one.whiskers:
        parts.append(line(frame.spot((at, low)), frame.spot((at, high)), f"error s{one.style}"))
    if one.markers:
        kind = f"dot s{one.style} {one.kind}".rstrip()
        parts += [marker(one.style, *frame.spot(point), class_=kind) for point in one.points]
    return parts


def _line(points: Sequence[Point], frame: Frame, kind: str) -> Markup:
    return element("path", d=path(map(frame.spot, points)), class_=kind) if points else Markup("")


def _band(one: Series, frame: Frame) -> Markup:
    edge = [(at, high) for at, _, high in one.band] + [(at, low) for at, low, _ in reversed(one.band)]
    return element("path", d=path(map(frame.spot, edge)) + "Z", class_=f"band s{one.style}")


def _ends(series: Sequence[Series], frame: Frame) -> list[Markup]:
    """The lines' names at their right ends."""
    ended = [one for one in series if one.end and one.points]
    wanted = [min(frame.spot(one.points[-1])[1], frame.bottom) for one in ended]
    places = spread_labels(wanted, END_PX, frame.bottom)
    x = frame.right + 6
    return [element("text", one.end, x=x, y=y + 4, class_=f"label s{one.style}") for one, y in zip(ended, places)]


def _hover(series: Sequence[Series], frame: Frame, columns: int) -> Markup:
    """Invisible strips whose titles give every series' value there."""
    x, y = frame.x, frame.y
    step, height = (frame.right - frame.left) / columns, frame.bottom - frame.top
    strips = []
    for column in range(columns):
        at = x.low + (column + 0.5) / columns * (x.high - x.low)
        nearest = [(one.name, min(one.points, key=lambda p: abs(p[0] - at))) for one in series if one.points]
        if nearest:
            rows = [f"{name}: {y.format.format(value)} ({x.format.format(where)})" for name, (where, value) in nearest]
            left = frame.left + column * step
            title = element("title", "\n".join(rows))
            strips.append(element("rect", title, x=left, y=frame.top, width=step, height=height, class_="strip"))
    return element("g", *strips)
