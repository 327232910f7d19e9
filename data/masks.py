"""From COCO segmentations to masks, by pycocotools (polygons, and RLE with or without compression).

Legend: G objects of one image, H W its height and width.
"""

from __future__ import annotations

import json
from typing import Any

import numpy as np

from data.errors import DataError
from data.records import DetectionDataset


def decode_masks(
    dataset: DetectionDataset,
    objects_G: np.ndarray,
    boxes_G4: np.ndarray,
    size_hw: tuple[int, int],
    annotated_hw: tuple[int, int],
) -> np.ndarray:
    """uint8 0/1, GHW of `size_hw`, of the objects at these places of the data set.

    annotated_hw: the size segmentations refer to, where the image was decoded to a fraction of it. An object
    without a segmentation is its box, boxes_G4 being in pixels of `size_hw`.
    """
    from pycocotools import mask as rle

    masks_GHW = np.zeros((len(objects_G), *size_hw), np.uint8)
    scale_xy = (size_hw[1] / annotated_hw[1], size_hw[0] / annotated_hw[0])
    places, codes = [], []
    for place, k in enumerate(objects_G.tolist()):
        text = dataset.segmentations[k] if dataset.segmentations is not None else ""
        if text:
            code = _encode(
                json.loads(text), size_hw, annotated_hw, scale_xy, int(dataset.annotation_ids_K[k])
            )
            places.append(place)
            codes.append(code)
        else:
            x0, y0, x1, y1 = np.round(boxes_G4[place]).astype(int).tolist()
            masks_GHW[place, y0 : max(y1, y0 + 1), x0 : max(x1, x0 + 1)] = 1
    if codes:
        if all(tuple(code["size"]) == tuple(size_hw) for code in codes):
            masks_GHW[places] = rle.decode(codes).transpose(2, 0, 1)
        else:
            for place, code in zip(places, codes):
                masks_GHW[place] = _nearest(rle.decode(code), size_hw)
    return masks_GHW


def _encode(
    value: Any,
    size_hw: tuple[int, int],
    annotated_hw: tuple[int, int],
    scale_xy: tuple[float, float],
    name: int,
) -> dict[str, Any]:
    """Polygons become RLE at the image's size at once; RLE stays at the annotation's."""
    from pycocotools import mask as rle

    try:
        if isinstance(value, list):
            scaled = [(np.reshape(polygon, (-1, 2)) * scale_xy).reshape(-1).tolist() for polygon in value]
            return rle.merge(rle.frPyObjects(scaled, *size_hw))
        if tuple(value["size"]) != tuple(annotated_hw):
            raise ValueError(f"an RLE of size {value['size']} in an image of {list(annotated_hw)}")
        if isinstance(value["counts"], list):
            return rle.frPyObjects(value, *annotated_hw)
        return {"size": list(value["size"]), "counts": value["counts"].encode()}
    except (ValueError, TypeError, KeyError, IndexError, AttributeError) as error:
        raise DataError(
            f"annotation {name}: its segmentation does not decode ({error}); correct it"
        ) from error


def _nearest(mask_HW: np.ndarray, size_hw: tuple[int, int]) -> np.ndarray:
    import cv2

    return cv2.resize(mask_HW, (size_hw[1], size_hw[0]), interpolation=cv2.INTER_NEAREST)
