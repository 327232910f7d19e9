"""Views of detection images in training: part, size and mirroring, drawn before anything is decoded, and the truths.

Legend: G truths of an image, T trials. Sizes are (height, width) and boxes x0 y0 x1 y1, in pixels.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np

from vertebra.data.transforms.canvases import Size, resized
from vertebra.data.transforms.geometry import Box, mirror, mirror_boxes, resize
from vertebra.data.transforms.pixels import photometric
from vertebra.ground.rle import Patch

IOUS = (0.0, 0.1, 0.3, 0.5, 0.7, 0.9)  # Liu et al. 2016, §2.2; 0: any part
LONGEST = 2.0  # a part is at most so many times as long as it is wide, or the other way round (the same section)
TRIALS = 50  # parts that are tried before another overlap is drawn, as in the authors' code


@dataclass(frozen=True)
class DetectionAugmentation:
    """Augmentation beside the choice among shorter sides and mirroring; none by default.

    any_side: the shorter side is any whole number from the least to the greatest of those given, not one of them.
    crop: "none", "iou" (iou_crop) or "range" (range_crop); crop_min: the least share of a side that it takes;
        crop_chance: how often it is done.
    jitter: least and greatest factor on the size (jittered); None: none.
    photometric: strength of vertebra.data.transforms.pixels.photometric, 0..1.
    """

    any_side: bool = False
    crop: str = "none"
    crop_min: float = 0.3
    crop_chance: float = 1.0
    jitter: tuple[float, float] | None = None
    photometric: float = 0.0


@dataclass(frozen=True)
class DrawnView:
    """part: of the image, in its own pixels; size_hw: what becomes of it; flip: mirrored after that."""

    part: Box
    size_hw: Size
    flip: bool


@dataclass(frozen=True)
class ViewDraw:
    """shorter_sides: one is drawn; longer_side bounds the other. flip: a chance.

    per_batch: the side is drawn once for all images of a global batch, instead of for each.
    """

    shorter_sides: Sequence[int]
    longer_side: int
    flip: float = 0.0
    augmentation: DetectionAugmentation = DetectionAugmentation()
    per_batch: bool = False

    def __call__(
        self, size_hw: Size, canvas_hw: Size, boxes_G4: np.ndarray, rng: np.random.Generator, side: int | None = None
    ) -> DrawnView:
        """boxes_G4: objects that a crop is to show, in pixels of `size_hw`. side: the batch's; None: one is drawn."""
        shorter = self._side(rng) if side is None else side
        flip = bool(rng.random() < self.flip)
        part = self._crop(size_hw, boxes_G4, rng)
        resized_hw = resized((part.height, part.width), shorter, self.longer_side, canvas_hw)
        if self.augmentation.jitter is not None:
            factor = rng.uniform(*self.augmentation.jitter)
            part, resized_hw = jittered(part, resized_hw, canvas_hw, factor, rng)
        return DrawnView(part, resized_hw, flip)

    def _side(self, rng: np.random.Generator) -> int:
        if self.augmentation.any_side:
            return int(rng.integers(min(self.shorter_sides), max(self.shorter_sides) + 1))
        return self.shorter_sides[int(rng.integers(len(self.shorter_sides)))]

    def _crop(self, size_hw: Size, boxes_G4: np.ndarray, rng: np.random.Generator) -> Box:
        chosen = self.augmentation
        if chosen.crop == "none" or rng.random() >= chosen.crop_chance:
            return Box(0, 0, *size_hw)
        if chosen.crop == "iou":
            return iou_crop(size_hw, boxes_G4, chosen.crop_min, rng)
        return range_crop(size_hw, chosen.crop_min, rng)


def range_crop(size_hw: Size, least: float, rng: np.random.Generator) -> Box:
    """A part of any place whose sides are `least`..1 of the image's (detectron2's "relative_range")."""
    height, width = (max(1, round(rng.uniform(least, 1) * side)) for side in size_hw)
    return Box(int(rng.integers(size_hw[0] - height + 1)), int(rng.integers(size_hw[1] - width + 1)), height, width)


