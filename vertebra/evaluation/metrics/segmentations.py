"""Segmentations as COCO files have them, polygons and RLE: what is wrong with one.

pycocotools takes RLE of a wrong length for a mask of another shape without a word, and ends in errors of its own at
polygons that it cannot read; so they are looked at before it sees them.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from numbers import Integral, Real
from typing import Any

from vertebra.ground import rle

Size = tuple[Any, Any]  # height, width in pixels, as the file says it
CHUNK = 2000  # masks whose characters are looked at together
CORNERS = 3  # of an object's first polygon: by a shorter one pycocotools takes all for boxes, and fails


def first_fault(values: Sequence[Any], sizes_hw: Sequence[Size], *, polygons: bool) -> tuple[int, str] | None:
    """The place of a segmentation that cannot be used, with what it has and the mend ("has ...; ..."); else None.

    sizes_hw: of each one's image. polygons: may stand in place of RLE, as in truth.
    """
    compressed: list[int] = []
    for place, (value, size_hw) in enumerate(zip(values, sizes_hw)):
        fault = _polygon_fault(value) if polygons and isinstance(value, list) else _rle_fault(value, size_hw, polygons)
        if fault:
            return place, fault
        if isinstance(value, dict) and not isinstance(value["counts"], list):
            compressed.append(place)
    for start in range(0, len(compressed), CHUNK):
        places = compressed[start : start + CHUNK]
        for place, covered in zip(places, rle.pixels([values[place]["counts"] for place in places]).tolist()):
            if covered != sizes_hw[place][0] * sizes_hw[place][1]:
                return place, _wrong_length(covered, sizes_hw[place])
    return None


def _polygon_fault(value: list[Any]) -> str:
    if not value or not all(isinstance(part, list) and _are_coordinates(part) for part in value):
        return "has polygons that are not lists of finite numbers x, y, x, y ...; correct them"
    if len(value[0]) < 2 * CORNERS:
        return f"has a first polygon of fewer than {CORNERS} corners; correct or remove it"
    return ""


def _are_coordinates(part: list[Any]) -> bool:
    return len(part) > 0 and len(part) % 2 == 0 and all(is_finite(value) for value in part)


def is_finite(value: object) -> bool:
    """Whether it is a number, and one that a float can hold."""
    try:
        return isinstance(value, Real) and not isinstance(value, bool) and math.isfinite(value)
    except OverflowError:  # whole numbers beyond floating point
        return False


def _rle_fault(value: Any, size_hw: Size, polygons: bool) -> str:
    if not isinstance(value, dict) or "counts" not in value or not _is_size(value.get("size")):
        what = "no segmentation in polygons or RLE" if polygons else "no segmentation in RLE (size and counts)"
        return f"has {what}; use boxes instead (the metric 'coco' of score.py), or write the masks"
    if tuple(value["size"]) != tuple(size_hw):
        return (
            f"has a mask of height x width {list(value['size'])}, but the truth's image is {list(size_hw)}; write "
            "masks in the image's own size"
        )
    counts = value["counts"]
    if isinstance(counts, (str, bytes)):
        return ""
    if not isinstance(counts, list) or not all(isinstance(run, Integral) and int(run) >= 0 for run in counts):
        return "has RLE counts that are neither a text nor a list of whole numbers from 0 on; encode the mask again"
    return _wrong_length(sum(counts), size_hw) if sum(counts) != size_hw[0] * size_hw[1] else ""


def _is_size(value: object) -> bool:
    return isinstance(value, (list, tuple)) and len(value) == 2 and all(isinstance(side, Integral) for side in value)


def _wrong_length(pixels: int, size_hw: Size) -> str:
    told = "cannot be decoded" if pixels < 0 else f"cover {pixels} pixels"
    return (
        f"has RLE counts that {told}, but its size of {list(size_hw)} has {size_hw[0] * size_hw[1]}; encode the mask "
        "again"
    )
