"""The size to which an image is resized and the canvas it lies on, from the image's own size alone.

Few canvases mean few shapes for compiled steps, and images of one canvas waste little padding on each other.
Sizes are (height, width) in pixels.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

MULTIPLE = 32  # the coarsest stride of a backbone
ASPECTS = (1.0, 4 / 3, 3 / 2)  # of cameras; longer images lie on the last canvas
Size = tuple[int, int]


def default_canvases(shorter: int, longer: int) -> tuple[Size, ...]:
    """Return a short list, square to longest, on which every image of these sides finds room."""
    longest = max(shorter, longer)
    sides = sorted({_up(min(round(shorter * aspect), longest)) for aspect in (*ASPECTS, longest / shorter)})
    short = _up(shorter)
    landscape = [(short, long) for long in sides]
    return tuple(landscape + [(long, short) for long in sides if long != short])


def choose_canvases(sizes_hw_I2: np.ndarray, shorter: int, longer: int, canvases: Sequence[Size]) -> np.ndarray:
    """Index of each image's canvas: of those on which it can be largest, the smallest."""
    canvases_C2 = np.asarray(canvases, np.float64)
    sizes_I2 = np.asarray(sizes_hw_I2, np.float64)
    wanted_I = np.minimum(shorter / sizes_I2.min(axis=1), longer / sizes_I2.max(axis=1))
    resized_I12 = np.maximum(1, np.round(sizes_I2 * wanted_I[:, None]))[:, None]
    shrunk_IC = np.minimum(1.0, (canvases_C2 / resized_I12).min(axis=2))
    best_IC = shrunk_IC >= shrunk_IC.max(axis=1, keepdims=True) - 1e-9
    return np.where(best_IC, canvases_C2.prod(axis=1), np.inf).argmin(axis=1)


def fitting_canvases(sizes_hw_I2: np.ndarray, groups_I: np.ndarray, shorter: int, longer: int) -> dict[int, Size]:
    """The smallest canvas, by group, with room for each of its images when their shorter side becomes `shorter`."""
    sizes_I2 = np.asarray(sizes_hw_I2, np.float64)
    scale_I = np.minimum(shorter / sizes_I2.min(axis=1), longer / sizes_I2.max(axis=1))
    resized_I2 = np.maximum(1, np.round(sizes_I2 * scale_I[:, None])).astype(int)
    room = {int(group): resized_I2[groups_I == group].max(axis=0).tolist() for group in np.unique(groups_I)}
    return {group: (_up(height), _up(width)) for group, (height, width) in room.items()}


def resized(size_hw: Size, shorter: int, longer: int, canvas_hw: Size) -> Size:
    """Return the size of an image whose shorter side becomes `shorter`, or less to keep to `longer` and the canvas."""
    height, width = size_hw
    scale = min(shorter / min(size_hw), longer / max(size_hw))
    scale = min(scale, (canvas_hw[0] + 0.5) / height, (canvas_hw[1] + 0.5) / width)
    return (
        min(canvas_hw[0], max(1, round(height * scale))),
        min(canvas_hw[1], max(1, round(width * scale))),
    )


@dataclass(frozen=True)
class FixedView:
    """The whole image at one size: shorter side `shorter` px, or less where the longer would exceed `longer`.

    At test, and of pictures without annotations. canvas_hw: the only canvas, within which all images are to fit.
    """

    shorter: int
    longer: int
    canvas_hw: Size | None = None

    @functools.cached_property
    def canvases(self) -> tuple[Size, ...]:
        return default_canvases(self.shorter, self.longer) if self.canvas_hw is None else (self.canvas_hw,)

    @property
    def most_px(self) -> int:
        """Pixels of the largest canvas."""
        return max(height * width for height, width in self.canvases)

    def canvas(self, sizes_hw: Sequence[Size] | np.ndarray) -> Size:
        """Return the smallest canvas with room for each image's own one."""
        if not len(sizes_hw):
            return self.canvases[0]
        chosen = choose_canvases(np.asarray(sizes_hw), self.shorter, self.longer, self.canvases)
        height, width = np.array(self.canvases)[chosen].max(axis=0).tolist()
        return height, width

    def size(self, size_hw: Size, canvas_hw: Size) -> Size:
        return resized(size_hw, self.shorter, self.longer, canvas_hw)


@dataclass(frozen=True)
class TightView:
    """The whole image at the size of `fixed`, or at its own, on the smallest canvas of sides that MULTIPLE divides.

    At test where every pixel is scored. canvas_hw: the only canvas, within which all images are to fit.
    """

    fixed: FixedView | None = None
    canvas_hw: Size | None = None

    @property
    def most_px(self) -> int:
        """Pixels of the largest canvas; 0 where images keep their own size, which only they tell."""
        return 0 if self.fixed is None else self.fixed.shorter * self.fixed.longer

    def canvas(self, sizes_hw: Sequence[Size]) -> Size:
        """Return the smallest canvas with room for all the images."""
        if self.canvas_hw is not None:
            return self.canvas_hw
        sides = np.array([self.size(size_hw) for size_hw in sizes_hw] or [(1, 1)]).max(axis=0).tolist()
        return _up(sides[0]), _up(sides[1])

    def size(self, size_hw: Size, canvas_hw: Size = (1 << 30, 1 << 30)) -> Size:
        room_hw = self.canvas_hw or canvas_hw
        if self.fixed is None:
            return resized(size_hw, min(size_hw), max(size_hw), room_hw)
        return self.fixed.size(size_hw, room_hw)


def _up(side: int) -> int:
    return -(-side // MULTIPLE) * MULTIPLE
