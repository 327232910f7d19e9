"""Detections drawn on a picture: boxes, translucent masks, labels with class and score. By OpenCV alone.

Legend: H W the picture. Colours are RGB.

Everything grows with the picture, and a small picture is enlarged first, so that labels can be read on all. A class
has one colour on all pictures; neighbours in the list of classes differ in lightness as well as in hue, lines have a
casing that sets them off from any background, and every label names its class.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from math import ceil, sqrt
from typing import Any

import cv2
import numpy as np

from vertebra.evaluation.metrics.files import Entry
from vertebra.ground import rle
from vertebra.ground.boxes import shared_area
from vertebra.ground.rle import Size

Colour = tuple[int, int, int]
Corners = tuple[int, int, int, int]  # x0 y0 x1 y1, in pixels

SMALLEST_PX = 400  # pictures whose longer side is below are enlarged, by a whole number
LARGEST_FACTOR = 16
TEXT_SHARE, TEXT_PX = 0.022, 12  # height of a capital: of the root of the picture's area, and at least
LINE_SHARE, LINE_PX = 0.0035, 2
MASK_OPACITY = 0.4
COVERED = 0.05  # share of a label that others may cover; beyond it the label is left out
GOLDEN_ANGLE = 137.508  # degrees: hues that follow one another so are spread evenly, however many there are
LIGHTNESS = (72.0, 42.0, 87.0, 60.0)  # CIE L*, in turns; none so middling that neither black nor white reads on it
CHROMA = tuple(range(80, 0, -5))  # the strongest that a screen can show
BLACK, WHITE = (0, 0, 0), (255, 255, 255)


def class_colours(category_ids: Iterable[int]) -> dict[int, Colour]:
    """One colour a class, by its place in the list."""
    ids = list(category_ids)
    place_C = np.arange(len(ids))
    hue_C = np.deg2rad(25 + GOLDEN_ANGLE * place_C)
    lightness_C = np.array(LIGHTNESS)[place_C % len(LIGHTNESS)]
    lab_KC3 = np.stack(
        [np.stack([lightness_C, chroma * np.cos(hue_C), chroma * np.sin(hue_C)], axis=1) for chroma in CHROMA]
    ).astype(np.float32)
    if not ids:
        return {}
    rgb_KC3 = np.clip(cv2.cvtColor(lab_KC3, cv2.COLOR_LAB2RGB), 0, 1)
    # Of a hue and a lightness a screen shows only so much colour; what it cannot show comes back darker or lighter.
    shown_KC = np.abs(cv2.cvtColor(rgb_KC3, cv2.COLOR_RGB2LAB)[..., 0] - lightness_C) < 1
    values = np.round(255 * rgb_KC3[shown_KC.argmax(axis=0), place_C]).astype(int).tolist()
    return {category_id: (red, green, blue) for category_id, (red, green, blue) in zip(ids, values)}


def enlargement(size_hw: Size) -> int:
    """Return the factor by which a picture's drawing is larger, a whole number."""
    return min(LARGEST_FACTOR, ceil(SMALLEST_PX / max(size_hw)))


def drawn_size(size_hw: Size) -> Size:
    """Height and width of a picture's drawing."""
    factor = enlargement(size_hw)
    return factor * size_hw[0], factor * size_hw[1]


