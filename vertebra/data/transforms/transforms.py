"""From decoded images to what a network sees. Randomness is never global: all draws come from the given rng.

Crop first, then one resize, by OpenCV's and torch's kernels directly: a library's pipeline around them takes two to
four times as long.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
import torch.nn.functional as F

from vertebra.data.transforms.augment import PixelChange

AUGMENTS = ("none", "crop", "pad", "scale")
PAPER_SCALES = 480 / 256  # He et al. 2015, §3.4: shorter side drawn from [256, 480]


def resize(image_HW3: np.ndarray, height: int, width: int) -> np.ndarray:
    """Linear; where it gets smaller, over all pixels that fall together (no aliasing), as torchvision and Pillow do."""
    import cv2

    if image_HW3.shape[:2] == (height, width):
        return image_HW3
    if height * width > image_HW3.shape[0] * image_HW3.shape[1]:
        return cv2.resize(image_HW3, (width, height), interpolation=cv2.INTER_LINEAR)
    # torch's kernel takes half the time of OpenCV's area averaging, and gives planes
    pixels_13HW = torch.from_numpy(np.ascontiguousarray(image_HW3)).permute(2, 0, 1)[None]
    planes_3HW = F.interpolate(pixels_13HW, (height, width), mode="bilinear", antialias=True)[0].numpy()
    return cv2.merge(tuple(planes_3HW))


def resize_shorter(image_HW3: np.ndarray, shorter: int) -> np.ndarray:
    height, width = image_HW3.shape[:2]
    scale = shorter / min(height, width)
    return resize(image_HW3, max(shorter, round(height * scale)), max(shorter, round(width * scale)))


def centre_crop(image_HW3: np.ndarray, size: int, shorter: int) -> np.ndarray:
    """The middle size x size of the image with its shorter side at `shorter` (>= size)."""
    image_HW3 = resize_shorter(image_HW3, shorter)
    top, left = ((side - size) // 2 for side in image_HW3.shape[:2])
    return image_HW3[top : top + size, left : left + size]


@dataclass(frozen=True)
class Box:
    """A part of an image, in pixels."""

    top: int
    left: int
    height: int
    width: int

    def cut(self, image_HW3: np.ndarray) -> np.ndarray:
        """That part, as a view."""
        return image_HW3[self.top : self.top + self.height, self.left : self.left + self.width]

    def shrunk(self, factor: int) -> Box:
        """The same part of the image at 1/factor of its size."""
        top, left = self.top // factor, self.left // factor
        bottom, right = -(-(self.top + self.height) // factor), -(-(self.left + self.width) // factor)
        return Box(top, left, bottom - top, right - left)

    def within(self, size_hw: tuple[int, int]) -> Box:
        """What of it lies in an image of that size, whose edge may have been rounded off."""
        return Box(
            self.top, self.left, min(self.height, size_hw[0] - self.top), min(self.width, size_hw[1] - self.left)
        )


def resized_crop(height: int, width: int, min_scale: float, rng: np.random.Generator) -> Box:
    """A crop of min_scale..1 of the area, of aspect ratio 3/4..4/3 (Szegedy et al. 2014, §6)."""
    for _ in range(10):
        area = rng.uniform(min_scale, 1.0) * height * width
        ratio = math.exp(rng.uniform(math.log(3 / 4), math.log(4 / 3)))
        crop_w, crop_h = round(math.sqrt(area * ratio)), round(math.sqrt(area / ratio))
        if 0 < crop_w <= width and 0 < crop_h <= height:
            break
    else:  # an image longer than 4:3 whose whole height does not do: all of it, at the nearest ratio
        crop_w = min(width, max(1, round(height * 4 / 3)))
        crop_h = min(height, max(1, round(width * 4 / 3)))
    return Box(int(rng.integers(height - crop_h + 1)), int(rng.integers(width - crop_w + 1)), crop_h, crop_w)


def pad_crop(image_HW3: np.ndarray, size: int, rng: np.random.Generator) -> np.ndarray:
    """He et al. 2015, §4.2: an eighth of the size (4 px of 32) of zeros on each side, and a random crop."""
    pad = size // 8
    top, left = rng.integers(-pad, pad + 1, 2)
    shifted = np.zeros((size, size, 3), np.uint8)
    rows, columns = slice(max(0, -top), min(size, size - top)), slice(max(0, -left), min(size, size - left))
    shifted[rows, columns] = image_HW3[max(0, top) : min(size, size + top), max(0, left) : min(size, size + left)]
    return shifted


def scale_crop(height: int, width: int, size: int, shorter: int, rng: np.random.Generator) -> Box:
    """He et al. 2015, §3.4: shorter side drawn from [shorter, 480/256 shorter], and a random crop of `size` of that.

    What is given is that crop in the image as it is, so that no pixel is resized in vain.
    """
    side = size * min(height, width) / rng.uniform(shorter, shorter * PAPER_SCALES)
    crop = max(1, min(round(side), height, width))
    return Box(int(rng.integers(height - crop + 1)), int(rng.integers(width - crop + 1)), crop, crop)


def mirror(image_HW3: np.ndarray) -> np.ndarray:
    """Left becomes right, in new memory: numpy's view of it takes forty times as long to copy."""
    import cv2

    return cv2.flip(image_HW3, 1)


