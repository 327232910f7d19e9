"""A detector's region proposals as detections, to be written and measured on their own (Faster R-CNN, §4.1)."""

from __future__ import annotations

import torch
from torch import nn

from detectors.faster_rcnn import FasterRCNN
from detectors.structures import Detections, ImageBatch


class Proposer(nn.Module):
    """The body and the RPN of a detector, without its heads."""

    def __init__(self, detector: FasterRCNN) -> None:
        super().__init__()
        self.body, self.rpn = detector.body, detector.rpn

    @torch.no_grad()
    def detect(self, images: ImageBatch) -> Detections:
        """The regions that the detector would score, best first, all of class 1. Call `.eval()` first."""
        maps = self.body(images.pixels_N3HW, images.sizes_hw_N2)
        return self.rpn.detect(self.rpn(maps), images, self.rpn.test_limits)
