"""Faster R-CNN (Ren et al. 2015) and, with a mask head, Mask R-CNN (He et al. 2017), on any body.

On a cut backbone they are "networks on conv feature maps" (He et al. 2015, app. A): the layers below the cut run once
an image and are shared by the region proposal network and the detector; those above it run once a region.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import torch
from torch import Tensor, nn

from detectors.box_head import BoxHead, RegionOutput, Regions
from detectors.losses import GlobalCounts
from detectors.mask_head import MaskHead
from detectors.rpn import RPN
from detectors.structures import Detections, ImageBatch, Targets


class FasterRCNN(nn.Module):
    """body: (pixels N3HW, sizes N2) -> maps, a tuple of NCHW, finest first. mask_head: None, or masks as well."""

    def __init__(self, *, body: nn.Module, rpn: RPN, box_head: BoxHead, mask_head: MaskHead | None = None) -> None:
        super().__init__()
        self.body = body
        self.rpn = rpn
        self.box_head = box_head
        self.mask_head = mask_head

    @property
    def proposals(self) -> int:
        """Regions that are scored in an image at test."""
        return self.rpn.test_limits.after_nms

    def forward(self, images: ImageBatch, targets: Targets) -> dict[str, Tensor]:
        """The losses, float32 scalars: of RPN and box head, each of classes and boxes, and of the masks."""
        maps = self.body(images.pixels_N3HW, images.sizes_hw_N2)
        anchors = self.rpn(maps)
        proposals = self.rpn.propose(anchors, images, self.rpn.train_limits)
        samples = self.rpn.sample(anchors, images, targets)
        regions = self.box_head.sample(proposals, targets)
        # Processes exchange how many they have while the regions are read.
        counts = GlobalCounts(samples.valid_NS, regions.valid_NR, regions.positive_NR)
        output = self.box_head(maps, regions.boxes_NR4, images.sizes_hw_N2)
        losses = {
            **self.rpn.losses(anchors, samples, counts[0]),
            **self.box_head.losses(regions, output, counts[1]),
        }
        if self.mask_head is not None:
            regions, regions_MCHW = self._to_mask(maps, regions, output)
            losses |= self.mask_head.losses(self.mask_head(regions_MCHW), regions, images, targets, counts[2])
        return losses

    @torch.no_grad()
    def detect(self, images: ImageBatch) -> Detections:
        """Return what is in the images, best first. Call `.eval()` first: this does not change the mode of norms."""
        maps = self.body(images.pixels_N3HW, images.sizes_hw_N2)
        proposals = self.rpn.propose(self.rpn(maps), images, self.rpn.test_limits)
        return self.add_masks(maps, self.box_head.detect(maps, proposals, images))

    def add_masks(self, maps: Sequence[Tensor], detections: Detections) -> Detections:
        """The detections with their masks, if the detector makes any."""
        if self.mask_head is None:
            return detections
        pool = self.box_head.region_maps if self.mask_head.pool is None else self.mask_head.pool
        logits_MQBB = self.mask_head(pool(maps, detections.boxes_ND4))
        return replace(detections, masks_NDMM=self.mask_head.probabilities(logits_MQBB, detections))

    def _to_mask(self, maps: Sequence[Tensor], regions: Regions, output: RegionOutput) -> tuple[Regions, Tensor]:
        """The regions that may be positive, a fixed number an image, and what the mask head reads of each."""
        assert self.mask_head is not None
        most = min(self.box_head.most_positive, regions.boxes_NR4.shape[1])
        first = Regions(**{name: value[:, :most] for name, value in vars(regions).items()})
        if self.mask_head.pool is not None:
            return first, self.mask_head.pool(maps, first.boxes_NR4)
        return first, output.maps_NRCHW[:, :most].flatten(0, 1)


class Proposer(nn.Module):
    """A detector without its heads: its region proposals as detections, to be measured on their own (Ren et al. 2015,
    §4.1)."""

    def __init__(self, detector: FasterRCNN) -> None:
        super().__init__()
        self.body, self.rpn = detector.body, detector.rpn

    @torch.no_grad()
    def detect(self, images: ImageBatch) -> Detections:
        """The regions that the detector would score, best first, all of class 1. Call `.eval()` first."""
        maps = self.body(images.pixels_N3HW, images.sizes_hw_N2)
        return self.rpn.detect(self.rpn(maps), images, self.rpn.test_limits)
