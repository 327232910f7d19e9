"""Words on a whole set of objects that breaks no rule and yet is hardly what was meant.

Legend: K objects.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from vertebra.ground.formats import counted

COUNTED = 100  # detections of a class and image that COCO's figures look at
_ODD_SHARE = 0.05  # of objects whose area is not near their box's
_THIN, _THICK = 0.01, 2.0  # an object's area is between these times its box's


@dataclass(frozen=True)
class ObjectColumns:
    """aside_K: crowd regions and difficult objects, which are not to be found."""

    image_K: NDArray[np.int64]
    class_K: NDArray[np.int64]
    xywh_K4: NDArray[np.float64]
    area_K: NDArray[np.float64]
    aside_K: NDArray[np.bool_]


def doubts(objects: ObjectColumns) -> Iterator[tuple[str, str]]:
    """Yield what is odd, and what to do about it."""
    xywh_K4, aside_K, count = objects.xywh_K4, objects.aside_K, len(objects.aside_K)
    if count and xywh_K4.min() >= 0 and xywh_K4.max() <= 1:
        yield f"every box ({count}) lies between 0 and 1", "boxes are in pixels, not in fractions of the image"
    if count and aside_K.all():
        reason = f"every object ({count}) is a crowd region or difficult"
        yield reason, "there is nothing to score, and of crowd regions nothing to learn"
    box_K = xywh_K4[:, 2] * xywh_K4[:, 3]
    odd_K = ((objects.area_K < _THIN * box_K) | (objects.area_K > _THICK * box_K)) & (box_K > 0)
    if odd_K.sum() > _ODD_SHARE * count:
        example = f"such as {objects.area_K[odd_K][0]:g} in a box of {box_K[odd_K][0]:g}"
        reason = f"{odd_K.sum()} of {counted(count, 'object')} with an area not near the box's, {example} square pixels"
        yield reason, "COCO's sizes (APs, APm, APl) go by them: correct them, or leave `area` out"
    pairs = np.stack([objects.image_K, objects.class_K], axis=1)[~aside_K]
    most = int(np.unique(pairs, axis=0, return_counts=True)[1].max()) if len(pairs) else 0
    if most > COUNTED:
        reason = f"an image has {most} objects of one class"
        yield reason, f"COCO's figures look at its first {COUNTED} detections, so the others count as missed"
