"""YOLO's text labels: one line an object, `class x y width height` or `class x1 y1 x2 y2 x3 y3 ...`.

Numbers are fractions of the image's size (after EXIF rotation), x y the box's centre; a longer line is a polygon,
whose box is its bounds. An empty or missing file is an image without objects. Pixels are rounded to 1e-6, so that
twelve decimals give the box back that was written. Class 0 is category 1.

Legend: I images, K objects, P corners of a polygon.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from math import isfinite
from pathlib import Path

import numpy as np

from vertebra.data.datasets.annotations import Classes, Images, Objects, Parsed, build_dataset, repeated_ids
from vertebra.data.datasets.faults import Fault, judge_boxes
from vertebra.data.datasets.folders import stem_of
from vertebra.data.datasets.image_sizes import image_sizes
from vertebra.data.datasets.xml_sets import image_ids
from vertebra.data.datasets.yolo_layout import YoloSet, find_label, find_yolo
from vertebra.ground.errors import DataError

DECIMALS_PX = 6
_BEYOND = (-0.5, 1.5)  # a fraction outside of these is a pixel's number or a mistake
_ONE_SET = "images without a label file were taken as without objects"
_MIXED = "objects are boxes among others with outlines, so masks cannot be learnt from them"


@dataclass(frozen=True)
class YoloLine:
    """One object: its class from 0, and a box x y w h or a polygon's x y x y ..., as fractions."""

    label: int
    numbers: tuple[float, ...]

    @property
    def is_polygon(self) -> bool:
        return len(self.numbers) > 4


def parse_yolo(given: Path, source: str, *, segmentations: bool = True, extras: bool = False) -> Parsed:
    """Return the set at DIR, DIR/SPLIT or FILE.yaml/SPLIT. Raises DataError where the set itself is not there."""
    found = find_yolo(given)
    labels = [find_label(image) for image in found.images]
    labelled = any(is_there for _, is_there in labels)
    if not labelled and not found.split.startswith("test"):
        raise DataError(labels[0][0], "no such label file, nor one of any other image", "put the labels there")
    sizes_hw_I2, faults = image_sizes(found.images)
    faults += found.faults
    images: list[Path] = []
    sizes_hw: list[tuple[int, int]] = []
    objects_K: list[tuple[YoloLine, int, Path, int]] = []  # and its image, label file, number in that
    for image, (label, is_there), size_hw in zip(found.images, labels, sizes_hw_I2.tolist()):
        if not size_hw[0]:
            continue
        lines = _read_label(label, found, faults) if is_there else []
        if labelled and not is_there:
            reason = f"has no label file {label.name} and was taken as without objects"
            faults.append(Fault(image, reason, "an empty file says that it has no objects", False, _ONE_SET))
        objects_K += [(line, len(images), label, number) for number, line in enumerate(lines, start=1)]
        images.append(image)
        sizes_hw.append(tuple(size_hw))
    owners_K = np.array([owner for _, owner, *_ in objects_K], np.int64)
    in_pixels_K = [in_pixels(line, sizes_hw[owner]) for line, owner, *_ in objects_K]
    xywh_K4 = np.array([box for box, _ in in_pixels_K], np.float64).reshape(-1, 4)
    sizes_hw_K2 = np.array(sizes_hw, np.int64).reshape(-1, 2)[owners_K]
    keep_K, box_faults = judge_boxes(
        xywh_K4, sizes_hw_K2, lambda k: f"object {objects_K[k][3]}", lambda k: objects_K[k][2]
    )
    areas_K = xywh_K4[:, 2] * xywh_K4[:, 3]
    polygons_K = [polygon if keep else None for (_, polygon), keep in zip(in_pixels_K, keep_K.tolist())]
    for k, polygon in enumerate(polygons_K):
        if polygon is not None:
            areas_K[k] = polygon_area(polygon)
    objects = Objects(owners_K, xywh_K4, [line.label + 1 for line, *_ in objects_K], areas_K=areas_K, keep_K=keep_K)
    if segmentations and any(polygon is not None for polygon in polygons_K):
        objects.segmentations = ["" if polygon is None else json.dumps([polygon]) for polygon in polygons_K]
        hint = "outline it to learn masks from the set"
        faults += [
            Fault(label, f"object {number} is a box, others are outlines", hint, False, _MIXED)
            for line, _, label, number in objects_K
            if not line.is_polygon
        ]
    names = [path.relative_to(found.home).as_posix() for path in images]
    ids = image_ids([path.stem for path in images], [stem_of(name) for name in names], names)
    columns = Images(ids, names, sizes_hw)
    if extras:  # there are none
        columns.extras, objects.extras = ["{}"] * len(images), ["{}"] * len(objects_K)
    dataset = build_dataset(found.home, source, Classes(found.names), columns, objects, labelled=labelled)
    return Parsed(dataset, [*faults, *box_faults, *repeated_ids(ids, source)])


