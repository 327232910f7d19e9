"""SVG written safely: every attribute and text is escaped, and numbers are short."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from markupsafe import Markup, escape

Point = tuple[float, float]

STYLES = 6  # of style.css; then they begin again
CORNERS: Sequence[Sequence[Point]] = (
    ((-0.9, -0.9), (0.9, -0.9), (0.9, 0.9), (-0.9, 0.9)),
    ((0, -1.2), (1.1, 0.8), (-1.1, 0.8)),
    ((0, -1.3), (1.3, 0), (0, 1.3), (-1.3, 0)),
    ((0, 1.2), (1.1, -0.8), (-1.1, -0.8)),
)


def number(value: float) -> str:
    """Return at most two decimals: a hundredth of a pixel is enough, and the page stays small."""
    return f"{round(value, 2):g}"


def element(tag: str, *content: str, **attributes: object) -> Markup:
    """Return <tag attributes>content</tag>; `stroke_width` becomes stroke-width, `class_` class; None is left out.

    Content that is not Markup is escaped.
    """
    written = Markup("").join(
        Markup(' {}="{}"').format(
            name.rstrip("_").replace("_", "-"), number(value) if isinstance(value, float) else value
        )
        for name, value in attributes.items()
        if value is not None
    )
    inner = Markup("").join(escape(part) for part in content)
    return Markup("<{0}{1}>{2}</{0}>").format(Markup(tag), written, inner)


def drawing(parts: Sequence[Markup], width: float, height: float, label: str, kind: str = "chart") -> Markup:
    """Return a whole chart as wide as its place on the page. label: its text alternative."""
    box = f"0 0 {width:g} {height:g}"
    return element("svg", *parts, viewBox=box, class_=kind, role="img", aria_label=label, width="100%")


def line(start: Point, end: Point, kind: str) -> Markup:
    (x1, y1), (x2, y2) = start, end
    return element("line", x1=x1, x2=x2, y1=y1, y2=y2, class_=kind)


def path(points: Iterable[Point]) -> str:
    """Return the `d` of a line through points in SVG units."""
    return "M" + "L".join(f"{number(x)} {number(y)}" for x, y in points)


def marker(shape: int, x: float, y: float, size: float = 3.6, **attributes: object) -> Markup:
    """Return a point whose form names its series: circle, square, triangle, diamond, triangle upside down."""
    shape %= 5
    if shape == 0:
        return element("circle", cx=float(x), cy=float(y), r=size, **attributes)
    corners = path((x + dx * size, y + dy * size) for dx, dy in CORNERS[shape - 1])
    return element("path", d=corners + "Z", **attributes)


def whisker(low: Point, high: Point, cap: float) -> Markup:
    """Return an upright or level bar between two points, with caps of half length `cap`."""
    (x1, y1), (x2, y2) = low, high
    if y1 == y2:
        d = f"M{x1:.1f} {y1 - cap:g}V{y1 + cap:g}M{x1:.1f} {y1:g}H{x2:.1f}M{x2:.1f} {y1 - cap:g}V{y1 + cap:g}"
    else:
        d = f"M{x1 - cap:.1f} {y1:.1f}H{x1 + cap:.1f}M{x1:.1f} {y1:.1f}V{y2:.1f}M{x1 - cap:.1f} {y2:.1f}H{x1 + cap:.1f}"
    return element("path", d=d, class_="whisker")


def swatch(style: int, *, kind: str = "", dot: bool = True) -> Markup:
    """Return a series' line and marker, for legends."""
    return element(
        "svg",
        element("path", d="M1 7H33", class_=f"line s{style} {kind}".rstrip()),
        marker(style, 17.0, 7.0, class_=f"dot s{style}") if dot else "",
        viewBox="0 0 34 14",
        class_="swatch",
        aria_hidden="true",
    )
