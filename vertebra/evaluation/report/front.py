"""AP against a cost: a scatter in which every point bears its name, with the line of what no other point beats.

Points are told by marker as well as by colour. Where costs span more than a factor of four the axis is logarithmic.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from markupsafe import Markup

from vertebra.evaluation.report import formats
from vertebra.evaluation.report.costs import COSTS
from vertebra.evaluation.report.svg import STYLES, element, marker, nice_ticks, path, tick_text

Box = tuple[float, float, float, float]  # left, top, right, bottom

WIDTH, HEIGHT = 430.0, 320.0
LEFT, RIGHT, TOP, BOTTOM = 44.0, 420.0, 12.0, 276.0
SPAN = 4.0
CHARACTER_PX, LINE_PX = 7.8, 16.0
LETTERS = 24  # of a name: so many find room beside, above or below any point


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
    parts += _names(points, spots, [_extent(point, x, y, up) for point, (x, y) in zip(points, spots)])
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
        self.low, self.high = low - room, high + 1.6 * room
        if not self.log:
            self.low = max(0.0, self.low)

    def _of(self, cost: float) -> float:
        return math.log10(cost) if self.log else cost

    def __call__(self, cost: float) -> float:
        return LEFT + (self._of(cost) - self.low) / (self.high - self.low) * (RIGHT - LEFT)

    def ticks(self) -> list[float]:
        if not self.log:
            return nice_ticks(self.low, self.high, 3)
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


def _extent(point: Mapping[str, Any], x: float, y: float, up: Callable[[float], float]) -> Box:
    """What a point and its whisker cover."""
    spread = point["spread"] or 0
    high, low = up(point["AP"] + spread), up(point["AP"] - spread)
    return x - 6, min(high, y - 6), x + 6, max(low, y + 6)


def _point(
    point: Mapping[str, Any], x: float, y: float, up: Callable[[float], float], write: Callable[[float], str]
) -> Markup:
    parts = [element("title", f"{point['label']}: {_ap(point)} AP at {write(point['cost'])}")]
    style = point.get("style", point["side"]) % STYLES
    if point["spread"]:
        low, high = up(point["AP"] - point["spread"]), up(point["AP"] + point["spread"])
        bar = f"M{x - 4:.1f} {low:.1f}H{x + 4:.1f}M{x:.1f} {low:.1f}V{high:.1f}M{x - 4:.1f} {high:.1f}H{x + 4:.1f}"
        parts.append(element("path", d=bar, class_="whisker"))
    parts.append(marker(style, x, y, 5.5, class_=f"dot s{style}"))
    return element("g", *parts)


def _names(
    points: Sequence[Mapping[str, Any]], spots: Sequence[tuple[float, float]], bars: Sequence[Box]
) -> list[Markup]:
    """Each point's name beside it, where it covers no other name and no point: to the right, the left, above, below.
    Long ones are shortened, and whole in their hover titles."""
    taken = list(bars)
    parts = []
    for point, (x, y) in sorted(zip(points, spots), key=lambda pair: -pair[1][0]):
        name = formats.shortened(point["label"], LETTERS)
        width = CHARACTER_PX * len(name)
        places = [(x + 10, y), (x - 10 - width, y), (x - width / 2, y - LINE_PX), (x - width / 2, y + LINE_PX)]
        places += [(side, y + step * LINE_PX) for step in (1, -1, 2, -2, 3, -3) for side in (x + 10, x - 10 - width)]
        boxes = [(left, middle - LINE_PX / 2, left + width, middle + LINE_PX / 2) for left, middle in places]
        inside = [box for box in boxes if box[0] >= LEFT and box[2] <= WIDTH and box[1] >= 0 and box[3] <= BOTTOM]
        box = next((box for box in inside if not any(_overlap(box, other) for other in taken)), (inside or boxes)[0])
        taken.append(box)
        title = [element("title", point["label"])] if name != point["label"] else []
        parts.append(element("text", *title, name, x=box[0], y=(box[1] + box[3]) / 2 + 4, class_="label"))
    return parts


def _overlap(a: Box, b: Box) -> bool:
    return a[0] < b[2] and b[0] < a[2] and a[1] < b[3] and b[1] < a[3]


def _ap(point: Mapping[str, Any]) -> str:
    return formats.mean_and_spread({"mean": point["AP"], "std": point["spread"]})