def parse_line(text: str, classes: int, keypoints: int = 0) -> YoloLine:
    """One line that is not blank. Raises ValueError saying what is wrong with it."""
    words = text.split()
    try:
        numbers = tuple(float(word) for word in words)
    except ValueError:
        raise ValueError(f"has {text.strip()[:40]!r}, which is not numbers alone") from None
    if keypoints and len(numbers) == 5 + keypoints:
        numbers = numbers[:5]
    if not all(map(isfinite, numbers)):
        raise ValueError("has a number that is not finite")
    if len(numbers) != 5 and (len(numbers) < 7 or len(numbers) % 2 == 0):
        raise ValueError(f"has {len(numbers)} numbers; a box has 5, a polygon 7, 9, 11, ...")
    label = int(numbers[0])
    if label != numbers[0] or not 0 <= label < classes:
        raise ValueError(f"has class {words[0]}, but the classes are 0 to {classes - 1}")
    strange = next((number for number in numbers[1:] if not _BEYOND[0] <= number <= _BEYOND[1]), None)
    if strange is not None:
        raise ValueError(f"has {strange:g}; numbers are fractions of the image's width and height, not pixels")
    if len(numbers) == 5 and min(numbers[3:]) < 0:
        raise ValueError("has a box of negative size")
    return YoloLine(label, numbers[1:])


def in_pixels(line: YoloLine, size_hw: tuple[int, int]) -> tuple[tuple[float, ...], list[float] | None]:
    """Box x y w h in pixels, and the polygon if it is one."""
    height, width = size_hw
    if not line.is_polygon:
        x, y, w, h = line.numbers
        box = ((x - w / 2) * width, (y - h / 2) * height, w * width, h * height)
        return tuple(round(value, DECIMALS_PX) for value in box), None
    scales = (width, height) * (len(line.numbers) // 2)
    polygon = [round(number * scale, DECIMALS_PX) for number, scale in zip(line.numbers, scales)]
    return polygon_bounds(polygon), polygon


def polygon_bounds(polygon: list[float]) -> tuple[float, float, float, float]:
    """x y w h."""
    x0, y0, x1, y1 = min(polygon[::2]), min(polygon[1::2]), max(polygon[::2]), max(polygon[1::2])
    return x0, y0, round(x1 - x0, DECIMALS_PX), round(y1 - y0, DECIMALS_PX)


def polygon_area(polygon: list[float]) -> float:
    """The area that the polygon encloses (the shoelace formula)."""
    return round(abs(signed_area(polygon)), DECIMALS_PX)


def signed_area(polygon: Sequence[float]) -> float:
    """The area, negative for one way round."""
    corners_P2 = np.reshape(polygon, (-1, 2))
    corners_P2 = corners_P2 - corners_P2[0]  # smaller numbers, smaller rounding
    x_P, y_P = corners_P2.T
    return float(x_P @ np.roll(y_P, -1) - y_P @ np.roll(x_P, -1)) / 2


def _read_label(path: Path, found: YoloSet, faults: list[Fault]) -> list[YoloLine]:
    try:
        text = path.read_text(encoding="utf-8-sig")
    except OSError as error:
        faults.append(Fault(path, f"cannot be read ({error.strerror})", "check its permissions"))
        return []
    except UnicodeDecodeError:
        faults.append(Fault(path, "is not text", "restore it"))
        return []
    lines = []
    for number, line in enumerate(text.splitlines(), start=1):
        if not line.strip():
            continue
        try:
            lines.append(parse_line(line, len(found.names), found.keypoints))
        except ValueError as error:
            hint = f"correct the line, or the names in {found.named_in.name}"
            faults.append(Fault(path, f"line {number} {error}", hint if "class" in str(error) else "correct the line"))
    return lines
