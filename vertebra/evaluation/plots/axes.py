"""Axes: ranges, round ticks, and the frame that places values in SVG units."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from markupsafe import Markup

from vertebra.evaluation.plots.svg import Point, element, line
from vertebra.ground.formats import MINUS


def nice_ticks(low: float, high: float, about: int = 5) -> list[float]:
    """Return round numbers (steps of 1, 2 or 5 times a power of ten) that lie in [low, high]."""
    if not high > low:
        return [low]
    raw = (high - low) / max(1, about)
    power = 10.0 ** math.floor(math.log10(raw))
    step = next(power * factor for factor in (1, 2, 5, 10) if power * factor >= raw * 0.999)
    first = math.ceil(low / step - 1e-9)
    return [round(index * step, 10) for index in range(first, math.floor(high / step + 1e-9) + 1)]


def log_ticks(low: float, high: float) -> list[float]:
    """Return 1, 2 and 5 times the powers of ten that lie in [low, high]."""
    decades = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
    values = [factor * 10.0**decade for decade in decades for factor in (1, 2, 5)]
    return [value for value in values if low <= value <= high]


def tick_text(value: float) -> str:
    """Thousands as 'k', minus as a minus sign."""
    text = f"{value / 1000:g}k" if abs(value) >= 10_000 else f"{value:g}"
    return text.replace("-", MINUS)


@dataclass(frozen=True)
class Axis:
    """Name and range of an axis. format: of values in hover titles; ticks: at these values (none: at round numbers)."""

    name: str
    low: float
    high: float
    format: str = "{:g}"
    ticks: Sequence[float] = ()
    write_tick: Callable[[float], str] = tick_text
    log: bool = False

    def place(self, value: float, start: float, end: float) -> float:
        """Return where the value lies when low is at `start` and high at `end`."""
        low, high, at = (math.log10(one) if self.log else one for one in (self.low, self.high, value))
        return start + ((at - low) / (high - low) if high > low else 0.5) * (end - start)

    def marks(self, about: int = 5) -> list[tuple[float, str]]:
        """Return the ticks with their texts."""
        ticks = self.ticks or (log_ticks(self.low, self.high) if self.log else nice_ticks(self.low, self.high, about))
        return [(value, self.write_tick(value)) for value in ticks]


def lower_axis(axis: Axis, left: float, right: float, y: float, about: int = 5) -> list[Markup]:
    """Return a level axis from `left` to `right`, with its ticks."""
    parts = [line((left, y), (right, y), "axis")]
    for value, text in axis.marks(about):
        at = axis.place(value, left, right)
        parts.append(line((at, y), (at, y + 4), "axis"))
        parts.append(element("text", text, x=at, y=y + 18, class_="tick mid"))
    return parts


@dataclass(frozen=True)
class Frame:
    """A rectangle between two axes, in SVG units."""

    x: Axis
    y: Axis
    left: float
    right: float
    top: float
    bottom: float

    def spot(self, point: Point) -> Point:
        """Return where the values (x, y) lie."""
        return self.x.place(point[0], self.left, self.right), self.y.place(point[1], self.bottom, self.top)

    def axes(self) -> Markup:
        """Return level grid lines, ticks, the lower axis and both names."""
        left, right, bottom = self.left, self.right, self.bottom
        parts = []
        for value, text in self.y.marks():
            at = self.y.place(value, bottom, self.top)
            parts.append(line((left, at), (right, at), "grid"))
            parts.append(element("text", text, x=left - 7, y=at + 4, class_="tick end"))
        parts += lower_axis(self.x, left, right, bottom)
        parts.append(element("text", self.x.name, x=(left + right) / 2, y=bottom + 36, class_="name mid"))
        middle = (self.top + bottom) / 2
        turn = f"rotate(-90 12 {middle:g})"
        parts.append(element("text", self.y.name, x=12.0, y=middle, transform=turn, class_="name mid"))
        return element("g", *parts)
