"""How numbers are written, in one place: consoles, Markdown, HTML and LaTeX cannot differ."""

from __future__ import annotations

import difflib
import math
import re
from collections.abc import Callable, Collection, Sequence

MINUS, TIMES, NONE = "\u2212", "\u00d7", "\u2013"
NBSP = "\u00a0"  # keeps a number and its unit on one line
APOSTROPHE = "\u2019"


def known(value: float | None) -> float | None:
    """The value, or None for the NaN or -1 of a metric that has nothing to measure."""
    return None if value is None or not math.isfinite(value) or value < 0 else float(value)


def ap(value: float | None) -> str:
    """A figure on the 0-100 scale with one decimal."""
    return NONE if value is None else _fixed(value, 1)


def signed(value: float | None) -> str:
    """A difference with its sign: '+6.0', '−0.3', '0.0'."""
    return NONE if value is None else _fixed(value, 1, sign="+")


def points(value: float | None) -> str:
    """An error, or a difference of errors, on the 0-100 scale with the two decimals that the papers give."""
    return NONE if value is None else _fixed(value, 2)


def signed_points(value: float) -> str:
    """A difference of errors with its sign: '+6.00', '−0.31', '0.00'."""
    return _fixed(value, 2, sign="+")


def signed_by(write: Callable[[float | None], str], value: float) -> str:
    """A difference of any measure with its sign, its size as `write` has it: '+2.34 G', '−12 ms'."""
    sign = "+" if value > 0 else MINUS if value < 0 else ""
    return sign + write(abs(value))


def shortened(text: str, most: int = 20) -> str:
    """The text, without its middle where it has more letters than `most`: often the ends tell names apart."""
    if len(text) <= most:
        return text
    tail = most // 2
    return f"{text[: most - 1 - tail]}…{text[-tail:]}"


def joined(names: Sequence[str]) -> str:
    """'a, b and c'."""
    return " and ".join(filter(None, (", ".join(names[:-1]), *names[-1:])))


def first_few(names: Sequence[str], most: int = 5) -> str:
    """'a, b and 3 more'."""
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return ", ".join(names[:most]) + more


def counted(number: int, noun: str) -> str:
    """'1 class', '2 classes', '3 categories'."""
    ends = {"y": noun[:-1] + "ies", "s": noun + "es", "x": noun + "es"}
    return f"{number} {noun if number == 1 else ends.get(noun[-1], noun + 's')}"


def did_you_mean(name: str, known: Collection[str], otherwise: str) -> str:
    """'did you mean NAME?' with the nearest of the known names; where none is near, `otherwise` and all of them."""
    near = difflib.get_close_matches(name, known, n=1)
    return f"did you mean {near[0]}?" if near else f"{otherwise} {', '.join(known)}"


def interval(low: float, high: float, write: Callable[[float], str] = signed) -> str:
    """'+5.6 to +6.4' of a difference."""
    return f"{write(low)} to {write(high)}"


def p_value(value: float) -> str:
    """'0.032', or '< 0.001'."""
    return f"{value:.3f}" if value >= 0.001 else "< 0.001"


def p_text(value: float) -> str:
    """'= 0.032', or '< 0.001', for sentences."""
    return f"= {value:.3f}" if value >= 0.001 else "< 0.001"


def ratio(value: float | None) -> str:
    """'0.98 ×', from 10 on without decimals."""
    if value is None:
        return NONE
    return f"{value:.2f}{NBSP}{TIMES}" if value < 10 else f"{value:.0f}{NBSP}{TIMES}"


def count(value: float | None) -> str:
    """Large numbers as 11.7 M, 1.82 G."""
    if value is None:
        return NONE
    for size, unit in ((1e12, "T"), (1e9, "G"), (1e6, "M"), (1e3, "k")):
        if value >= size:
            return f"{_significant(value / size)}{NBSP}{unit}"
    return f"{value:g}"


def tally(value: float | None) -> str:
    """A count with thousands apart: '1,204', means over seeds rounded."""
    return NONE if value is None else f"{round(value):,}"


def signed_tally(value: float) -> str:
    """A difference of counts with its sign: '+1,204', '−3', '0'."""
    return f"{round(value):+,}".replace("-", MINUS) if round(value) else "0"


def figure(value: float | None) -> str:
    """A number that is no AP: three significant digits, thousands as k."""
    if value is None:
        return NONE
    return count(value) if value >= 1000 else _significant(value)


def megabytes(value: float | None) -> str:
    """Memory in MB, from 1000 on in GB."""
    if value is None:
        return NONE
    return f"{_significant(value / 1000)}{NBSP}GB" if value >= 1000 else f"{value:.0f}{NBSP}MB"


def times(value: float) -> str:
    """A ratio in a sentence: '1.5 times', from 10 on without decimals, near 1 with two."""
    if value >= 10:
        return f"{value:.0f} times"
    return f"{value:.2f} times" if 0.95 <= value < 1.05 or value < 0.1 else f"{value:.1f} times"


def seconds(value: float | None) -> str:
    """A time per image in ms below a second."""
    if value is None:
        return NONE
    return f"{_significant(value * 1000)}{NBSP}ms" if value < 1 else f"{_significant(value)}{NBSP}s"


def duration(value: float | None) -> str:
    """A training time: '42 s', '4 min 10 s', '3 h 05 min'."""
    if value is None:
        return NONE
    whole = round(value)
    if whole < 60:
        return f"{whole}{NBSP}s"
    if whole < 3600:
        return f"{whole // 60}{NBSP}min {whole % 60:02d}{NBSP}s"
    return f"{whole // 3600}{NBSP}h {whole % 3600 // 60:02d}{NBSP}min"


def percent(value: float | None) -> str:
    return NONE if value is None else f"{value:.1f}{NBSP}%"


def plain(value: object) -> str:
    """Any protocol value as text."""
    if value is None:
        return NONE
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float):
        return f"{value:g}"
    if isinstance(value, (list, tuple)):
        return ", ".join(plain(part) for part in value) or NONE
    return str(value)


def markdown(text: object) -> str:
    """Text for a Markdown cell or line: what Markdown or HTML would read as markup is escaped."""
    escaped = re.sub(r"([\\`*_\[\]|<>#])", r"\\\1", str(text))
    return " ".join(escaped.split())


def _fixed(value: float, decimals: int, sign: str = "") -> str:
    """A fixed number of decimals, 0 without a sign. sign: "+" for one before positive values."""
    rounded = round(value, decimals) or 0.0
    return f"{rounded:{sign if rounded else ''}.{decimals}f}".replace("-", MINUS)


def _significant(value: float) -> str:
    """Three significant digits, never an exponent."""
    if value >= 100:
        return f"{value:.0f}"
    return f"{value:.1f}" if value >= 10 else f"{value:.2f}"