def iou_crop(size_hw: Size, boxes_G4: np.ndarray, least: float, rng: np.random.Generator) -> Box:
    """Liu et al. 2016, §2.2: the whole image, or a part with the centre of an object that it overlaps enough.

    The least IoU with that object is drawn, the whole image being one of the choices; where TRIALS parts do not have
    it, it is drawn again. The sides are `least`..1 of the image's. An image without boxes is seen whole.
    """
    whole = Box(0, 0, *size_hw)
    if not len(boxes_G4):
        return whole
    while (choice := int(rng.integers(len(IOUS) + 1))) < len(IOUS):
        sides_T2 = np.maximum(1, rng.uniform(least, 1, (TRIALS, 2)) * size_hw).astype(int)
        first_T2 = (rng.random((TRIALS, 2)) * (np.array(size_hw) - sides_T2 + 1)).astype(int)
        good_T = sides_T2.max(axis=1) <= LONGEST * sides_T2.min(axis=1)
        good_T &= _shows_an_object(first_T2, sides_T2, boxes_G4, IOUS[choice])
        if good_T.any():
            t = int(good_T.argmax())
            return Box(*first_T2[t].tolist(), *sides_T2[t].tolist())
    return whole


def _shows_an_object(first_T2: np.ndarray, sides_T2: np.ndarray, boxes_G4: np.ndarray, least_iou: float) -> np.ndarray:
    """Return which parts (y x of the corner, height width) cover the centre of a box with at least that IoU."""
    start_T12, stop_T12 = first_T2[:, None, ::-1], (first_T2 + sides_T2)[:, None, ::-1]
    low_G2, high_G2 = boxes_G4[:, :2].astype(np.float64), boxes_G4[:, 2:].astype(np.float64)
    centre_G2 = (low_G2 + high_G2) / 2
    has_centre_TG = ((start_T12 < centre_G2) & (centre_G2 < stop_T12)).all(axis=2)
    shared_TG = np.maximum(0, np.minimum(stop_T12, high_G2) - np.maximum(start_T12, low_G2)).prod(axis=2)
    union_TG = sides_T2.prod(axis=1)[:, None] + (high_G2 - low_G2).prod(axis=1) - shared_TG
    return (has_centre_TG & (shared_TG >= least_iou * union_TG)).any(axis=1)


def jittered(part: Box, size_hw: Size, canvas_hw: Size, factor: float, rng: np.random.Generator) -> tuple[Box, Size]:
    """Large-scale jitter (Ghiasi et al. 2021, §3): the part at `factor` of that size, and any cut of what that makes
    larger than the canvas. What it makes smaller lies on padding.

    The cut is in the image as it is, so that no pixel is resized in vain.
    """
    seen, firsts, sizes = [], [], []
    for first, whole, side, room in zip((part.top, part.left), (part.height, part.width), size_hw, canvas_hw):
        scale = side * factor / whole
        seen.append(whole if scale * whole <= room else min(whole, max(1, round(room / scale))))
        firsts.append(first + int(rng.integers(whole - seen[-1] + 1)))
        sizes.append(min(room, max(1, round(seen[-1] * scale))))
    return Box(*firsts, *seen), (sizes[0], sizes[1])


