"""The pictures: scenes of several objects with their masks and flags, and single objects for pre-training.

How occlusion is treated. An object's mask is its visible part, and its box the extent of that mask. No object is
covered so far that less than 30 % of it stays in view: such a placing is drawn again. What stays in view by less
than 55 % is flagged difficult. A crowd is a cluster of tiny objects of one class, under one mask.

Each picture is a function of its own random generator alone, so the order of drawing changes nothing.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from .paint import Bytes, Floats, blend, cast_shadow, develop, paint_background, paint_object
from .shapes import CLASS_NAMES, Stamp, draw_stamp

Mask = NDArray[np.bool_]

SCENE_SIZES_HW = ((224, 224), (224, 224), (224, 256), (256, 224))
OBJECT_IMAGE_PX = 96
# How many are asked for; crowded scenes find no place for some, which leaves five in the mean.
OBJECTS_A_SCENE, MOST_OBJECTS = 6.4, 10
# Square roots of areas in pixels. COCO calls an object small below 32, large above 96.
SIZE_BANDS_PX = ((19.0, 31.0), (34.0, 84.0), (102.0, 118.0))
BAND_CHANCES, MOST_LARGE = (0.23, 0.42, 0.35), 2
EMPTY_CHANCE, CROWD_CHANCE, OVERLAP_CHANCE = 0.03, 0.07, 0.15
LEAST_VISIBLE, DIFFICULT_BELOW = 0.3, 0.55
MILD_VISIBLE, HEAVY_CHANCE = 0.81, 0.28  # most overlaps leave this much of what they cover in view
MOST_OUTSIDE = 0.12  # of an object's area may fall beyond the border of the picture


@dataclass(frozen=True)
class SceneObject:
    """One annotated object or crowd. `occluded` is the part of its mask in the picture that others cover, 0..1."""

    label: int  # index into CLASS_NAMES
    mask: Mask  # HW, the visible part
    occluded: float
    truncated: bool
    difficult: bool
    crowd: bool


@dataclass(frozen=True)
class Scene:
    pixels: Bytes  # HW3, RGB
    objects: tuple[SceneObject, ...]


@dataclass
class _Placed:
    """A stamp laid on the canvas; `area_px` counts its pixels in the picture, `full_px` those outside too."""

    stamp: Stamp
    left: int
    top: int
    area_px: int
    full_px: int


class _Canvas:
    """The picture in the making, and for every pixel the number of the object on top (-1: background)."""

    def __init__(self, image: Floats, light: Floats):
        self.image, self.light = image, light
        self.owner: NDArray[np.int16] = np.full(image.shape[:2], -1, np.int16)
        self.placed: list[_Placed] = []

    def cut(self, stamp: Stamp, left: int, top: int) -> tuple[NDArray[np.int16], Mask]:
        """The owners under a stamp, and its mask, both cut to the picture."""
        height, width = self.owner.shape
        rows, columns = stamp.mask.shape
        y0, x0 = max(0, -top), max(0, -left)
        y1, x1 = min(rows, height - top), min(columns, width - left)
        if y0 >= y1 or x0 >= x1:
            return self.owner[:0, :0], stamp.mask[:0, :0]
        return self.owner[top + y0 : top + y1, left + x0 : left + x1], stamp.mask[y0:y1, x0:x1]

    def hidden(self, number: int) -> float:
        """The part of an object's pixels in the picture that others cover."""
        return 1 - float(np.count_nonzero(self.owner == number)) / self.placed[number].area_px

    def in_view(self, number: int, less_px: int = 0) -> float:
        """The part of an object that would stay in view if `less_px` more of it were covered."""
        return float(np.count_nonzero(self.owner == number) - less_px) / self.placed[number].full_px

    def backdrop(self, stamp: Stamp, left: int, top: int) -> Floats:
        top, left = max(top, 0), max(left, 0)
        part = self.image[top : top + stamp.mask.shape[0], left : left + stamp.mask.shape[1]]
        return part.mean(axis=(0, 1))

    def put(self, rng: np.random.Generator, stamp: Stamp, left: int, top: int) -> None:
        colours = paint_object(rng, stamp.alpha, stamp.angle, self.backdrop(stamp, left, top), self.light)
        cast_shadow(self.image, stamp.alpha, left, top, self.light)
        blend(self.image, colours, stamp.alpha, left, top)
        owners, mask = self.cut(stamp, left, top)
        owners[mask] = len(self.placed)
        full_px = int(np.count_nonzero(stamp.mask))
        self.placed.append(_Placed(stamp, left, top, int(np.count_nonzero(mask)), full_px))