def draw(
    pixels_HW3: np.ndarray, entries: Sequence[Entry], names: Mapping[int, str], colours: Mapping[int, Colour]
) -> np.ndarray:
    """The picture, uint8 RGB, with its detections (COCO results, in its pixels), `enlargement` times as large.

    names, colours: by category id. The given picture is not changed.
    """
    pen = Pen.of((pixels_HW3.shape[0], pixels_HW3.shape[1]))
    factor = pen.factor
    canvas_HW3 = cv2.resize(pixels_HW3, None, fx=factor, fy=factor, interpolation=cv2.INTER_CUBIC)
    by_size = sorted(entries, key=lambda entry: -entry["bbox"][2] * entry["bbox"][3])
    for entry in by_size:  # small ones over large ones
        if "segmentation" in entry:
            _draw_mask(canvas_HW3, entry["segmentation"], colours[entry["category_id"]], pen)
    casing = max(1, pen.line // 3)
    for entry in by_size:
        corners, colour = _corners(entry, pen), colours[entry["category_id"]]
        for shade, thickness in ((_contrast(colour), pen.line + 2 * casing), (colour, pen.line)):
            cv2.rectangle(canvas_HW3, corners[:2], corners[2:], shade, thickness)
    for label in reversed(place_labels(entries, names, pen)):  # the surest on top
        draw_label(canvas_HW3, label, colours[label.category_id])
    return canvas_HW3


@dataclass(frozen=True)
class Pen:
    """Sizes in pixels of one drawing, which is `factor` times as large as its picture."""

    size_hw: Size
    factor: int
    line: int
    text: int

    @classmethod
    def of(cls, picture_hw: Size) -> Pen:
        height, width = size_hw = drawn_size(picture_hw)
        side = sqrt(height * width)
        line, text = max(LINE_PX, round(LINE_SHARE * side)), max(TEXT_PX, round(TEXT_SHARE * side))
        return cls(size_hw, enlargement(picture_hw), line, text)


def plain_text(text: str) -> str:
    """In the letters that OpenCV's font has: accents are left out, others become `?`."""
    bare = unicodedata.normalize("NFKD", text)
    letters = (letter for letter in bare if not unicodedata.combining(letter))
    return "".join(letter if " " <= letter <= "~" else "?" for letter in letters)


def _corners(entry: Entry, pen: Pen) -> Corners:
    """The box on the drawing, so far within the picture that its whole line is seen."""
    x, y, width, height = (pen.factor * value for value in entry["bbox"])
    limits, inset = (pen.size_hw[1], pen.size_hw[0]) * 2, pen.line // 2
    places = (round(x), round(y), round(x + width) - 1, round(y + height) - 1)
    x0, y0, x1, y1 = (max(inset, min(place, limit - 1 - inset)) for place, limit in zip(places, limits))
    return x0, y0, max(x0, x1), max(y0, y1)


def _contrast(colour: Colour) -> Colour:
    """Black or white, whichever stands out more (WCAG's relative luminance)."""
    channels = [value / 255 / 12.92 if value <= 10 else ((value / 255 + 0.055) / 1.055) ** 2.4 for value in colour]
    return BLACK if np.dot(channels, (0.2126, 0.7152, 0.0722)) > 0.179 else WHITE


def _draw_mask(canvas_HW3: np.ndarray, value: dict[str, Any], colour: Colour, pen: Pen) -> None:
    (patch,), factor = rle.decode([value]), pen.factor
    (height, width), x, y = patch.bits_HW.shape, patch.left, patch.top
    if not width:
        return
    # with a frame of one pixel, so that the smoothed outline is closed
    part_hw = cv2.copyMakeBorder(patch.bits_HW * 255, 1, 1, 1, 1, cv2.BORDER_CONSTANT, value=0)
    part_hw = cv2.resize(part_hw, None, fx=factor, fy=factor, interpolation=cv2.INTER_LINEAR)
    inside_hw = part_hw[factor:-factor, factor:-factor] >= 128
    region_hw3 = canvas_HW3[y * factor : (y + height) * factor, x * factor : (x + width) * factor]
    tinted_hw3 = cv2.addWeighted(region_hw3, 1 - MASK_OPACITY, np.full_like(region_hw3, colour), MASK_OPACITY, 0)
    np.copyto(region_hw3, tinted_hw3, where=inside_hw[..., None])
    outlines, _ = cv2.findContours(inside_hw.astype(np.uint8), cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_NONE)
    stroke, corner = max(1, pen.line // 2), (x * factor, y * factor)
    cv2.drawContours(canvas_HW3, outlines, -1, colour, stroke, cv2.LINE_AA, offset=corner)


@dataclass(frozen=True)
class Label:
    """A text in its place, x y width height. rise: from the text's foot to its top, pixels."""

    text: str
    category_id: int
    place: tuple[int, ...]
    pad: int
    rise: int
    scale: float
    stroke: int


def place_labels(entries: Sequence[Entry], names: Mapping[int, str], pen: Pen) -> list[Label]:
    """The labels, the surest detection's first, which has the choice of places at its box.

    Where others cover every place, as happens in crowds, a label is left out.
    """
    labels: list[Label] = []
    for entry in sorted(entries, key=lambda entry: -entry["score"]):
        label = measured(plain_text(f"{names[entry['category_id']]} {entry['score']:.2f}"), entry, pen)
        width, height = label.place[2:]
        places_P4 = _places(_corners(entry, pen), (width, height), pen.size_hw)
        others_L4 = np.array([other.place for other in labels]).reshape(-1, 4)
        covered_P = shared_area(places_P4[:, None], others_L4).sum(axis=1)
        if covered_P.min() <= COVERED * width * height:
            labels.append(replace(label, place=tuple(places_P4[covered_P.argmin()].tolist())))
    return labels


def measured(text: str, entry: Entry, pen: Pen) -> Label:
    """The label at 0, 0, at most as wide as the picture."""
    font, width = cv2.FONT_HERSHEY_SIMPLEX, pen.size_hw[1]
    stroke, pad = max(1, round(pen.text / 10)), max(2, pen.text // 4)
    scale = cv2.getFontScaleFromHeight(font, pen.text, stroke)
    (text_w, text_h), below = cv2.getTextSize(text, font, scale, stroke)
    if text_w + 2 * pad > width:
        scale *= max(1, width - 2 * pad) / text_w
        (text_w, text_h), below = cv2.getTextSize(text, font, scale, stroke)
    place = (0, 0, text_w + 2 * pad, text_h + below + pad)
    return Label(text, entry["category_id"], place, pad, text_h, scale, stroke)


def _places(corners: Corners, label_wh: tuple[int, int], size_hw: Size) -> np.ndarray:
    """Return places_P4 for a label, x y width height, best first, all within the picture.

    They are above the box, in its corners, below, beside.
    """
    x0, y0, x1, y1 = corners
    width, height = label_wh
    wanted_P2 = [
        *((x0, y0 - height), (x0, y0), (x1 - width, y0 - height), (x0, y1), (x1 - width, y1 - height)),
        *((x0, y1 - height), (x1 - width, y0), (x1 - width, y1), (x1, y0), (x0 - width, y0)),
    ]
    inside_P2 = np.maximum(0, np.minimum(wanted_P2, (size_hw[1] - width, size_hw[0] - height)))
    return np.concatenate([inside_P2, np.full_like(inside_P2, label_wh)], axis=1)


def draw_label(canvas_HW3: np.ndarray, label: Label, colour: Colour) -> None:
    left, top, _, _ = label.place
    cv2.rectangle(canvas_HW3, label.place, colour, cv2.FILLED)
    at = (left + label.pad, top + label.pad // 2 + label.rise)
    shade = _contrast(colour)
    cv2.putText(canvas_HW3, label.text, at, cv2.FONT_HERSHEY_SIMPLEX, label.scale, shade, label.stroke, cv2.LINE_AA)
