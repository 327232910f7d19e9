"""AP against a cost: a scatter in which every point bears its name, with the line of what no other point beats.

Points are told by marker as well as by colour. Where costs span more than a factor of four the axis is logarithmic.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from markupsafe import Markup

from evaluation.report import formats
from evaluation.report.costs import COSTS
from evaluation.report.figures import apart
from evaluation.report.svg import element, marker, nice_ticks, path, tick_text

WIDTH, HEIGHT = 520.0, 330.0
LEFT, RIGHT, TOP, BOTTOM = 46.0, 504.0, 14.0, 286.0
SPAN = 4.0
CHARACTER_PX, LINE_PX = 6.9, 15.0


def front_chart(name: str, front: Mapping[str, Any], *, note: str = "") -> Markup:
    """The scatter of one of `costs.fronts`: points of (cost, AP), whiskers of their spread, and the Pareto line."""
    points, measure = front["points"], COSTS[front.get("measure", name)]
    across = _Across([point["cost"] for point in points])
    low, high = _reach(points)

    def up(value: float) -> float:
        return BOTTOM - (value - low) / (high - low) * (BOTTOM - TOP)

    parts = _axes(across, low, high, up, measure.write, f"{measure.name}{f', {note}' if note else ''}")
    best = [points[place] for place in front["pareto"]]
    if len(best) > 1:
        steps = [(across(point["cost"]), up(point["AP"])) for point in best]
        parts.append(element("path", d=path(steps), class_="pareto"))
    spots = [(across(point["cost"]), up(point["AP"])) for point in points]
    for point, (x, y) in zip(points, spots):
        parts.append(_point(point, x, y, up, measure.write))
    parts += _names(points, spots)
    told = "; ".join(f"{point['label']}: {_ap(point)} AP at {measure.write(point['cost'])}" for point in points)
    line = formats.joined([point["label"] for point in best])
    return element(
        "svg",
        *parts,
        viewBox=f"0 0 {WIDTH:g} {HEIGHT:g}",
        class_="chart front",
        role="img",
        aria_label=f"AP against {measure.name}. {told}. On the Pareto line: {line}.",
        width="100%",
    )


class _Across:
    """Places of costs between LEFT and RIGHT, by their logarithm where they span more than SPAN."""

    def __init__(self, costs: Sequence[float]):
        self.log = max(costs) > SPAN * min(costs)
        low, high = self._of(min(costs)), self._of(max(costs))
        room = 0.16 * (high - low) or 0.2 * abs(high) or 0.2
        # The names stand to the right of their points.
        self.low, self.high = low - room, high + 1.9 * room
        if not self.log:
            self.low = max(0.0, self.low)

    def _of(self, cost: float) -> float:
        return math.log10(cost) if self.log else cost

    def __call__(self, cost: float) -> float:
        return LEFT + (self._of(cost) - self.low) / (self.high - self.low) * (RIGHT - LEFT)

    def ticks(self) -> list[float]:
        if not self.log:
            return nice_ticks(self.low, self.high, 4)
        decades = range(math.floor(self.low), math.ceil(self.high) + 1)
        values = [factor * 10.0**decade for decade in decades for factor in (1, 2, 5)]
        return [value for value in values if self.low <= math.log10(value) <= self.high]


def _reach(points: Sequence[Mapping[str, Any]]) -> tuple[float, float]:
    spread = [(point["AP"] - (point["spread"] or 0), point["AP"] + (point["spread"] or 0)) for point in points]
    low, high = min(low for low, _ in spread), max(high for _, high in spread)
    room = max(0.18 * (high - low), 1.0)
    return max(0.0, low - room), min(100.0, high + room)


def _axes(
    across: _Across, low: float, high: float, up: Callable[[float], float], write: Callable[[float], str], name: str
) -> list[Markup]:
    parts = []
    for value in nice_ticks(low, high):
        parts.append(element("line", x1=LEFT, x2=RIGHT, y1=up(value), y2=up(value), class_="grid"))
        parts.append(element("text", tick_text(value), x=LEFT - 7, y=up(value) + 4, class_="tick end"))
    for value in across.ticks():
        at = across(value)
        parts.append(element("line", x1=at, x2=at, y1=BOTTOM, y2=BOTTOM + 4, class_="axis"))
        parts.append(element("text", _short(write(value)), x=at, y=BOTTOM + 18, class_="tick mid"))
    parts.append(element("line", x1=LEFT, x2=RIGHT, y1=BOTTOM, y2=BOTTOM, class_="axis"))
    parts.append(element("text", name, x=(LEFT + RIGHT) / 2, y=BOTTOM + 37, class_="name mid"))
    middle = (TOP + BOTTOM) / 2
    parts.append(element("text", "AP", x=12.0, y=middle, transform=f"rotate(-90 12 {middle:g})", class_="name mid"))
    return parts


def _short(text: str) -> str:
    """'2.00 G' as '2 G': a tick is a round number."""
    number, _, unit = text.partition(formats.NBSP)
    number = number.rstrip("0").rstrip(".") if "." in number else number
    return f"{number}{formats.NBSP}{unit}" if unit else number


def _point(
    point: Mapping[str, Any], x: float, y: float, up: Callable[[float], float], write: Callable[[float], str]
) -> Markup:
    parts = [element("title", f"{point['label']}: {_ap(point)} AP at {write(point['cost'])}")]
    style = point.get("style", point["side"])
    if point["spread"]:
        low, high = up(point["AP"] - point["spread"]), up(point["AP"] + point["spread"])
        bar = f"M{x - 4:.1f} {low:.1f}H{x + 4:.1f}M{x:.1f} {low:.1f}V{high:.1f}M{x - 4:.1f} {high:.1f}H{x + 4:.1f}"
        parts.append(element("path", d=bar, class_="whisker"))
    parts.append(marker(style, x, y, 5.5, class_=f"dot s{style}"))
    return element("g", *parts)


def _names(points: Sequence[Mapping[str, Any]], spots: Sequence[tuple[float, float]]) -> list[Markup]:
    """Each point's name beside it: to its right, or to its left where there is no room; those that would touch move."""
    placed: list[tuple[float, float, float, str, str]] = []
    for point, (x, y) in zip(points, spots):
        reach = CHARACTER_PX * len(point["label"])
        left = x + 10 + reach > WIDTH
        placed.append((x - 10 - reach if left else x + 10, reach, y, point["label"], "end" if left else ""))
    heights = [y for _, _, y, _, _ in placed]
    for group in _touching(placed):
        for index, y in zip(group, apart([heights[index] for index in group], LINE_PX, BOTTOM - 4)):
            heights[index] = y
    return [
        element("text", label, x=start + reach if side else start, y=y + 4, class_=f"label {side}".rstrip())
        for (start, reach, _, label, side), y in zip(placed, heights)
    ]


def _touching(placed: Sequence[tuple[float, float, float, str, str]]) -> list[list[int]]:
    """Groups of names whose extents across overlap, so that they have to be told apart by height."""
    order = sorted(range(len(placed)), key=lambda index: placed[index][0])
    groups: list[list[int]] = []
    end = -math.inf
    for index in order:
        start, reach = placed[index][:2]
        if start < end and groups:
            groups[-1].append(index)
        else:
            groups.append([index])
        end = max(end, start + reach)
    return groups


def _ap(point: Mapping[str, Any]) -> str:
    return formats.mean_and_spread({"mean": point["AP"], "std": point["spread"]})
