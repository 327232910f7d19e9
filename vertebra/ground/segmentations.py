"""Segmentations as COCO files have them, polygons and RLE: what is wrong with one, and its area.

pycocotools takes RLE of a wrong length for a mask of another shape without a word, and ends in errors of its own at
polygons that it cannot read; so they are checked before it sees them.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import chain
from numbers import Integral
from typing import Any

import numpy as np

from vertebra.ground import rle

Size = tuple[Any, Any]  # height, width in pixels, as the file has it
Fault = tuple[str, str]  # what is wrong, how to fix it
CHUNK = 2000  # masks whose characters and coordinates are read together
# pycocotools walks along an outline in memory, a fifth of a pixel in 8 bytes and more, and counts in 32 bits.
FARTHEST_PX, LONGEST_PX = 1e7, 4e6


def faults(values: Sequence[Any], sizes_hw: Sequence[Size], *, polygons: bool) -> Iterator[tuple[int, str, str]]:
    """Yield, in order, the place of each segmentation that cannot be used, its fault and how to fix it.

    sizes_hw: of each one's image. polygons: may stand in place of RLE, as in truth.
    """
    for start in range(0, len(values), CHUNK):
        some, sizes = values[start : start + CHUNK], sizes_hw[start : start + CHUNK]
        found: dict[int, Fault | None] = {}
        outlines = [k for k, value in enumerate(some) if polygons and isinstance(value, list)]
        if not _are_polygons([some[k] for k in outlines]):
            found = {k: _polygon_fault(some[k]) for k in outlines}
        runs = sorted(set(range(len(some))) - set(outlines))
        found |= {k: _rle_fault(some[k], sizes[k], polygons) for k in runs}
        texts = [k for k in runs if not found[k] and not isinstance(some[k]["counts"], list)]
        pixels = rle.pixels([some[k]["counts"] for k in texts]).tolist()
        found |= {k: _length_fault(count, sizes[k]) for k, count in zip(texts, pixels)}
        yield from ((start + k, *fault) for k, fault in sorted(found.items()) if fault is not None)


def area(value: Any, size_hw: Size) -> float:
    """Return the pixels of a segmentation that has no fault."""
    from pycocotools import mask

    return float(mask.area(rle.encode(value, size_hw)))


def _are_polygons(values: Sequence[list[Any]]) -> bool:
    """Return True if all are without a fault; False may also mean unusual numbers, or many large polygons."""
    parts = list(chain.from_iterable(values))
    if not set(map(type, parts)) <= {list} or not all(any(len(part) >= rle.SHORTEST for part in one) for one in values):
        return False
    return all(length and length % 2 == 0 for length in set(map(len, parts))) and _are_numbers(parts)


def _are_numbers(parts: Sequence[list[Any]]) -> bool:
    """Tell whether an outline through all corners can be walked along."""
    coordinates = list(chain.from_iterable(parts))
    if not set(map(type, coordinates)) <= {int, float}:
        return False
    try:
        corners_P2 = np.array(coordinates, np.float64).reshape(-1, 2)
    except OverflowError:
        return False
    are_near = bool((np.abs(corners_P2) <= FARTHEST_PX).all())  # what is not a number is not near
    return are_near and bool(np.abs(np.diff(corners_P2, axis=0)).sum() <= LONGEST_PX)


def _polygon_fault(value: list[Any]) -> Fault | None:
    are_lists = value and all(isinstance(part, list) and part and len(part) % 2 == 0 for part in value)
    if not are_lists or not all(_are_numbers([part]) for part in value):
        return "its polygons are not lists of finite numbers x, y, x, y ... in pixels of an image", "correct them"
    if max(map(len, value)) < rle.SHORTEST:
        return "none of its polygons has 3 corners", "correct or remove it"
    return None


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
