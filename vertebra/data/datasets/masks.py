"""From COCO segmentations (polygons, and RLE with or without compression) to patches of masks.

Legend: G objects of one image, H W its height and width.
"""

from __future__ import annotations

import json

import numpy as np

from vertebra.data.datasets.records import DetectionDataset
from vertebra.data.transforms.detection_views import nearest, patch_view
from vertebra.ground import rle
from vertebra.ground.labels import IGNORED
from vertebra.ground.rle import Patch, Size


def decode_masks(
    dataset: DetectionDataset, index: int, objects_G: np.ndarray, boxes_G4: np.ndarray, size_hw: Size
) -> list[Patch]:
    """The masks, on an image of `size_hw`, of the objects at these places of the data set, all of image `index`.

    size_hw may be a fraction of the image's own size, where it was decoded to one: polygons are drawn at it, RLE is
    brought to it. An object without a segmentation is its box, boxes_G4 being in pixels of `size_hw`.
    """
    annotated_hw: Size = tuple(dataset.sizes_hw_I2[index].tolist())
    texts = ["" if dataset.segmentations is None else dataset.segmentations[k] for k in objects_G.tolist()]
    codes = []
    for value in (json.loads(text) for text in texts if text):
        if isinstance(value, list) and size_hw != annotated_hw:
            scale_xy = (size_hw[1] / annotated_hw[1], size_hw[0] / annotated_hw[0])
            value = [(np.reshape(polygon, (-1, 2)) * scale_xy).reshape(-1).tolist() for polygon in value]
        codes.append(rle.encode(value, size_hw if isinstance(value, list) else annotated_hw))
    decoded = iter(zip(codes, rle.decode(codes)))
    patches = []
    for place, text in enumerate(texts):
        if not text:
            patches.append(_box(boxes_G4[place], size_hw))
            continue
        code, patch = next(decoded)
        if tuple(code["size"]) != size_hw:
            patch = patch_view(patch, *(nearest(old, new) for old, new in zip(annotated_hw, size_hw)))
        patches.append(patch)
    return patches


def _box(box_4: np.ndarray, size_hw: Size) -> Patch:
    """At least a pixel, where the box begins in the image."""
    x0, y0, x1, y1 = np.round(box_4).astype(int).tolist()
    return Patch(y0, x0, np.ones((max(y1 - y0, 1), max(x1 - x0, 1)), np.uint8)).cut(0, 0, *size_hw)


def painted(instances: DetectionDataset, index: int) -> np.ndarray:
    """Return the labels of the objects' masks; pixels of two classes are ignored, as torchvision's reference has it."""
    height, width = size_hw = tuple(instances.sizes_hw_I2[index].tolist())
    labels_HW = np.zeros(size_hw, np.uint8)
    objects_G = np.arange(instances.starts[index], instances.starts[index + 1])
    patches = decode_masks(instances, index, objects_G, instances.boxes_G4(index), (height, width))
    for patch, label in zip(patches, instances.labels_K[objects_G]):
        rows, columns = patch.bits_HW.shape
        under_HW = labels_HW[patch.top : patch.top + rows, patch.left : patch.left + columns]
        free_HW = (under_HW == 0) | (under_HW == label)
        under_HW[:] = np.where(patch.bits_HW, np.where(free_HW, label, IGNORED), under_HW)
    return labels_HW