def _anywhere(rng: np.random.Generator, canvas: _Canvas, stamp: Stamp) -> tuple[int, int]:
    """A place (left, top) for a stamp, a little beyond the border at most."""
    height, width = canvas.owner.shape
    rows, columns = stamp.mask.shape
    room_y, room_x = max(0.0, (height - rows) / 2 + 0.06 * rows), max(0.0, (width - columns) / 2 + 0.06 * columns)
    top = (height - rows) / 2 + rng.uniform(-room_y, room_y)
    left = (width - columns) / 2 + rng.uniform(-room_x, room_x)
    return round(left), round(top)


def _beside(rng: np.random.Generator, under: _Placed, stamp: Stamp, heavy: bool) -> tuple[int, int]:
    """A place (left, top) for a stamp that likely overlaps the one `under` it: its rim, or if heavy its middle."""
    rows, columns = stamp.mask.shape
    turn, reach = rng.uniform(0, 2 * np.pi), rng.uniform(0.1, 0.6) if heavy else rng.uniform(0.45, 0.95)
    apart_y = reach * (rows + under.stamp.mask.shape[0]) / 2
    apart_x = reach * (columns + under.stamp.mask.shape[1]) / 2
    middle_y = under.top + under.stamp.mask.shape[0] / 2 + apart_y * np.sin(turn)
    middle_x = under.left + under.stamp.mask.shape[1] / 2 + apart_x * np.cos(turn)
    return round(middle_x - columns / 2), round(middle_y - rows / 2)


def _fits(canvas: _Canvas, stamp: Stamp, left: int, top: int, *, victim: int | None, heavy: bool) -> bool:
    """Test that a place is within the picture, and overlaps its victim, but nothing too far, or else nothing.

    Only a `heavy` overlap may leave less than MILD_VISIBLE of its victim in view, and of no large one.
    """
    owners, mask = canvas.cut(stamp, left, top)
    if np.count_nonzero(mask) < (1 - MOST_OUTSIDE) * np.count_nonzero(stamp.mask):
        return False
    covered = np.bincount(owners[mask] + 1, minlength=len(canvas.placed) + 1)[1:]
    if victim is None:
        return not covered.any()
    victim_px = canvas.placed[victim].full_px
    heavy = heavy and victim_px < SIZE_BANDS_PX[2][0] ** 2
    wanted_px = 0.35 * victim_px if heavy else min(0.08 * victim_px, 0.3 * np.count_nonzero(mask))
    if covered[victim] < wanted_px:
        return False
    least = {victim: LEAST_VISIBLE} if heavy else {}
    touched = [int(i) for i in np.flatnonzero(covered)]
    return all(canvas.in_view(i, int(covered[i])) >= least.get(i, MILD_VISIBLE) for i in touched)


def _place(rng: np.random.Generator, canvas: _Canvas, stamp: Stamp, *, overlap: bool, first: int) -> bool:
    """Put a stamp where it fits: overlapping one of the objects from number `first` on if it shall, else free."""
    heavy = rng.random() < HEAVY_CHANCE
    for _ in range(40):
        victim = int(rng.integers(first, len(canvas.placed))) if overlap else None
        if victim is None:
            left, top = _anywhere(rng, canvas, stamp)
        else:
            left, top = _beside(rng, canvas.placed[victim], stamp, heavy)
        if _fits(canvas, stamp, left, top, victim=victim, heavy=heavy):
            canvas.put(rng, stamp, left, top)
            return True
    return False


