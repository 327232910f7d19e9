"""What stands in a file of annotations or detections, and what is wrong with it: one set of rules for all who read it.

The reader of annotations, the check, the scorer of anyone's files and so a run's truth go by these: what is trained on
can be scored. What has a plain meaning is read (64.0 is 64, "1" is 1, "false" is no), all else is a fault. A file has
millions of values, so each rule takes a column at once, and looks at values one by one only where some are unusual.

Legend: K objects.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from itertools import chain
from numbers import Integral, Real
from typing import Any

import numpy as np
from numpy.typing import NDArray

FloatArray = NDArray[np.float64]
FLAGS = ("iscrowd", "difficult")
CORRECT = "correct it, or leave it out"

_WORDS = {"": 0, "false": 0, "no": 0, "true": 1, "yes": 1}
_LARGEST_ID, LARGEST_SIDE = 2**63 - 1, 2**31 - 1


@dataclass(frozen=True)
class Column:
    """Values as they were read, NaN or None where there is none; wrong: the places of those that break the rule, none
    of which is missing (or null).

    plain: all values stand in the file as they were read. wanted, hint: of the sentence on a wrong one.
    """

    values: Any
    wrong: Sequence[int]
    wanted: str
    hint: str
    plain: bool


Rule = Callable[[list[Any]], Column]


def ids(raw: list[Any]) -> Column:
    """Whole numbers of 64 bits, as a list."""
    values, plain = _wholes(raw)
    wrong = _outside(raw, values, -_LARGEST_ID - 1, _LARGEST_ID)
    return Column(values, wrong, "is not a whole number of 64 bits", "number them anew, in all files alike", plain)


def sides(raw: list[Any]) -> Column:
    """Whole numbers of pixels from 1 to 2^31 - 1, as a list."""
    values, plain = _wholes(raw)
    wrong = _outside(raw, values, 1, LARGEST_SIDE)
    return Column(values, wrong, "is not a whole number of pixels from 1 to 2147483647", "correct it", plain)


def areas(raw: list[Any]) -> Column:
    """Numbers from 0 on, float64."""
    values, plain = numbers(raw)
    return Column(values, _there(raw, ~(values >= 0)), "is not a number of square pixels", CORRECT, plain)


def scores(raw: list[Any]) -> Column:
    """Finite numbers, float64."""
    values, plain = numbers(raw)
    hint = "each prediction needs one (was the truth given in place of the predictions?)"
    return Column(values, _there(raw, np.isnan(values)), "is not a finite number", hint, plain)


def texts(raw: list[Any]) -> Column:
    """Texts that are not empty, as a list; numbers are written out."""
    plain = set(map(type, raw)) <= {str}
    values = raw if plain else [str(one) if not math.isnan(_number(one)) else one for one in raw]
    wrong = [place for place, one in enumerate(values) if one is not None and not (isinstance(one, str) and one)]
    return Column(values, wrong, "is not a text", "correct it", plain)


def flags(raw: list[Any]) -> Column:
    """Yes or no, bool; missing is no."""
    plain = set(map(type, raw)) <= {int, bool, type(None)} and set(raw) <= {0, 1, None}
    values = raw if plain else [_flag(one) for one in raw]
    wrong = [] if plain else [place for place, one in enumerate(values) if one is None]
    return Column(np.array(values, bool), wrong, "is neither 0 nor 1", CORRECT, plain)


def boxes(raw: list[Any]) -> Column:
    """Four finite numbers each, float64 K4."""
    four = raw
    if not (set(map(type, raw)) <= {list, tuple} and set(map(len, raw)) <= {4}):
        four = [box if isinstance(box, (list, tuple)) and len(box) == 4 else (None,) * 4 for box in raw]
    flat, plain = numbers(list(chain.from_iterable(four)))
    values = flat.reshape(-1, 4)
    wrong = _there(raw, np.any(np.isnan(values), axis=1))
    return Column(values, wrong, "is not four finite numbers", "give x, y, width, height in pixels", plain)


def have_negative_sides(xywh_K4: FloatArray) -> Any:
    """Return which boxes have one, K bool."""
    return np.any(xywh_K4[:, 2:] < 0, axis=1)


def flag(name: str, text: str) -> bool:
    """Return what the text of one flag says. Raises ValueError."""
    value = _flag(text)
    if value is None:
        raise ValueError(f"{name} {text.strip()!r} is neither 0 nor 1")
    return value


def numbers(raw: list[Any]) -> tuple[FloatArray, bool]:
    """Return float64, NaN where there is no finite number, and whether they are all plain numbers."""
    types = set(map(type, raw))
    if bool not in types and all(issubclass(one, (int, float, np.number)) for one in types):
        with suppress(OverflowError, TypeError):  # whole numbers beyond floating point, complex numbers
            values = np.array(raw, np.float64)
            values[np.isinf(values)] = np.nan
            return values, types <= {int, float, np.float64}
    return np.array([_number(one) for one in raw], np.float64), False


def is_whole(value: object) -> bool:
    return type(value) is int or (isinstance(value, Integral) and not isinstance(value, bool))


def _number(value: Any) -> float:
    if isinstance(value, bool) or not isinstance(value, (Real, str)):
        return math.nan
    try:
        number = float(value)
    except (ValueError, OverflowError):
        return math.nan
    return number if math.isfinite(number) else math.nan


def _wholes(raw: list[Any]) -> tuple[list[int | None], bool]:
    plain = set(map(type, raw)) <= {int, type(None)}
    return (raw if plain else [_whole(one) for one in raw]), plain


def _whole(value: Any) -> int | None:
    if is_whole(value):
        return int(value)
    if isinstance(value, str):
        with suppress(ValueError):
            return int(value)
    number = _number(value)
    return int(number) if number.is_integer() else None


def _outside(raw: list[Any], values: list[int | None], least: int, most: int) -> list[int]:
    some = set(values)  # few, where they are of other lists
    if some and None not in some and least <= min(some) and max(some) <= most:  # type: ignore[type-var, operator]
        return []
    wrong = [one is None or not least <= one <= most for one in values]
    return _there(raw, np.array(wrong, bool))


def _there(raw: list[Any], wrong_K: Any) -> list[int]:
    """Return the places of what is wrong and not missing."""
    return [place for place in np.flatnonzero(wrong_K).tolist() if raw[place] is not None]


def _flag(value: Any) -> bool | None:
    word = _WORDS.get(value.strip().lower()) if isinstance(value, str) else None
    if value is None or word is not None:
        return bool(word)
    number = value if isinstance(value, bool) else _number(value)
    return bool(number) if number in (0, 1) else None
