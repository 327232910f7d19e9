"""A difference with its interval as a bar from the middle of a small chart, for the cells of a table."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from markupsafe import Markup

from vertebra.evaluation.report.svg import element

WIDTH, HALF, MIDDLE = 120.0, 57.0, 60.0


def reach(differences: Sequence[Mapping[str, Any] | None], least: float = 1.0) -> float:
    """What the ends of the bars' chart stand for, so that bars of one table compare; whiskers may be cut off there."""
    return max([1.15 * abs(one["estimate"]) for one in differences if one] + [least])


def difference_bar(difference: Mapping[str, Any] | None, limit: float, style: int) -> Markup:
    """To the right where the second is higher, to the left where the first is; the whisker is the interval."""
    if difference is None:
        return Markup("")
    at, low, high = (
        MIDDLE + HALF * max(-1.0, min(1.0, difference[name] / limit)) for name in ("estimate", "low", "high")
    )
    return element(
        "svg",
        element("line", x1=MIDDLE, x2=MIDDLE, y1=0.0, y2=14.0, class_="zero"),
        element("rect", x=min(at, MIDDLE), y=3.0, width=abs(at - MIDDLE), height=8.0, class_=f"bar s{style}"),
        element("path", d=f"M{low:.1f} 7H{high:.1f}M{low:.1f} 4.5V9.5M{high:.1f} 4.5V9.5", class_="whisker"),
        viewBox=f"0 0 {WIDTH:g} 14",
        class_="bars",
        aria_hidden="true",
    )
