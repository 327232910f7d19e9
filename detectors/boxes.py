"""Arithmetic on boxes: areas, overlaps, the regression code, clipping. All of it in float32.

Legend: A boxes, G other boxes, X any leading shape, N images. Boxes are x0 y0 x1 y1 in pixels, without +1, so
that a box from 3 to 5 is 2 px wide.
"""

from __future__ import annotations

import math
from contextlib import AbstractContextManager, nullcontext

import torch
from torch import Tensor

Weights = tuple[float, float, float, float]

PLAIN: Weights = (1.0, 1.0, 1.0, 1.0)  # of anchors' deltas; a box head's differ

# A region may grow by this factor at most in one regression step; keeps exp() finite. As in Detectron: a 16
# px anchor reaches 1000 px.
MAX_LOG_SCALE = math.log(1000.0 / 16)
# Sides below this (padding, zero-size boxes) count as this in the regression code, so that it stays finite; the RPN
# proposes none of them.
MIN_SIDE_PX = 1e-3


def in_float32(device: torch.device) -> AbstractContextManager[None]:
    """Return the context in which float32 stays float32, whatever autocast stands around it."""
    has_autocast = torch.amp.is_autocast_available(device.type)  # meta, on which costs are counted, has none
    return torch.autocast(device.type, enabled=False) if has_autocast else nullcontext()


def box_area(boxes_X4: Tensor) -> Tensor:
    """Areas in px², shape X; 0 where a side is negative."""
    x0, y0, x1, y1 = boxes_X4.unbind(-1)
    return (x1 - x0).clamp(min=0) * (y1 - y0).clamp(min=0)


def box_intersection(boxes_XG4: Tensor, boxes_XA4: Tensor) -> Tensor:
    """Areas in px² that every box of the first set shares with every box of the second, shape XGA.

    Put the larger set second: the inner loop runs over it (twice as fast on a CPU for 1,764 anchors, 16
    truths).
    """
    first = [side.unsqueeze(-1) for side in boxes_XG4.unbind(-1)]
    second = [side.unsqueeze(-2) for side in boxes_XA4.mT.contiguous().unbind(-2)]
    width = torch.minimum(first[2], second[2]).sub_(torch.maximum(first[0], second[0])).clamp_(min=0)
    height = torch.minimum(first[3], second[3]).sub_(torch.maximum(first[1], second[1])).clamp_(min=0)
    return width.mul_(height)


def iou_from_intersection(shared_XGA: Tensor, area_XG: Tensor, area_XA: Tensor) -> Tensor:
    """Intersection over union, 0 where both boxes are empty."""
    union_XGA = (area_XG.unsqueeze(-1) + area_XA.unsqueeze(-2)).sub_(shared_XGA)
    return shared_XGA / union_XGA.clamp_(min=torch.finfo(union_XGA.dtype).tiny)


def box_iou(boxes_XG4: Tensor, boxes_XA4: Tensor) -> Tensor:
    """Intersection over union of every box of the first set with every box of the second, shape XGA, 0..1."""
    shared_XGA = box_intersection(boxes_XG4, boxes_XA4)
    return iou_from_intersection(shared_XGA, box_area(boxes_XG4), box_area(boxes_XA4))


def _centre_and_side(boxes_X4: Tensor) -> tuple[Tensor, Tensor]:
    corner0_X2, corner1_X2 = boxes_X4.float().split(2, dim=-1)
    return (corner0_X2 + corner1_X2) / 2, (corner1_X2 - corner0_X2).clamp(min=MIN_SIDE_PX)


def _times(pair_X2: Tensor, x: float, y: float) -> Tensor:
    """Both columns by their factor, without a tensor of factors that would have to travel to the device."""
    return pair_X2 * x if x == y else torch.stack([pair_X2[..., 0] * x, pair_X2[..., 1] * y], dim=-1)


def encode(boxes_X4: Tensor, reference_X4: Tensor, weights: Weights = PLAIN) -> Tensor:
    """The deltas that turn `reference` boxes into `boxes` (R-CNN, appendix C), each times its weight.

    Weights (10, 10, 5, 5) are the same as the paper's division by standard deviations 0.1, 0.1, 0.2, 0.2.
    """
    centre, side = _centre_and_side(boxes_X4)
    reference_centre, reference_side = _centre_and_side(reference_X4)
    shift = _times((centre - reference_centre) / reference_side, *weights[:2])
    return torch.cat([shift, _times((side / reference_side).log(), *weights[2:])], dim=-1)


def decode(deltas_X4: Tensor, reference_X4: Tensor, weights: Weights = PLAIN) -> Tensor:
    """The boxes that `deltas` make of `reference` boxes (broadcast against each other); inverts `encode`."""
    centre, side = _centre_and_side(reference_X4)
    shift, log_scale = deltas_X4.float().split(2, dim=-1)
    new_centre = centre + _times(shift, 1 / weights[0], 1 / weights[1]) * side
    log_scale = _times(log_scale, 1 / weights[2], 1 / weights[3]).clamp(max=MAX_LOG_SCALE)
    half_side = side * log_scale.exp() / 2
    return torch.cat([new_centre - half_side, new_centre + half_side], dim=-1)


def clip(boxes_NA4: Tensor, sizes_hw_N2: Tensor) -> Tensor:
    """The boxes cut at the border of their image."""
    limit_N14 = sizes_hw_N2.flip(-1).repeat(1, 2).unsqueeze(1).to(boxes_NA4.dtype)
    return torch.minimum(boxes_NA4.clamp(min=0), limit_N14)


def take(values_NA: Tensor, index_NS: Tensor) -> Tensor:
    """`values[n, index[n, s]]`, whatever dimensions follow A."""
    index = index_NS.reshape(*index_NS.shape, *[1] * (values_NA.dim() - 2))
    return values_NA.gather(1, index.expand(*index_NS.shape, *values_NA.shape[2:]))


def of_class(values_XQ: Tensor, class_X: Tensor) -> Tensor:
    """`values[x, class[x]]`, whatever dimensions follow Q; where Q is 1, all classes share that one.

    Class -1 (background) gets the first class's values.
    """
    at = class_X.dim()
    if values_XQ.shape[at] == 1:
        return values_XQ.squeeze(at)
    flat_X1 = take(values_XQ.flatten(0, at - 1), class_X.reshape(-1, 1).clamp(min=0))
    return flat_X1.view(*class_X.shape, *values_XQ.shape[at + 1 :])


def usable(boxes_X4: Tensor, min_side_px: float = 0.0) -> Tensor:
    """Return which boxes are finite, not empty, and at least `min_side_px` wide and high; bool X.

    A NaN, which the loss will report, must not reach the pooling kernels: it would be an address there.
    """
    side_X2 = boxes_X4[..., 2:] - boxes_X4[..., :2]
    return ((side_X2 > 0) & (side_X2 >= min_side_px)).all(dim=-1) & boxes_X4.isfinite().all(dim=-1)
