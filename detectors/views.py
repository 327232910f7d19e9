"""What a test-time improvement is made of: a batch of images as a detector sees it, which proposes regions and scores
any that it is asked about (He et al. 2015, appendix B).

Several sizes, mirrored images and other detectors are further views, or a view made of views, so that they combine.

Legend: N images, P regions an image, K classes with background (0), Q boxes a region (classes, or 1), M = N * P.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

import torch
from torch import Tensor

from detectors.boxes import clip, decode
from detectors.faster_rcnn import FasterRCNN
from detectors.postprocess import RegionScores
from detectors.rpn import Proposals
from detectors.structures import Detections, ImageBatch

# Of each image: so that an ensemble with the proposals of several RPNs needs no more memory than a detector alone.
REGIONS_AT_A_TIME = 1024

PoolRegions = Callable[[Tensor], Tensor]  # boxes NP4 -> regions M x C x bins x bins


class View(Protocol):
    """Boxes are in pixels of the batch's images, as they are given to the detector."""

    def propose(self) -> Proposals:
        """Where objects may be."""

    def score(self, boxes_NP4: Tensor) -> RegionScores:
        """What each region is, and where its object's box ends for every class."""

    def add_masks(self, detections: Detections) -> Detections:
        """The detections with their masks, if the detector makes any."""


class DetectorView:
    """Images as one detector sees them at their own size. pool: None, or what reads regions instead of the detector's
    own pooling of these images' maps."""

    def __init__(self, detector: FasterRCNN, images: ImageBatch, pool: PoolRegions | None = None) -> None:
        self.detector, self.images = detector, images
        self.maps = detector.body(images.pixels_N3HW, images.sizes_hw_N2)
        self.pool: PoolRegions = pool or (lambda boxes_NP4: detector.box_head.pool(self.maps, boxes_NP4))

    def propose(self) -> Proposals:
        rpn = self.detector.rpn
        return rpn.propose(rpn(self.maps), self.images, rpn.test_limits)

    def score(self, boxes_NP4: Tensor) -> RegionScores:
        parts = [self._score(part_NR4) for part_NR4 in boxes_NP4.split(REGIONS_AT_A_TIME, dim=1)]
        return RegionScores(
            torch.cat([part.probabilities_NPK for part in parts], dim=1),
            torch.cat([part.boxes_NPQ4 for part in parts], dim=1),
        )

    def _score(self, boxes_NP4: Tensor) -> RegionScores:
        head, sizes_hw_N2 = self.detector.box_head, self.images.sizes_hw_N2
        output = head.read(self.pool(head.to_pool(boxes_NP4, sizes_hw_N2)), len(boxes_NP4))
        boxes_NPQ4 = decode(output.deltas_NRQ4, boxes_NP4.unsqueeze(2), head.delta_weights)
        boxes_NX4 = clip(boxes_NPQ4.flatten(1, 2), sizes_hw_N2)
        return RegionScores(output.logits_NRK.float().softmax(dim=-1), boxes_NX4.view_as(boxes_NPQ4))

    def add_masks(self, detections: Detections) -> Detections:
        return self.detector.add_masks(self.maps, detections)
