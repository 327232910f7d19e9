"""Views of images and their labels in training: a random scale, a crop of one size, mirroring.

Legend: H W height and width. Sizes are (height, width) in pixels; labels are uint8, see vertebra.data.datasets.maps.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from vertebra.data.transforms.canvases import Size
from vertebra.data.transforms.detection_views import DrawnView, jittered, nearest
from vertebra.data.transforms.geometry import Box, size_at

CROPS = 10  # that are drawn in search of one with enough of other classes


@dataclass(frozen=True)
class SegmentationDraw:
    """A crop of `size_hw` of the image at a random scale (Chen et al. 2017, §4.1); where that is smaller, all of it.

    scale: least and greatest factor on the image's size, or, with `shorter`, on its size with the shorter side at that.
    flip: a chance. photometric: strength of vertebra.data.transforms.pixels.photometric, 0..1. max_share: a crop in
    which one class has a greater share of the labelled pixels is drawn again, CROPS times at most.
    """

    size_hw: Size
    scale: tuple[float, float] = (0.5, 2.0)
    flip: float = 0.5
    photometric: float = 0.0
    shorter: int | None = None
    max_share: float = 1.0

    def __post_init__(self) -> None:
        assert 0 < self.scale[0] <= self.scale[1] and 0 < self.max_share <= 1, self

    def __call__(self, labels_HW: np.ndarray, rng: np.random.Generator) -> DrawnView:
        height, width = labels_HW.shape
        size_hw = (height, width) if self.shorter is None else size_at(height, width, self.shorter)
        factor, flip = rng.uniform(*self.scale), bool(rng.random() < self.flip)
        for _ in range(CROPS):
            view = DrawnView(*jittered(Box(0, 0, height, width), size_hw, self.size_hw, factor, rng), flip)
            if self.max_share == 1 or _largest_share(view_of_labels(labels_HW, view)) <= self.max_share:
                break
        return view


def _largest_share(labels_HW: np.ndarray) -> float:
    """Return the share of the labelled pixels that the most frequent class has; 1 where none is labelled."""
    counts_C = np.bincount(labels_HW.ravel(), minlength=256)[:-1]
    return float(counts_C.max() / counts_C.sum()) if counts_C.any() else 1.0


def view_of_labels(labels_HW: np.ndarray, view: DrawnView, decoded_hw: Size | None = None) -> np.ndarray:
    """Return the labels in the view, of its size: of each pixel what lies under its centre, as for detection's masks.

    decoded_hw: the size at which the image was decoded, in whose pixels the view's part is then; None: its own.
    """
    starts, sides = (view.part.top, view.part.left), (view.part.height, view.part.width)
    rows, columns = (
        nearest(whole, decoded)[start : start + side][nearest(side, new)]
        for whole, decoded, start, side, new in zip(
            labels_HW.shape, decoded_hw or labels_HW.shape, starts, sides, view.size_hw
        )
    )
    return labels_HW.take(rows, axis=0).take(columns[::-1] if view.flip else columns, axis=1)
