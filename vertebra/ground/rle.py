"""Run lengths of masks (RLE) as COCO files have them: one reader and one writer; polygons by pycocotools.

Runs of 0 and 1 take turns, 0 first, down the columns of the image. Compressed, a run is a number in characters of 5
bits, the lowest first; a sixth bit says that more follow, and the fifth bit of the last one that the number is
negative; from the fourth run on the number is the difference to the run before the last. pycocotools takes RLE of a
wrong length for a mask of another shape, or decodes it into memory that nobody has written to, so check `pixels` first.

Legend: D masks, B the characters of their compressed RLE, V the runs in it, S those of set pixels.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

IntArray = NDArray[np.int64]
Size = tuple[int, int]  # height, width, in pixels

_OFFSET, _BITS, _MORE, _SIGN = 48, 5, 0x20, 0x10  # 48 makes a character printable
_MOST_CHARACTERS = 12  # of one number, which is 60 bits
SHORTEST = (
    6  # coordinates of a polygon: fewer than three corners enclose nothing; official files have such among others
)


def run_lengths(texts: Sequence[str | bytes]) -> tuple[IntArray, IntArray, NDArray[np.bool_]]:
    """Return the lengths_V of all runs, the place of each run's text, and broken_D: texts that are no compressed RLE.

    The runs of a broken text mean nothing.
    """
    codes = [text.encode("utf-8", "replace") if isinstance(text, str) else text for text in texts]
    length_D = np.array([len(code) for code in codes], np.int64)
    broken_D = np.zeros(len(codes), bool)
    byte_B = np.frombuffer(b"".join(codes), np.uint8).astype(np.int64) - _OFFSET
    if not len(byte_B):
        return byte_B, byte_B, broken_D
    text_B = np.repeat(np.arange(len(codes)), length_D)
    broken_D[text_B[(byte_B < 0) | (byte_B >= 2 * _MORE)]] = True
    is_last_B = (byte_B & _MORE) == 0
    ends_D = np.cumsum(length_D)[length_D > 0] - 1
    broken_D[text_B[ends_D]] |= ~is_last_B[ends_D]
    is_last_B[ends_D] = True  # so that what is broken stays within its text
    end_V = np.flatnonzero(is_last_B)
    characters_V = np.diff(end_V, prepend=-1)
    start_V, text_V = end_V - characters_V + 1, text_B[end_V]
    broken_D[text_V[characters_V > _MOST_CHARACTERS]] = True
    place_B = np.minimum(np.arange(len(byte_B)) - np.repeat(start_V, characters_V), _MOST_CHARACTERS - 1)
    written_V = np.add.reduceat((byte_B & (_MORE - 1)) << (_BITS * place_B), start_V)
    is_negative_V = (byte_B[end_V] & _SIGN) != 0
    written_V -= np.where(is_negative_V, np.int64(1) << (_BITS * (place_B[end_V] + 1)), 0)
    return _summed(written_V, text_V), text_V, broken_D


def _summed(written_V: IntArray, text_V: IntArray) -> IntArray:
    """Return run lengths from the numbers written: every second one of a text summed up, from its second one on."""
    runs_D = np.bincount(text_V)
    first_V = np.repeat(np.cumsum(runs_D) - runs_D, runs_D)
    place_V = np.arange(len(text_V)) - first_V
    length_V = written_V
    for chain_V in (place_V % 2 == 1, (place_V % 2 == 0) & (place_V > 0)):
        sums_V = np.cumsum(np.where(chain_V, written_V, 0))
        length_V = np.where(chain_V, sums_V - sums_V[first_V], length_V)
    return length_V


def pixels(texts: Sequence[str | bytes]) -> IntArray:
    """Return how many pixels each compressed RLE covers, zeros included; -1 for a text that is none."""
    length_V, text_V, broken_D = run_lengths(texts)
    broken_D[text_V[length_V < 0]] = True
    total_D = np.zeros(len(texts), np.int64)
    starts = np.flatnonzero(np.diff(text_V, prepend=-1))
    if len(starts):
        total_D[text_V[starts]] = np.add.reduceat(length_V, starts)
    return np.where(broken_D, -1, total_D)


def encode(value: Any, size_hw: Size) -> Any:
    """Return pycocotools' compressed RLE of polygons, a list of runs, or compressed RLE, none of which has a fault."""
    from pycocotools import mask

    if isinstance(value, list):  # by a shorter one in the first place pycocotools takes all for boxes, and fails
        polygons = [polygon for polygon in value if len(polygon) >= SHORTEST]
        return mask.merge(mask.frPyObjects(polygons, *size_hw))
    return mask.frPyObjects(value, *size_hw) if isinstance(value["counts"], list) else value


