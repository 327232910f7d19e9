"""The ten classes of the sample set, as outlines: closed polygons filled by the even-odd rule.

Every outline is scaled to the same enclosed area, so that a class is told by its form and never by its size.
Legend of shape suffixes: K corners of a polygon, 2 is x y (x to the right, y down).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.floating[Any]]
Polygon = NDArray[np.float64]  # K2
Outline = list[Polygon]  # the border, then its holes


def _arc(radius: float, start: float, stop: float, centre_x: float = 0.0, corners: int = 48) -> Polygon:
    angle_K = np.linspace(start, stop, corners)
    return np.stack([centre_x + radius * np.cos(angle_K), radius * np.sin(angle_K)], axis=1)


def _arrow(rng: np.random.Generator) -> Outline:
    shaft, neck = rng.uniform(0.26, 0.34), rng.uniform(-0.1, 0.1)
    right = [(0.0, -1.0), (0.85, neck), (shaft, neck), (shaft, 1.0)]
    return [np.array(right + [(-x, y) for x, y in reversed(right[1:])])]


def _crescent(rng: np.random.Generator) -> Outline:
    bite, offset = rng.uniform(0.72, 0.8), rng.uniform(0.52, 0.6)  # the circle taken out of the unit circle
    meet_x = (1 - bite**2 + offset**2) / (2 * offset)
    meet_y = np.sqrt(1 - meet_x**2)
    outer, inner = np.arctan2(meet_y, meet_x), np.arctan2(meet_y, meet_x - offset)
    rim = _arc(1.0, outer, 2 * np.pi - outer)
    return [np.concatenate([rim, _arc(bite, 2 * np.pi - inner, inner, offset)[1:-1]])]


def _cross(rng: np.random.Generator) -> Outline:
    arm = rng.uniform(0.3, 0.38)
    quarter = np.array([(arm, -1.0), (arm, -arm), (1.0, -arm)])
    turn = np.array([(0.0, 1.0), (-1.0, 0.0)])  # a quarter turn, for row vectors
    return [np.concatenate([quarter @ np.linalg.matrix_power(turn, i) for i in range(4)])]


def _disc(rng: np.random.Generator) -> Outline:
    return [_arc(1.0, 0.0, 2 * np.pi)]


def _heart(rng: np.random.Generator) -> Outline:
    t_K = np.linspace(0, 2 * np.pi, 64)
    lobes_K = 13 * np.cos(t_K) - 5 * np.cos(2 * t_K) - 2 * np.cos(3 * t_K) - np.cos(4 * t_K)
    return [np.stack([16 * np.sin(t_K) ** 3, -lobes_K * rng.uniform(0.95, 1.1)], axis=1)]


def _hourglass(rng: np.random.Generator) -> Outline:
    waist, height = rng.uniform(0.1, 0.2), rng.uniform(1.0, 1.25)
    return [np.array([(-1, -height), (1, -height), (waist, 0), (1, height), (-1, height), (-waist, 0)])]


def _ring(rng: np.random.Generator) -> Outline:
    return [_arc(1.0, 0.0, 2 * np.pi), _arc(rng.uniform(0.5, 0.6), 0.0, 2 * np.pi)]


def _square(rng: np.random.Generator) -> Outline:
    return [np.array([(-1.0, -1.0), (1.0, -1.0), (1.0, 1.0), (-1.0, 1.0)])]


def _star(rng: np.random.Generator) -> Outline:
    angle_K = np.arange(10) * np.pi / 5 - np.pi / 2
    radius_K = np.where(np.arange(10) % 2 == 0, 1.0, rng.uniform(0.42, 0.5))
    return [np.stack([radius_K * np.cos(angle_K), radius_K * np.sin(angle_K)], axis=1)]


def _triangle(rng: np.random.Generator) -> Outline:
    height = rng.uniform(0.8, 0.95)
    return [np.array([(0.0, -height), (1.0, height), (-1.0, height)])]


# In alphabetical order, which is the order of folders on disk too.
OUTLINES: dict[str, Callable[[np.random.Generator], Outline]] = {
    "arrow": _arrow,
    "crescent": _crescent,
    "cross": _cross,
    "disc": _disc,
    "heart": _heart,
    "hourglass": _hourglass,
    "ring": _ring,
    "square": _square,
    "star": _star,
    "triangle": _triangle,
}
CLASS_NAMES: tuple[str, ...] = tuple(OUTLINES)


@dataclass(frozen=True)
class Stamp:
    """One rasterised object, not yet anywhere: `alpha` is its coverage 0..1, `mask` where that is a half or more."""

    label: int  # index into CLASS_NAMES
    angle: float  # radians
    alpha: Floats  # HW
    mask: NDArray[np.bool_]  # HW


def _area(outline: Outline) -> float:
    """The enclosed area by the shoelace formula, holes taken off."""
    areas = [abs(np.sum(p[:, 0] * np.roll(p[:, 1], -1) - p[:, 1] * np.roll(p[:, 0], -1))) / 2 for p in outline]
    return float(areas[0] - sum(areas[1:]))


def _rasterise(outline: Outline, supersample: int) -> Floats:
    """Coverage 0..1 of an outline in pixels whose least corner lies at about (1, 1)."""
    extent = np.ceil(np.max(outline[0], axis=0)).astype(int) + 2
    canvas = np.zeros((extent[1] * supersample, extent[0] * supersample), np.uint8)
    # OpenCV takes fixed-point corners (4 fractional bits) measured from the centre of the first pixel.
    corners = [np.round((p * supersample - 0.5) * 16).astype(np.int32) for p in outline]
    cv2.fillPoly(canvas, corners, 255, lineType=cv2.LINE_8, shift=4)
    small = cv2.resize(canvas, (int(extent[0]), int(extent[1])), interpolation=cv2.INTER_AREA)
    return small.astype(np.float32) / 255


def draw_stamp(rng: np.random.Generator, label: int, size_px: float, max_angle: float = np.pi / 4) -> Stamp:
    """An object of area about `size_px` squared, slightly stretched and turned by up to `max_angle`."""
    outline = OUTLINES[CLASS_NAMES[label]](rng)
    scale = size_px / np.sqrt(_area(outline))
    stretch, angle = np.exp(rng.uniform(-0.13, 0.13)), rng.uniform(-max_angle, max_angle)
    cos, sin = np.cos(angle), np.sin(angle)
    transform = np.diag([scale * stretch, scale / stretch]) @ np.array([(cos, sin), (-sin, cos)])
    placed = [polygon @ transform for polygon in outline]
    shift = 1 + rng.random(2) - np.min(placed[0], axis=0)
    alpha = _rasterise([polygon + shift for polygon in placed], supersample=4 if size_px < 48 else 2)
    return Stamp(label, float(angle), alpha, alpha >= 0.5)
