"""Resizing, cropping and mirroring of images. Randomness is never global: all draws come from the given rng.

By OpenCV's and torch's kernels directly: a library's pipeline around them takes two to four times as long.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import cv2
import numpy as np
import torch
import torch.nn.functional as F

PAPER_SCALES = 480 / 256  # He et al. 2015, §3.4: shorter side drawn from [256, 480]


def resize(image_HW3: np.ndarray, height: int, width: int, out_HW3: np.ndarray | None = None) -> np.ndarray:
    """Linear; where it gets smaller, over all pixels that fall together (no aliasing), as torchvision and Pillow do.

    out_HW3: where the result is written, and what is returned; without it an image of that size comes back as it is.
    """
    if image_HW3.shape[:2] == (height, width):
        if out_HW3 is None:
            return image_HW3
        out_HW3[:] = image_HW3
        return out_HW3
    if height * width > image_HW3.shape[0] * image_HW3.shape[1]:
        return cv2.resize(image_HW3, (width, height), dst=out_HW3, interpolation=cv2.INTER_LINEAR)
    # torch's kernel takes half the time of OpenCV's area averaging, and gives planes
    pixels_13HW = torch.from_numpy(np.ascontiguousarray(image_HW3)).permute(2, 0, 1)[None]
    planes_3HW = F.interpolate(pixels_13HW, (height, width), mode="bilinear", antialias=True)[0].numpy()
    return cv2.merge(tuple(planes_3HW), dst=out_HW3)


def size_at(height: int, width: int, shorter: int) -> tuple[int, int]:
    """Height and width of an image whose shorter side becomes `shorter`."""
    scale = shorter / min(height, width)
    return max(shorter, round(height * scale)), max(shorter, round(width * scale))


def resize_shorter(image_HW3: np.ndarray, shorter: int) -> np.ndarray:
    height, width = image_HW3.shape[:2]
    return resize(image_HW3, *size_at(height, width, shorter))


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
        """Return the part that lies in an image of that size, whose edge may have been rounded off."""
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


def padding(size: int) -> int:
    """Pixels of zeros on each side before a random crop of `size`: an eighth, 4 px of 32 (He et al. 2015, §4.2)."""
    return size // 8


def pad_crop(image_HW3: np.ndarray, size: int, rng: np.random.Generator) -> np.ndarray:
    """Crop size x size at random from the padded image of that size; see `padding`."""
    pad = padding(size)
    top, left = rng.integers(-pad, pad + 1, 2)
    shifted = np.zeros((size, size, 3), np.uint8)
    rows, columns = slice(max(0, -top), min(size, size - top)), slice(max(0, -left), min(size, size - left))
    shifted[rows, columns] = image_HW3[max(0, top) : min(size, size + top), max(0, left) : min(size, size + left)]
    return shifted


def scale_crop(height: int, width: int, size: int, shorter: int, rng: np.random.Generator) -> Box:
    """He et al. 2015, §3.4: shorter side drawn from [shorter, 480/256 shorter], and a random crop of `size` of that.

    The crop returned is in pixels of the image as it is, so that no pixel outside of it is resized.
    """
    side = size * min(height, width) / rng.uniform(shorter, shorter * PAPER_SCALES)
    crop = max(1, min(round(side), height, width))
    return Box(int(rng.integers(height - crop + 1)), int(rng.integers(width - crop + 1)), crop, crop)


def mirror(image_HW3: np.ndarray, out_HW3: np.ndarray | None = None) -> np.ndarray:
    """Left becomes right, in other memory: numpy's view of it takes forty times as long to copy."""
    return cv2.flip(image_HW3, 1, dst=out_HW3)


def mirror_boxes(boxes_G4: np.ndarray, width: float) -> np.ndarray:
    """The boxes in the mirror image of an image of that width, float32."""
    left_G, top_G, right_G, bottom_G = boxes_G4.T
    return np.stack([width - right_G, top_G, width - left_G, bottom_G], axis=1).astype(np.float32)
