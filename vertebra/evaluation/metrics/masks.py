"""From a detector's mask probabilities on a grid over each box to masks of the image's own size, and to RLE.

Legend: D detections of one image, M cells a side of their grids, H W the image, h w the pixels of one window, K the
pixels of all windows along one axis, E the places where an object begins or ends.

The convention is Mask R-CNN's reference's (He et al. 2017; detectron2's, aligned): a grid's cells divide its box
evenly, a value stands at its cell's centre, between centres it is bilinear and beyond the grid it is 0; a pixel is
looked up at its own centre, and belongs to the object from a probability of 0.5 on. At and beyond the box's edge half
the weight or more lies on that 0, so only pixels whose centre is within the box can belong to the object: each mask
is made in that window alone. There bilinear weights are separable, which makes it two small matrix products.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from vertebra.ground import rle
from vertebra.ground.rle import Size

FloatArray = NDArray[np.floating]
Window = tuple[int, int, NDArray[np.bool_]]  # top, left, whether each pixel belongs to the object, by columns (wh)

THRESHOLD = 0.5  # not to be lowered: below a half, pixels beyond the window would belong to the object


def paste_to_rle(probabilities_DMM: FloatArray, boxes_D4: FloatArray, size_hw: Size) -> tuple[bytes, ...]:
    """Return each mask's `counts` in COCO's compressed RLE, byte for byte what pycocotools makes of the masks.

    boxes_D4: x0 y0 x1 y1 in pixels of the image, which they may leave.
    """
    return tuple(_counts(window, size_hw) for window in windows(probabilities_DMM, boxes_D4, size_hw))


def windows(probabilities_DMM: FloatArray, boxes_D4: FloatArray, size_hw: Size) -> Iterator[Window]:
    boxes_D4 = np.asarray(boxes_D4, np.float64)
    cells = probabilities_DMM.shape[1:]
    lefts, columns = _weights(boxes_D4[:, 0], boxes_D4[:, 2], cells[1], size_hw[1])
    tops, rows = _weights(boxes_D4[:, 1], boxes_D4[:, 3], cells[0], size_hw[0])
    for cells_MM, top, left, rows_hM, columns_wM in zip(
        np.asarray(probabilities_DMM, np.float32), tops, lefts, rows, columns
    ):
        yield top, left, columns_wM @ (cells_MM.T @ rows_hM.T) >= THRESHOLD


def _weights(
    starts_D: FloatArray, ends_D: FloatArray, cells: int, side: int
) -> tuple[list[int], list[NDArray[np.float32]]]:
    """Return, along one axis of each box, the first pixel whose centre is within it, and the cells' weights.

    These are of each cell in that pixel and the next ones, none where the box contains no centre.
    """
    first_D = np.maximum(0, np.ceil(starts_D - 0.5)).astype(np.int64)
    stop_D = np.minimum(side, np.floor(ends_D - 0.5) + 1).astype(np.int64)
    count_D = np.where(ends_D > starts_D, np.maximum(0, stop_D - first_D), 0)
    until_D = np.cumsum(count_D)
    box_K = np.repeat(np.arange(len(count_D)), count_D)
    pixel_K = np.arange(len(box_K)) + (first_D - until_D + count_D)[box_K]
    place_K = (pixel_K + 0.5 - starts_D[box_K]) / (ends_D - starts_D)[box_K] * cells - 0.5
    distance_KM = np.abs(place_K.astype(np.float32)[:, None] - np.arange(cells, dtype=np.float32))
    return first_D.tolist(), np.split(np.maximum(0, 1 - distance_KM), until_D[:-1])


def _counts(window: Window, size_hw: Size) -> bytes:
    """Run lengths go down the columns of the whole image; only the window's pixels are read."""
    top, left, bits_wh = window
    height, width = size_hw
    columns, rows = bits_wh.shape
    padded = np.zeros((columns, rows + 1), bool)  # a 0 below each column, so that each run ends within it
    padded[:, :rows] = bits_wh
    run = padded.reshape(-1)
    at_E = np.flatnonzero(np.diff(run, prepend=False))
    edges_E = (left + at_E // (rows + 1)) * height + top + at_E % (rows + 1)
    joined = edges_E[1:] == edges_E[:-1]  # from the image's last row on into the next column's first: one run
    edges_E = edges_E[~(np.append(joined, False) | np.append(False, joined))] if joined.any() else edges_E
    if len(edges_E) and edges_E[-1] == height * width:
        edges_E = edges_E[:-1]
    lengths = np.diff(edges_E, prepend=0, append=height * width)
    return rle.compress(lengths.tolist(), size_hw)