def cut_truths(
    boxes_G4: np.ndarray, part: Box, size_hw: Size, by_centre_G: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The boxes in pixels of the part and clipped to it; which of them stay; which lost something.

    Whole ones stay. Of the others, one of by_centre_G stays if its centre lies in the part (Liu et al. 2016, §2.2), any
    other if in the view, the part at `size_hw`, at least a pixel is left of each of its sides (detectron2: anything).
    """
    start_4, sides_4 = np.array([part.left, part.top] * 2), np.array([part.width, part.height] * 2)
    moved_G4 = boxes_G4 - start_4.astype(np.float32)
    clipped_G4 = np.clip(moved_G4, 0, sides_4).astype(np.float32)
    centre_G2 = (moved_G4[:, :2] + moved_G4[:, 2:]) / 2
    scale_2 = np.array([size_hw[1] / part.width, size_hw[0] / part.height])
    cut_G = (clipped_G4 != moved_G4).any(axis=1)
    enough_G = ((clipped_G4[:, 2:] - clipped_G4[:, :2]) * scale_2 >= 1).all(axis=1)
    has_centre_G = ((centre_G2 > 0) & (centre_G2 < sides_4[:2])).all(axis=1)
    return clipped_G4, ~cut_G | np.where(by_centre_G, has_centre_G, enough_G), cut_G


def write_view(
    part_HW3: np.ndarray, view: DrawnView, strength: float, rng: np.random.Generator, out_HW3: np.ndarray
) -> None:
    """Write the view's part into out_HW3, of its size, its colours changed at that strength (see `photometric`).

    They change while pixels are fewer: before or after resizing.
    """
    grows = view.size_hw[0] * view.size_hw[1] > part_HW3.shape[0] * part_HW3.shape[1]
    if strength and grows:
        part_HW3 = photometric(part_HW3, strength, rng)
    pixels_HW3 = resize(part_HW3, *view.size_hw, None if view.flip else out_HW3)
    if view.flip:
        mirror(pixels_HW3, out_HW3)
    if strength and not grows:
        out_HW3[:] = photometric(out_HW3, strength, rng)


def view_truths(
    boxes_G4: np.ndarray, masks_G: Sequence[Patch], part_hw: Size, view: DrawnView
) -> tuple[np.ndarray, list[Patch]]:
    """Boxes and masks, given in pixels of the view's part, in those of the view; all stay, in their order.

    A mask's pixel is what lies under its centre, in the same geometry as the image's. part_hw: of the part as decoded.
    """
    height, width = view.size_hw
    rows, columns = nearest(part_hw[0], height), nearest(part_hw[1], width)
    scaled_G4 = boxes_G4 * np.array((width / part_hw[1], height / part_hw[0]) * 2, np.float32)
    boxes_G4 = np.minimum(scaled_G4, np.array((width, height) * 2, np.float32))  # rounding may reach beyond the edge
    if view.flip:
        boxes_G4 = mirror_boxes(boxes_G4, width)
        columns = columns[::-1]
    return boxes_G4, [patch_view(patch, rows, columns) for patch in masks_G]


def nearest(size: int, new: int) -> np.ndarray:
    """Return which of `size` pixels in a row lies under the centre of each of `new` ones."""
    return cv2.resize(np.arange(size, dtype=np.int32)[None], (new, 1), interpolation=cv2.INTER_NEAREST_EXACT)[0]


def patch_view(patch: Patch, rows: np.ndarray, columns: np.ndarray) -> Patch:
    """The mask of which each pixel is the one at those rows and columns (rising, or falling) of the patch's image."""
    height, width = patch.bits_HW.shape
    y = np.flatnonzero((rows >= patch.top) & (rows < patch.top + height))
    x = np.flatnonzero((columns >= patch.left) & (columns < patch.left + width))
    if not len(y) or not len(x):
        return Patch(0, 0, np.zeros((0, 0), np.uint8))
    # column by column, as RLE lies in memory, then row by row: both copy whole lines
    bits_XH = patch.bits_HW.T.take(columns[x] - patch.left, axis=0)
    return Patch(int(y[0]), int(x[0]), cv2.transpose(bits_XH).take(rows[y] - patch.top, axis=0))


def boxes_of_masks(masks_G: Sequence[Patch]) -> np.ndarray:
    """Return the tight box of each mask, float32 boxes_G4; of an empty mask, a box of size zero."""
    boxes_G4 = np.zeros((len(masks_G), 4), np.float32)
    for box_4, patch in zip(boxes_G4, masks_G):
        y, x = (np.flatnonzero(patch.bits_HW.any(axis=axis)) for axis in (1, 0))
        if len(y):
            box_4[:] = patch.left + x[0], patch.top + y[0], patch.left + x[-1] + 1, patch.top + y[-1] + 1
    return boxes_G4
