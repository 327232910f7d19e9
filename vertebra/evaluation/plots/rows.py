"""Charts with a row for each name: differences with their intervals, groups of figures, bars for a table's cells."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

from markupsafe import Markup

from vertebra.evaluation.plots.axes import Axis, lower_axis, tick_text
from vertebra.evaluation.plots.svg import STYLES, drawing, element, line, marker, whisker
from vertebra.ground.formats import shortened

BAR_WIDTH, BAR_HALF, BAR_MIDDLE = 120.0, 57.0, 60.0


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
    """Return differences as points with whiskers about a zero line; `worse` and `better` name the two sides of it.

    Long names are shortened: a row's stands whole in its hover title.
    """
    width, row, top = 500.0, 34.0, 28.0
    left, right = 16 + 7.6 * max(len(shortened(one.name)) for one in rows), width - 192.0
    base = top + row * len(rows)
    axis = _about_zero(rows)

    def at(value: float) -> float:
        return axis.place(value, left, right)

    parts = lower_axis(axis, left, right, base, about=4)
    parts.append(line((at(0), top - 6), (at(0), base), "zero"))
    start = max(0.0, min(at(0) + 8, width - 7.0 * (len(better) + 2)))
    end = min(at(0), start) - 8
    if end > 7.0 * (len(worse) + 2):  # left out where it does not fit
        parts.append(element("text", f"← {worse}", x=end, y=12.0, class_="side end"))
    parts.append(element("text", f"{better} →", x=start, y=12.0, class_="side"))
    parts += [_interval_row(one, at, top + row * (place + 0.5), left, right) for place, one in enumerate(rows)]
    return drawing(parts, width, base + 26.0, label)


def _about_zero(rows: Sequence[Interval]) -> Axis:
    """An axis that has 0 and every interval on it, with room at both ends."""
    reach = max([abs(edge) for one in rows for edge in (one.low, one.high, one.value)] + [1.0])
    lowest, highest = min([0.0, *(one.low for one in rows)]), max([0.0, *(one.high for one in rows)])
    low, high = min(lowest, -0.15 * reach) - 0.06 * reach, max(highest, 0.15 * reach) + 0.06 * reach
    return Axis("AP", low, high, write_tick=lambda value: "+" * (value > 0) + tick_text(value))


def _interval_row(one: Interval, at: Callable[[float], float], y: float, left: float, right: float) -> Markup:
    return element(
        "g",
        element("title", f"{one.name}: {one.text}"),
        element("text", shortened(one.name), x=left - 12, y=y + 4, class_="row end"),
        whisker((at(one.low), y), (at(one.high), y), 5.0),
        marker(one.style, at(one.value), y, 5.0, class_=f"dot s{one.style}"),
        element("text", one.text, x=right + 10, y=y + 4, class_="row value"),
    )


def group_chart(
    groups: Sequence[tuple[str, Sequence[float | None]]], names: Sequence[str], *, empty: str, label: str
) -> Markup:
    """Return AP (0..100) by group: a marker for each of the names, joined by a line from the lowest to the highest.

    empty: the text of a group without figures.
    """
    width, row, left, right, top = 520.0, 46.0, 82.0, 500.0, 8.0
    highest = max([value for _, values in groups for value in values if value is not None] + [10.0])
    axis, base = Axis("AP", 0.0, min(100.0, highest * 1.12)), top + row * len(groups)
    parts = []
    for tick, text in axis.marks():
        at = axis.place(tick, left, right)
        parts.append(line((at, top), (at, base), "grid"))
        parts.append(element("text", text, x=at, y=base + 18, class_="tick mid"))
    for index, (group, values) in enumerate(groups):
        y = top + row * (index + 0.5)
        parts.append(element("text", group, x=left - 12, y=y + 4, class_="row end"))
        dots = [
            (axis.place(value, left, right), style % STYLES, f"{group}, {name}: {value:.1f}")
            for style, (name, value) in enumerate(zip(names, values))
            if value is not None
        ]
        if not dots:
            parts.append(element("text", empty, x=left + 8, y=y + 4, class_="tick"))
            continue
        parts.append(line((min(dots)[0], y), (max(dots)[0], y), "whisker"))
        for x, style, title in dots:
            dot = marker(style, x, y, 6.0, class_=f"dot s{style}")
            parts.append(element("g", element("title", title), dot))
    parts.append(element("text", axis.name, x=(left + right) / 2, y=base + 36, class_="name mid"))
    return drawing(parts, width, base + 44, label)


def bar_limit(estimates: Iterable[float]) -> float:
    """Return the difference at the ends of one table's bars, so that they compare; whiskers may be cut off there."""
    return max([1.15 * abs(estimate) for estimate in estimates] + [1.0])


def difference_bar(estimate: float, low: float, high: float, limit: float, style: int) -> Markup:
    """Return a bar with its interval, from the middle of a small chart to the right where the difference is above 0."""
    at, low, high = (BAR_MIDDLE + BAR_HALF * max(-1.0, min(1.0, value / limit)) for value in (estimate, low, high))
    left, width = min(at, BAR_MIDDLE), abs(at - BAR_MIDDLE)
    return element(
        "svg",
        line((BAR_MIDDLE, 0.0), (BAR_MIDDLE, 14.0), "zero"),
        element("rect", x=left, y=3.0, width=width, height=8.0, class_=f"bar s{style}"),
        whisker((low, 7.0), (high, 7.0), 2.5),
        viewBox=f"0 0 {BAR_WIDTH:g} 14",
        class_="bars",
        aria_hidden="true",
    )