def compress(lengths: Sequence[int], size_hw: Size) -> bytes:
    """Return the compressed `counts` of runs that cover the image."""
    return encode({"size": list(size_hw), "counts": list(lengths)}, size_hw)["counts"]


def to_json(counts: bytes, size_hw: Size) -> dict[str, Any]:
    """Return compressed RLE as COCO results have it."""
    return {"size": [int(size_hw[0]), int(size_hw[1])], "counts": counts.decode("ascii")}


@dataclass(frozen=True)
class Patch:
    """A mask where it is set: bits_HW (uint8 0/1) from row `top` and column `left` of its image on; the rest is 0."""

    top: int
    left: int
    bits_HW: np.ndarray

    def cut(self, top: int, left: int, height: int, width: int) -> Patch:
        """Return the mask of that part of the image, in the part's pixels."""
        rows = slice(max(0, top - self.top), max(0, top + height - self.top))
        columns = slice(max(0, left - self.left), max(0, left + width - self.left))
        return Patch(max(0, self.top - top), max(0, self.left - left), self.bits_HW[rows, columns])

    def whole(self, size_hw: Size) -> NDArray[np.uint8]:
        """Return the mask of its whole image, which has that size."""
        bits_HW = np.zeros(size_hw, np.uint8)
        height, width = self.bits_HW.shape
        bits_HW[self.top : self.top + height, self.left : self.left + width] = self.bits_HW
        return bits_HW


def decode(values: Sequence[dict[str, Any]]) -> list[Patch]:
    """Return the masks of compressed RLE without a fault, each in the smallest patch that holds it.

    All at once, and no pixel beside the patches' columns: pycocotools takes twenty times as long.
    """
    length_V, text_V, _ = run_lengths([value["counts"] for value in values])
    height_D = np.array([value["size"][0] for value in values], np.int64)
    runs_D = np.bincount(text_V, minlength=len(values))
    first_D = np.cumsum(runs_D) - runs_D
    bit_V = ((np.arange(len(text_V)) - first_D[text_V]) % 2).astype(np.uint8)
    end_V = np.cumsum(length_V)
    end_V -= (end_V - length_V)[first_D[text_V]]  # within its own mask, as the places below
    set_V = np.flatnonzero(bit_V & (length_V > 0))
    text_S, height_S = text_V[set_V], height_D[text_V[set_V]]
    (left_S, top_S), (right_S, bottom_S) = (
        np.divmod(place_S, height_S) for place_S in (end_V[set_V] - length_V[set_V], end_V[set_V] - 1)
    )
    goes_on_S = left_S != right_S  # from the foot of one column to the head of the next
    top_S[goes_on_S], bottom_S[goes_on_S] = 0, height_S[goes_on_S] - 1
    box_D4 = np.zeros((len(values), 4), np.int64)
    if len(set_V):
        starts = np.flatnonzero(np.diff(text_S, prepend=-1))
        least = [np.minimum.reduceat(part_S, starts) for part_S in (left_S, top_S)]
        most = [np.maximum.reduceat(part_S, starts) + 1 for part_S in (right_S, bottom_S)]
        box_D4[text_S[starts]] = np.stack([*least, *most], axis=1)
    start_D, stop_D = box_D4[:, 0] * height_D, box_D4[:, 2] * height_D
    seen_V = np.clip(end_V, start_D[text_V], stop_D[text_V])
    seen_V -= np.clip(end_V - length_V, start_D[text_V], stop_D[text_V])
    bits = np.split(np.repeat(bit_V, seen_V), np.cumsum(stop_D - start_D)[:-1])
    return [
        Patch(top, left, columns.reshape(right - left, height)[:, top:bottom].T)
        for columns, height, (left, top, right, bottom) in zip(bits, height_D.tolist(), box_D4.tolist())
    ]
