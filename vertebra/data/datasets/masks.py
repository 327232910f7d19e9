"""From COCO segmentations to masks, by pycocotools (polygons, and RLE with or without compression).

Legend: G objects of one image, H W its height and width.
"""

from __future__ import annotations

import json
from typing import Any

import numpy as np

from vertebra.data.datasets.records import DetectionDataset
from vertebra.data.transforms.geometry import Box
from vertebra.ground import rle

Size = rle.Size


def decode_masks(
    dataset: DetectionDataset,
    index: int,
    objects_G: np.ndarray,
    boxes_G4: np.ndarray,
    size_hw: Size,
    part: Box | None = None,
) -> np.ndarray:
    """uint8 0/1, GHW of `size_hw`, of the objects at these places of the data set, all of image `index`.

    size_hw may be a fraction of the image's own size, where it was decoded to one. An object without a
    segmentation is its box, boxes_G4 being in pixels of `size_hw`. part: only what lies there, in pixels of `size_hw`.
    """
    import cv2

    annotated_hw: Size = tuple(dataset.sizes_hw_I2[index].tolist())
    part = part or Box(0, 0, *size_hw)
    rows, columns = slice(part.top, part.top + part.height), slice(part.left, part.left + part.width)
    masks_GHW = np.zeros((len(objects_G), part.height, part.width), np.uint8)
    places, codes = [], []
    for place, k in enumerate(objects_G.tolist()):
        text = dataset.segmentations[k] if dataset.segmentations is not None else ""
        if text:
            codes.append(_encode(json.loads(text), annotated_hw, size_hw))
            places.append(place)
        else:
            corners = np.round(boxes_G4[place]).astype(int) - [part.left, part.top] * 2
            x0, y0, x1, y1 = corners.tolist()
            masks_GHW[place, max(0, y0) : max(0, y1, y0 + 1), max(0, x0) : max(0, x1, x0 + 1)] = 1
    for place, code in zip(places, codes):
        mask_WH = rle.decode(code).T  # it comes column by column; OpenCV turns it in a fifth of numpy's time
        if tuple(code["size"]) == size_hw:
            cv2.transpose(np.ascontiguousarray(mask_WH[columns, rows]), dst=masks_GHW[place])
        else:
            resized_HW = cv2.resize(cv2.transpose(mask_WH), size_hw[::-1], interpolation=cv2.INTER_NEAREST_EXACT)
            masks_GHW[place] = resized_HW[rows, columns]
    return masks_GHW


def _encode(value: Any, annotated_hw: Size, size_hw: Size) -> dict[str, Any]:
    """Compressed RLE: of polygons at `size_hw` at once, of RLE at the annotation's size."""
    if not isinstance(value, list):
        return rle.encode(value, annotated_hw)
    scale_xy = (size_hw[1] / annotated_hw[1], size_hw[0] / annotated_hw[0])
    return rle.encode([(np.reshape(polygon, (-1, 2)) * scale_xy).reshape(-1).tolist() for polygon in value], size_hw)
