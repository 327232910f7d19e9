"""Segmentations as COCO files have them, polygons and RLE: what is wrong with one.

pycocotools takes RLE of a wrong length for a mask of another shape without a word, and ends in errors of its own at
polygons that it cannot read; so they are checked before it sees them.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from numbers import Integral, Real
from typing import Any

import numpy as np

from vertebra.ground import rle

Size = tuple[Any, Any]  # height, width in pixels, as the file has it
Fault = tuple[str, str]  # what is wrong, how to fix it
CHUNK = 2000  # masks whose characters are read together
CORNERS = 3  # of an object's first polygon: by a shorter one pycocotools takes all for boxes, and fails


def first_fault(values: Sequence[Any], sizes_hw: Sequence[Size], *, polygons: bool) -> tuple[int, str, str] | None:
    """Return the place of the first segmentation that cannot be used, its fault and how to fix it; else None.

    sizes_hw: of each one's image. polygons: may stand in place of RLE, as in truth.
    """
    compressed: list[int] = []
    for place, (value, size_hw) in enumerate(zip(values, sizes_hw)):
        is_polygons = polygons and isinstance(value, list)
        fault = _polygon_fault(value) if is_polygons else _rle_fault(value, size_hw, polygons)
        if fault:
            return place, *fault
        if isinstance(value, dict) and not isinstance(value["counts"], list):
            compressed.append(place)
    for start in range(0, len(compressed), CHUNK):
        places = compressed[start : start + CHUNK]
        for place, pixels in zip(places, rle.pixels([values[place]["counts"] for place in places]).tolist()):
            fault = _length_fault(pixels, sizes_hw[place])
            if fault:
                return place, *fault
    return None


def is_finite(value: object) -> bool:
    """Return whether it is a number, and one that a float can hold."""
    try:
        return isinstance(value, Real) and not isinstance(value, bool) and math.isfinite(value)
    except OverflowError:  # whole numbers beyond floating point
        return False


def are_finite(values: list[Any], least: float = -math.inf) -> bool:
    """Return whether all are ints or floats, finite and at least `least`; False may also mean other types of number."""
    kinds = set(map(type, values))
    if bool in kinds or not all(issubclass(kind, (int, float, np.integer, np.floating)) for kind in kinds):
        return False
    try:
        array = np.array(values, dtype=np.float64)
    except OverflowError:
        return False
    return bool(np.isfinite(array).all() and (array >= least).all())


def _polygon_fault(value: list[Any]) -> Fault | None:
    if not value or not all(isinstance(part, list) and _are_coordinates(part) for part in value):
        return "its polygons are not lists of finite numbers x, y, x, y ...", "correct them"
    if len(value[0]) < 2 * CORNERS:
        return f"its first polygon has fewer than {CORNERS} corners", "correct or remove it"
    return None


def _are_coordinates(part: list[Any]) -> bool:
    return len(part) > 0 and len(part) % 2 == 0 and (are_finite(part) or all(map(is_finite, part)))


def _rle_fault(value: Any, size_hw: Size, polygons: bool) -> Fault | None:
    if not isinstance(value, dict) or "counts" not in value or not _is_size(value.get("size")):
        what = "polygons or RLE" if polygons else "RLE (size and counts)"
        hint = "use boxes instead (the metric 'coco' of score.py), or write the masks"
        return f"has no segmentation in {what}", hint
    if tuple(value["size"]) != tuple(size_hw):
        reason = f"a mask of height x width {list(value['size'])} in an image of {list(size_hw)}"
        return reason, "write masks in the size of the truth's image"
    counts = value["counts"]
    if isinstance(counts, (str, bytes)):
        return None
    if not isinstance(counts, list) or not all(isinstance(run, Integral) and int(run) >= 0 for run in counts):
        return "RLE counts that are neither a text nor a list of whole numbers from 0 on", "encode the mask again"
    return _length_fault(sum(counts), size_hw)


def _is_size(value: object) -> bool:
    return isinstance(value, (list, tuple)) and len(value) == 2 and all(isinstance(side, Integral) for side in value)


def _length_fault(pixels: int, size_hw: Size) -> Fault | None:
    if pixels == size_hw[0] * size_hw[1]:
        return None
    what = "cannot be decoded" if pixels < 0 else f"cover {pixels} pixels"
    reason = f"RLE counts that {what} in an image of {list(size_hw)}, {size_hw[0] * size_hw[1]} pixels"
    return reason, "encode the mask again"