def _draw_crowd(rng: np.random.Generator, canvas: _Canvas) -> None:
    """A cluster of tiny objects of one class, which are the canvas's first."""
    height, width = canvas.owner.shape
    label, spread = int(rng.integers(len(CLASS_NAMES))), rng.uniform(18, 30)
    middle = rng.uniform((60, 60), (width - 60, height - 60))
    for _ in range(rng.integers(14, 26)):
        stamp = draw_stamp(rng, label, rng.uniform(8, 12))
        left, top = np.round(middle + rng.normal(0, spread, 2).clip(-50, 50)).astype(int)
        canvas.put(rng, stamp, int(left), int(top))


def _sizes_px(rng: np.random.Generator) -> list[float]:
    """Square roots of the areas of a scene's objects, the large ones roughly first (and so undermost)."""
    count = int(np.clip(rng.poisson(OBJECTS_A_SCENE), 1, MOST_OBJECTS))
    bands = rng.choice(3, count, p=BAND_CHANCES)
    bands[np.flatnonzero(bands == 2)[MOST_LARGE:]] = 1
    sizes = [float(rng.uniform(*SIZE_BANDS_PX[band])) for band in bands]
    return sorted(sizes, key=lambda size: -size * rng.uniform(0.8, 1.25))


def _annotate(canvas: _Canvas, number: int) -> SceneObject:
    placed, visible = canvas.placed[number], canvas.owner == number
    return SceneObject(
        label=placed.stamp.label,
        mask=visible,
        occluded=canvas.hidden(number),
        truncated=placed.area_px < placed.full_px,
        difficult=canvas.in_view(number) < DIFFICULT_BELOW,
        crowd=False,
    )


def _light(rng: np.random.Generator) -> Floats:
    """The direction (x y) the light comes from: above, from the left or the right."""
    turn = rng.uniform(-0.85, -0.15) * np.pi
    return np.array([np.cos(turn), np.sin(turn)], np.float32)


def draw_scene(rng: np.random.Generator) -> Scene:
    """One scene: background, perhaps a crowd, then objects from the large to the small."""
    height, width = SCENE_SIZES_HW[rng.integers(len(SCENE_SIZES_HW))]
    canvas = _Canvas(paint_background(rng, height, width), _light(rng))
    if rng.random() < EMPTY_CHANCE:
        return Scene(develop(rng, canvas.image), ())
    if rng.random() < CROWD_CHANCE:
        _draw_crowd(rng, canvas)
    tiny = len(canvas.placed)
    for size_px in _sizes_px(rng):
        stamp = draw_stamp(rng, int(rng.integers(len(CLASS_NAMES))), size_px)
        overlap = len(canvas.placed) > tiny and rng.random() < OVERLAP_CHANCE
        if not _place(rng, canvas, stamp, overlap=overlap, first=tiny) and len(canvas.placed) > tiny:
            _place(rng, canvas, stamp, overlap=not overlap, first=tiny)
    objects = [_annotate(canvas, number) for number in range(tiny, len(canvas.placed))]
    crowd_mask = (canvas.owner >= 0) & (canvas.owner < tiny)
    if crowd_mask.any():
        objects.append(SceneObject(canvas.placed[0].stamp.label, crowd_mask, 0.0, False, False, True))
    return Scene(develop(rng, canvas.image), tuple(objects))


def draw_single(rng: np.random.Generator, label: int) -> Bytes:
    """One object of a class somewhere on a cluttered background: HW3, RGB."""
    canvas = _Canvas(paint_background(rng, OBJECT_IMAGE_PX, OBJECT_IMAGE_PX), _light(rng))
    stamp = draw_stamp(rng, label, OBJECT_IMAGE_PX * rng.uniform(0.36, 0.66))
    left, top = _anywhere(rng, canvas, stamp)
    canvas.put(rng, stamp, left, top)
    return develop(rng, canvas.image)