@dataclass(frozen=True, kw_only=True)
class ClassificationTransform:
    """One image to size x size.

    augment: "none" (resize shorter side to `shorter`, centre crop), "crop" (resized_crop), "pad" (pad_crop), "scale"
    (scale_crop). flip: chance of a mirrored image. pixel_changes: applied to the view after that, in order.
    """

    size: int
    shorter: int
    augment: str = "none"
    min_scale: float = 0.08
    flip: float = 0.0
    pixel_changes: Sequence[PixelChange] = ()

    def __post_init__(self) -> None:
        assert self.augment in AUGMENTS, self.augment
        assert self.shorter >= self.size or self.augment in ("crop", "pad"), (self.shorter, self.size)

    def at_size(self, size: int) -> ClassificationTransform:
        """The same view of another size, `shorter` in proportion."""
        return replace(self, size=size, shorter=round(self.shorter * size / self.size))

    @property
    def wanted_shorter(self) -> float:
        """Shorter side of the source below which detail would be lost, in pixels."""
        if self.augment == "crop":
            return self.size / math.sqrt(self.min_scale * 3 / 4)
        return self.shorter * (PAPER_SCALES if self.augment == "scale" else 1)

    @property
    def draws_part(self) -> bool:
        """Whether a part of the image is drawn and brought to the size, rather than the whole."""
        return self.augment in ("crop", "scale")

    def draw(self, height: int, width: int, rng: np.random.Generator) -> Box:
        """The part that is seen of an image of that size, where one is drawn; drawn before anything else."""
        if self.augment == "crop":
            return resized_crop(height, width, self.min_scale, rng)
        return scale_crop(height, width, self.size, self.shorter, rng)

    def __call__(self, image_HW3: np.ndarray, rng: np.random.Generator, box: Box | None = None) -> np.ndarray:
        """The view, uint8 HW3. box: the part that is seen where it has been drawn already."""
        if self.draws_part:
            height, width = image_HW3.shape[:2]
            box = box or self.draw(height, width, rng)
            view = resize(box.cut(image_HW3), self.size, self.size)
        elif self.augment == "pad":
            view = pad_crop(centre_crop(image_HW3, self.size, self.size), self.size, rng)
        else:
            view = centre_crop(image_HW3, self.size, self.shorter)
        if self.flip > 0 and rng.random() < self.flip:
            view = mirror(view)
        if self.pixel_changes:
            view = np.ascontiguousarray(view)
        for change in self.pixel_changes:
            view = change(view, rng)
        return view


def detection_view(
    image_HW3: np.ndarray,
    boxes_G4: np.ndarray,
    masks_GHW: np.ndarray | None,
    *,
    size_hw: tuple[int, int],
    flip: bool,
) -> tuple[np.ndarray, np.ndarray, np.ndarray | None]:
    """The three in pixels of `size_hw`, mirrored or not; all truths stay, in their order.

    A mask's pixel is what lies under its centre, in the same geometry as the image's.
    """
    height, width = size_hw
    pixels_HW3 = resize(image_HW3, height, width)
    scale_xy = (width / image_HW3.shape[1], height / image_HW3.shape[0])
    scaled_G4 = boxes_G4 * np.array(scale_xy * 2, np.float32)
    boxes_G4 = np.minimum(scaled_G4, np.array((width, height) * 2, np.float32))  # rounding may reach beyond the edge
    if flip:
        pixels_HW3 = mirror(pixels_HW3)
        boxes_G4 = np.stack(
            [width - boxes_G4[:, 2], boxes_G4[:, 1], width - boxes_G4[:, 0], boxes_G4[:, 3]], axis=1
        ).astype(np.float32)
    return pixels_HW3, boxes_G4, None if masks_GHW is None else _mask_views(masks_GHW, height, width, flip)


def _mask_views(masks_GHW: np.ndarray, height: int, width: int, flip: bool) -> np.ndarray:
    import cv2

    views_GHW = np.empty((len(masks_GHW), height, width), np.uint8)
    for mask_HW, view_HW in zip(masks_GHW, views_GHW):  # in half the time that one look-up of all takes
        cv2.resize(mask_HW, (width, height), dst=view_HW, interpolation=cv2.INTER_NEAREST_EXACT)
        if flip:
            cv2.flip(view_HW, 1, dst=view_HW)
    return views_GHW
