"""Mirrored images at test: the detector sees the image from its other side, and answers in the image's own pixels.

Legend: N images, H W canvas, X boxes an image.
"""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor

from detectors.postprocess import RegionScores
from detectors.rpn import Proposals
from detectors.structures import Detections, ImageBatch
from detectors.views import View


def mirror_images(images: ImageBatch) -> ImageBatch:
    """Every image mirrored left to right where it lies on the canvas, at all its sizes; the padding stays."""
    width_N1 = images.sizes_hw_N2[:, 1:]
    column_W = torch.arange(images.pixels_N3HW.shape[3], device=width_N1.device)
    source_NW = torch.where(column_W < width_N1, width_N1 - 1 - column_W, column_W)
    index_N3HW = source_NW[:, None, None, :].expand_as(images.pixels_N3HW)
    return replace(
        images,
        pixels_N3HW=images.pixels_N3HW.gather(3, index_N3HW),
        other_scales=tuple(mirror_images(other) for other in images.other_scales),
    )


def mirror_boxes(boxes_NX4: Tensor, sizes_hw_N2: Tensor) -> Tensor:
    """The boxes of the same things in the mirrored images."""
    width_N1 = sizes_hw_N2[:, 1:].to(boxes_NX4.dtype)
    x0_NX, y0_NX, x1_NX, y1_NX = boxes_NX4.unbind(-1)
    return torch.stack([width_N1 - x1_NX, y0_NX, width_N1 - x0_NX, y1_NX], dim=-1)


class MirroredView:
    """Another view's answers about mirrored images, in pixels of the images as they were. view: of `mirror_images`."""

    def __init__(self, view: View, sizes_hw_N2: Tensor) -> None:
        self.view, self.sizes_hw_N2 = view, sizes_hw_N2

    def propose(self) -> Proposals:
        proposals = self.view.propose()
        return replace(proposals, boxes_NP4=mirror_boxes(proposals.boxes_NP4, self.sizes_hw_N2))

    def score(self, boxes_NP4: Tensor) -> RegionScores:
        scores = self.view.score(mirror_boxes(boxes_NP4, self.sizes_hw_N2))
        boxes_NX4 = mirror_boxes(scores.boxes_NPQ4.flatten(1, 2), self.sizes_hw_N2)
        return replace(scores, boxes_NPQ4=boxes_NX4.view_as(scores.boxes_NPQ4))

    def add_masks(self, detections: Detections) -> Detections:
        there = replace(detections, boxes_ND4=mirror_boxes(detections.boxes_ND4, self.sizes_hw_N2))
        masks_NDMM = self.view.add_masks(there).masks_NDMM
        return replace(detections, masks_NDMM=None if masks_NDMM is None else masks_NDMM.flip(3))
