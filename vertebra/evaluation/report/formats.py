"""How the report writes figures with a spread, and differences with an interval; plain numbers: `ground.formats`."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import Any

from vertebra.ground.formats import (
    APOSTROPHE,
    MINUS,
    NBSP,
    NONE,
    TIMES,
    ap,
    count,
    duration,
    figure,
    interval,
    joined,
    known,
    markdown,
    megabytes,
    p_text,
    p_value,
    percent,
    plain,
    points,
    ratio,
    seconds,
    shortened,
    signed,
    signed_by,
    signed_points,
    tally,
    times,
)

__all__ = [
    "APOSTROPHE",
    "MINUS",
    "NBSP",
    "NONE",
    "TIMES",
    "ap",
    "change",
    "count",
    "duration",
    "figure",
    "interval",
    "joined",
    "known",
    "markdown",
    "mean_and_spread",
    "megabytes",
    "p_text",
    "p_value",
    "percent",
    "plain",
    "plus_minus",
    "points",
    "ratio",
    "seconds",
    "shortened",
    "signed",
    "signed_by",
    "signed_points",
    "spread",
    "tally",
    "times",
]


def mean_and_spread(figure: Mapping[str, Any]) -> str:
    """'45.0 ± 0.6' of a figure's `mean` and `std`, without the spread where there is one run."""
    over = "" if figure["std"] is None else f" ± {ap(figure['std'])}"
    return ap(figure["mean"]) + over


def plus_minus(difference: Mapping[str, Any]) -> str:
    """'6.0 ± 0.4' of a difference's `estimate` and half its interval, the sign aside."""
    return f"{ap(abs(difference['estimate']))}{NBSP}±{NBSP}{ap(difference['high'] - difference['estimate'])}"


def change(difference: Mapping[str, Any] | None) -> str:
    """'+6.0 (+5.6 to +6.4)' of a difference with its interval."""
    if difference is None:
        return NONE
    return f"{signed(difference['estimate'])} ({interval(difference['low'], difference['high'])})"


def spread(told: Mapping[str, Any] | None, write: Callable[[float | None], str]) -> str:
    """'207 ± 2 ms': mean and standard deviation of a measure, as `write` has it."""
    if told is None:
        return NONE
    mean, std = told["mean"], told["std"]
    if not std:
        return write(mean)
    number, _, unit = write(mean).partition(NBSP)
    if not re.fullmatch(r"\d+(\.\d+)?", number) or NBSP in unit or float(number) == 0:  # minutes and seconds, say
        return f"{write(mean)} ± {write(std)}"
    digits = len(number.partition(".")[2])
    return f"{number} ± {std * float(number) / mean:.{digits}f}" + (f"{NBSP}{unit}" if unit else "")
