"""Overlap of boxes in numpy. A box is x y width height in pixels; x + width is its right edge.

Shapes broadcast: from boxes of shape (..., 4) come values of shape (...).
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

FloatArray = NDArray[np.float64]


def corners_to_sizes(boxes_xyxy: FloatArray) -> FloatArray:
    """Return boxes x0 y0 x1 y1 as x y width height."""
    return np.concatenate([boxes_xyxy[..., :2], boxes_xyxy[..., 2:] - boxes_xyxy[..., :2]], axis=-1)


def shared_area(first: FloatArray, second: FloatArray) -> FloatArray:
    """Return the area that two boxes have in common, in square pixels; 0 where they do not touch."""
    area = np.ones(())
    for start, side in ((0, 2), (1, 3)):
        until = np.minimum(first[..., start] + first[..., side], second[..., start] + second[..., side])
        area = area * np.maximum(until - np.maximum(first[..., start], second[..., start]), 0)
    return area


def iou(first: FloatArray, second: FloatArray, crowd: NDArray[np.bool_] | bool = False) -> FloatArray:
    """Return intersection over union, 0..1; where `second` is a crowd, the share of `first` that lies in it.

    Equal to pycocotools' to the last bit. 0 where a box has no area.
    """
    shared = shared_area(first, second)
    own = first[..., 2] * first[..., 3]
    union = np.where(crowd, own, own + second[..., 2] * second[..., 3] - shared)
    return np.divide(shared, union, out=np.zeros_like(shared), where=shared > 0)
