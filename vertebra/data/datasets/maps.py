"""Semantic maps: from a PNG to the class of every pixel.

Labels are uint8: 0..C-1 the classes, in the data set's order, IGNORED what nothing is learnt from or measured on.
"""

from __future__ import annotations

import functools
import io
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import cv2
import numpy as np

from vertebra.data.loading.decode import PNG, open_header, read_bytes, refuse_huge
from vertebra.ground.errors import BadSample
from vertebra.ground.labels import IGNORED

MOST_CLASSES = 254
_UNKNOWN = 254  # the label, while a map is read, of values that are no class
_GREY, _RGB, _RGBA = 0, 2, 6  # PNG's types of colour
Colour = tuple[int, ...]  # red, green, blue


@dataclass(frozen=True)
class Coding:
    """What the values of a set's maps mean.

    table: the label of each index 0..255, in PNGs of grey values or of a palette. colours: the label of each colour, in
    PNGs of colours; none: such maps are refused.
    """

    table: bytes
    colours: tuple[tuple[Colour, int], ...] = ()

    @classmethod
    def of(cls, labels: Mapping[int, int]) -> Coding:
        """labels: of the indices that may occur, beside 255, which is ignored."""
        return cls(bytes({IGNORED: IGNORED, **labels}.get(value, _UNKNOWN) for value in range(256)))

    def at(self, index: int) -> Coding:
        """What the values of one image's map mean: the same in all."""
        return self

    def take(self, indices: np.ndarray) -> Coding:
        return self

    def facts(self, indices: np.ndarray) -> bytes:
        """Return what tells codings apart, for a hash."""
        return json.dumps(self.colours).encode() + self.table


class OfImages(Protocol):
    """A coding of several images by their number."""

    def at(self, index: int) -> Coding: ...
    def facts(self, indices: np.ndarray) -> bytes: ...


@dataclass(frozen=True, eq=False)
class Codings:
    """What values mean where maps differ in it: those of image i are of number numbers_I[i] in parts[parts_I[i]]."""

    parts: tuple[OfImages, ...]
    parts_I: np.ndarray
    numbers_I: np.ndarray
    colours: tuple[tuple[Colour, int], ...] = ()  # that all maps have in common

    def at(self, index: int) -> Coding:
        return self.parts[self.parts_I[index]].at(int(self.numbers_I[index]))

    def take(self, indices: np.ndarray) -> Codings:
        """The codings of the images at these places."""
        return Codings(self.parts, self.parts_I[indices], self.numbers_I[indices], self.colours)

    def facts(self, indices: np.ndarray) -> bytes:
        parts_I, numbers_I = self.parts_I[indices], self.numbers_I[indices]
        own = (part.facts(numbers_I[parts_I == number]) for number, part in enumerate(self.parts))
        return parts_I.tobytes() + b"".join(own)


def read_map(path: Path, coding: Coding) -> np.ndarray:
    """Return the labels in a map, HW uint8. Raises BadSample, with the first value that is no class."""
    content = read_bytes(path)
    if not content.startswith(PNG):
        raise BadSample(path, "is not a PNG", "write maps as PNG, which keeps every value")
    try:
        with open_header(io.BytesIO(content)) as image:
            refuse_huge((image.height, image.width), path)
            bits, kind = content[24], content[25]
            if bits == 16:
                raise BadSample(path, "has 16 bits a value", f"write it with 8: at most {MOST_CLASSES} classes")
            if kind in (_RGB, _RGBA):
                return _of_colours(np.asarray(image.convert("RGB")), path, coding)
            values_HW = np.asarray(image, np.uint8)  # by Pillow: OpenCV gives a palette's colours
    except BadSample:
        raise
    except Exception as error:  # of a damaged file Pillow raises anything
        raise BadSample(path, f"does not decode ({error})", "restore it, or remove it from the data set") from error
    values_HW = values_HW[:, :, 0] if values_HW.ndim == 3 else values_HW  # beside it is only how opaque a pixel is
    if kind == _GREY and bits in (2, 4):
        values_HW = values_HW // (255 // (2**bits - 1))  # Pillow stretches them to 0..255
    labels_HW = cv2.LUT(values_HW, np.frombuffer(coding.table, np.uint8))
    if (unknown_HW := labels_HW == _UNKNOWN).any():
        _refuse(path, f"index {values_HW[unknown_HW][0]}", int(unknown_HW.sum()))
    return labels_HW


def _of_colours(pixels_HW3: np.ndarray, path: Path, coding: Coding) -> np.ndarray:
    if not coding.colours:
        reason = "its pixels are colours, not indices of classes"
        hint = "write a grey or palette PNG; of a set of your own (maps:DIR), classes.txt may give colours: name r g b"
        raise BadSample(path, reason, hint)
    labels_HW = _colour_table(coding.colours)[_packed(pixels_HW3.astype(np.int32))]
    if (unknown_HW := labels_HW == _UNKNOWN).any():
        _refuse(path, "colour {} {} {}".format(*pixels_HW3[unknown_HW][0]), int(unknown_HW.sum()))
    return labels_HW


def _refuse(path: Path, what: str, pixels: int) -> None:
    reason = f"has {what}, in {pixels} of its pixels, which is none of the set's classes"
    raise BadSample(path, reason, f"correct it, or make it {IGNORED}, which is ignored")


def _packed(colour_3: np.ndarray) -> np.ndarray:
    return colour_3[..., 0] << 16 | colour_3[..., 1] << 8 | colour_3[..., 2]


@functools.lru_cache(maxsize=2)
def _colour_table(colours: tuple[tuple[Colour, int], ...]) -> np.ndarray:
    """Return the label of every colour there is, uint8."""
    table = np.full(1 << 24, _UNKNOWN, np.uint8)
    for colour, label in colours:
        table[_packed(np.array(colour))] = label
    return table


def palette(colours: Mapping[int, Colour] | None = None) -> np.ndarray:
    """Return the colours in which maps are drawn, 256 x 3 uint8: VOC's, but for those given by label."""
    table_V3 = np.zeros((256, 3), np.uint8)
    for place in range(8):  # red, green and blue take turns, from a label's lowest bit and their highest on
        bits_V3 = (np.arange(256)[:, None] >> (3 * place + np.arange(3))) & 1
        table_V3 |= (bits_V3 << (7 - place)).astype(np.uint8)
    for label, colour in (colours or {}).items():
        table_V3[label] = colour
    return table_V3
