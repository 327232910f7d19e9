"""A few lines to write SVG safely: every attribute and text is escaped, numbers are kept short."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence

from markupsafe import Markup, escape

from vertebra.evaluation.report.formats import MINUS

STYLES = 6  # of style.css: colour, dash and marker of the classes s0 to s5; then they begin again
CORNERS = (
    ((-0.9, -0.9), (0.9, -0.9), (0.9, 0.9), (-0.9, 0.9)),
    ((0, -1.2), (1.1, 0.8), (-1.1, 0.8)),
    ((0, -1.3), (1.3, 0), (0, 1.3), (-1.3, 0)),
    ((0, 1.2), (1.1, -0.8), (-1.1, -0.8)),
)


def number(value: float) -> str:
    """At most two decimals: a hundredth of a pixel is enough, and the page stays small."""
    return f"{round(value, 2):g}"


def element(tag: str, *content: str, **attributes: object) -> Markup:
    """<tag attributes>content</tag>; `stroke_width` becomes stroke-width, `class_` class; None is left out.

    Content that is not Markup is escaped.
    """
    told = Markup("").join(
        Markup(' {}="{}"').format(
            name.rstrip("_").replace("_", "-"), number(value) if isinstance(value, float) else value
        )
        for name, value in attributes.items()
        if value is not None
    )
    inner = Markup("").join(escape(part) for part in content)
    return Markup("<{0}{1}>{2}</{0}>").format(Markup(tag), told, inner)


def path(points: Iterable[tuple[float, float]]) -> str:
    """The `d` of a line through points in SVG units."""
    return "M" + "L".join(f"{number(x)} {number(y)}" for x, y in points)


def nice_ticks(low: float, high: float, about: int = 5) -> list[float]:
    """Round numbers (steps of 1, 2 or 5 times a power of ten) that lie in [low, high]."""
    if not high > low:
        return [low]
    raw = (high - low) / max(1, about)
    power = 10.0 ** math.floor(math.log10(raw))
    step = next(power * factor for factor in (1, 2, 5, 10) if power * factor >= raw * 0.999)
    first = math.ceil(low / step - 1e-9)
    return [round(index * step, 10) for index in range(first, math.floor(high / step + 1e-9) + 1)]


def tick_text(value: float) -> str:
    """Thousands as 'k', minus as a minus sign."""
    text = f"{value / 1000:g}k" if abs(value) >= 10_000 else f"{value:g}"
    return text.replace("-", MINUS)


def marker(shape: int, x: float, y: float, size: float = 3.6, **attributes: object) -> Markup:
    """A point whose form tells its series without colour: circle, square, triangle, diamond, triangle upside down."""
    shape %= 5
    if shape == 0:
        return element("circle", cx=float(x), cy=float(y), r=size, **attributes)
    corners: Sequence[tuple[float, float]] = CORNERS[shape - 1]
    return element("path", d=path((x + dx * size, y + dy * size) for dx, dy in corners) + "Z", **attributes)
