"""A scatter in which every point bears its name, with the line of the points that no other beats."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from markupsafe import Markup

from vertebra.evaluation.plots.axes import Axis, Frame, nice_ticks
from vertebra.evaluation.plots.svg import Point, drawing, element, marker, path, whisker
from vertebra.ground.formats import NBSP, shortened

Box = tuple[float, float, float, float]  # left, top, right, bottom

WIDTH, HEIGHT = 430.0, 320.0
LEFT, RIGHT, TOP, BOTTOM = 44.0, 420.0, 12.0, 276.0
SPAN = 4.0  # where values of x differ by a greater factor, their axis is logarithmic
CHARACTER_PX, LINE_PX = 7.8, 16.0
LETTERS = 24  # of a name: so many find room beside, above or below any point


@dataclass(frozen=True)
class Dot:
    """A named point with a whisker of `spread` each way, and its hover title."""

    name: str
    x: float
    y: float
    style: int
    title: str
    spread: float = 0.0


def scatter(
    dots: Sequence[Dot], x_name: str, y_name: str, *, line: Sequence[int], write: Callable[[float], str], label: str
) -> Markup:
    """Return the chart of points of y (0..100) over x. line: places of the joined points; write: values of x."""
    frame = Frame(_across([dot.x for dot in dots], x_name, write), _up(dots, y_name), LEFT, RIGHT, TOP, BOTTOM)
    spots = [frame.spot((dot.x, dot.y)) for dot in dots]
    parts = [frame.axes()]
    if len(line) > 1:
        parts.append(element("path", d=path(spots[place] for place in line), class_="pareto"))
    covered: list[Box] = []
    for dot, (x, y) in zip(dots, spots):
        lower, upper = (frame.spot((dot.x, dot.y + sign * dot.spread)) for sign in (-1, 1))
        covered.append((x - 6, min(upper[1], y - 6), x + 6, max(lower[1], y + 6)))
        bar = [whisker(lower, upper, 4.0)] if dot.spread else []
        mark = marker(dot.style, x, y, 5.5, class_=f"dot s{dot.style}")
        parts.append(element("g", element("title", dot.title), *bar, mark))
    return drawing([*parts, *_names(dots, spots, covered)], WIDTH, HEIGHT, label, "chart front")


def _across(values: Sequence[float], name: str, write: Callable[[float], str]) -> Axis:
    """The axis of x with room at both ends, logarithmic where the values span more than SPAN."""

    def write_tick(value: float) -> str:
        """'2.00 G' as '2 G': a tick is a round number."""
        number, _, unit = write(value).partition(NBSP)
        number = number.rstrip("0").rstrip(".") if "." in number else number
        return f"{number}{NBSP}{unit}" if unit else number

    low, high = min(values), max(values)
    if high > SPAN * low:
        factor = high / low
        return Axis(name, low / factor**0.16, high * factor**0.256, write_tick=write_tick, log=True)
    room = 0.16 * (high - low) or 0.2 * abs(high) or 0.2
    low, high = max(0.0, low - room), high + 1.6 * room
    return Axis(name, low, high, write_tick=write_tick, ticks=nice_ticks(low, high, 3))


def _up(dots: Sequence[Dot], name: str) -> Axis:
    low, high = min(dot.y - dot.spread for dot in dots), max(dot.y + dot.spread for dot in dots)
    room = max(0.18 * (high - low), 1.0)
    return Axis(name, max(0.0, low - room), min(100.0, high + room))


def _names(dots: Sequence[Dot], spots: Sequence[Point], covered: Sequence[Box]) -> list[Markup]:
    """Each point's name beside it, where it covers no other name and no point: to the right, the left, above, below.

    Long ones are shortened, and whole in their hover titles.
    """
    taken, parts = list(covered), []
    for dot, (x, y) in sorted(zip(dots, spots), key=lambda pair: -pair[1][0]):
        name = shortened(dot.name, LETTERS)
        width = CHARACTER_PX * len(name)
        places = [(x + 10, y), (x - 10 - width, y), (x - width / 2, y - LINE_PX), (x - width / 2, y + LINE_PX)]
        places += [(side, y + step * LINE_PX) for step in (1, -1, 2, -2, 3, -3) for side in (x + 10, x - 10 - width)]
        boxes = [(left, middle - LINE_PX / 2, left + width, middle + LINE_PX / 2) for left, middle in places]
        inside = [box for box in boxes if box[0] >= LEFT and box[2] <= WIDTH and box[1] >= 0 and box[3] <= BOTTOM]
        box = next((box for box in inside if not any(_overlap(box, other) for other in taken)), (inside or boxes)[0])
        taken.append(box)
        title = [element("title", dot.name)] if name != dot.name else []
        parts.append(element("text", *title, name, x=box[0], y=(box[1] + box[3]) / 2 + 4, class_="label"))
    return parts


def _overlap(a: Box, b: Box) -> bool:
    return a[0] < b[2] and b[0] < a[2] and a[1] < b[3] and b[1] < a[3]
