"""Views of images for a classifier in training and at test, their growth and their mixing.

Crop first, then one resize. Mixing is only drawn here: it is done on the device, by the classifier.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch

from vertebra.data.loading.sampling import NO_IMAGE, draw_seed
from vertebra.data.transforms.geometry import (
    PAPER_SCALES,
    Box,
    centre_crop,
    mirror,
    pad_crop,
    resize,
    resized_crop,
    scale_crop,
)
from vertebra.data.transforms.pipeline import Pipeline
from vertebra.data.transforms.pixels import PixelChange

AUGMENTS = ("none", "crop", "pad", "scale")


@dataclass(frozen=True, kw_only=True)
class ClassificationTransform:
    """One image to size x size.

    augment: "none" (resize shorter side to `shorter`, centre crop), "crop" (resized_crop), "pad" (pad_crop), "scale"
    (scale_crop). flip: chance of a mirrored image. pixel_changes: applied to the view after that, in order. pipeline:
    applied to the image before all of it.
    """

    size: int
    shorter: int
    augment: str = "none"
    min_scale: float = 0.08
    flip: float = 0.0
    pixel_changes: Sequence[PixelChange] = ()
    pipeline: Pipeline | None = None

    def __post_init__(self) -> None:
        assert self.augment in AUGMENTS, self.augment
        assert self.shorter >= self.size or self.augment in ("crop", "pad"), (self.shorter, self.size)

    def at_size(self, size: int) -> ClassificationTransform:
        """The same view of another size, `shorter` in proportion."""
        return replace(self, size=size, shorter=round(self.shorter * size / self.size))

    @property
    def wanted_shorter(self) -> float:
        """Shorter side of the source below which detail would be lost, in pixels; none is enough for a pipeline."""
        if self.pipeline is not None:
            return math.inf
        if self.augment == "crop":
            return self.size / math.sqrt(self.min_scale * 3 / 4)
        return self.shorter * (PAPER_SCALES if self.augment == "scale" else 1)

    @property
    def draws_part(self) -> bool:
        """True where a random part of the image is resized to the view, rather than the whole."""
        return self.augment in ("crop", "scale")

    def draw(self, height: int, width: int, rng: np.random.Generator) -> Box:
        """Draw the part of an image of that size that the view shows; the first of all draws."""
        if self.augment == "crop":
            return resized_crop(height, width, self.min_scale, rng)
        if self.augment == "none":
            side = max(1, round(self.size * min(height, width) / self.shorter))
            return Box((height - side) // 2, (width - side) // 2, side, side)
        return scale_crop(height, width, self.size, self.shorter, rng)

    def __call__(self, image_HW3: np.ndarray, rng: np.random.Generator, box: Box | None = None) -> np.ndarray:
        """The view, uint8 HW3. box: the part it shows, if drawn already."""
        if self.pipeline is not None:
            image_HW3 = self.pipeline(image_HW3.copy(), rng).image_HW3  # of a cache: some steps write into theirs
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


@dataclass(frozen=True)
class Growth:
    """Small pictures first, full ones at the end (Tan & Le 2021, §4): a function of the iteration alone.

    The side grows linearly from `start` at iteration 0 to `size` at `until` * `iterations`.

    In between it is a multiple of 32, or of 8 where `size` is below 64: what the strides of a network divide.
    until: 0..1.
    """

    start: int
    size: int
    until: float
    iterations: int

    def __post_init__(self) -> None:
        assert self.start <= self.size, (self.start, self.size)

    def side(self, iteration: int) -> int:
        """Pixels a side at `iteration`, counted from 0; never less than at the one before."""
        whole = self.until * self.iterations
        if iteration >= whole:
            return self.size
        step = 8 if self.size < 64 else 32
        side = self.start + (self.size - self.start) * iteration / whole
        return max(self.start, int(side) // step * step)


@dataclass(frozen=True)
class Mixing:
    """Each picture mixed with its partner, the one before it in the share of the batch that a process has.

    mixup, cutmix: alphas of the Beta distributions of the own share (Zhang et al. 2017; Yun et al. 2019); 0: never.
    Where both are above 0 each batch is mixed in one of the two ways, with even chances.
    """

    mixup: float = 0.0
    cutmix: float = 0.0

    def __bool__(self) -> bool:
        return self.mixup > 0 or self.cutmix > 0

    def draw(self, seed: int, iteration: int, *, height: int, width: int) -> torch.Tensor:
        """mixing_5, float32: the own share 0..1 of each pixel, and x0 y0 x1 y1 of the box that is wholly the
        partner's. With mixup the box is empty, with CutMix the own share outside of it is 1. The same for all
        processes."""
        rng = np.random.default_rng(draw_seed(seed, iteration, NO_IMAGE))
        cuts = self.cutmix > 0 and (self.mixup == 0 or rng.random() < 0.5)
        alpha = self.cutmix if cuts else self.mixup
        own = rng.beta(alpha, alpha)
        if not cuts:
            return torch.tensor([own, 0, 0, 0, 0], dtype=torch.float32)
        x, y = int(rng.integers(width)), int(rng.integers(height))
        half = math.sqrt(1 - own) / 2
        half_w, half_h = int(half * width), int(half * height)
        box = [max(x - half_w, 0), max(y - half_h, 0), min(x + half_w, width), min(y + half_h, height)]
        return torch.tensor([1, *box], dtype=torch.float32)
