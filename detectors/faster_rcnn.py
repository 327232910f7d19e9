"""Faster R-CNN on a cut backbone (Ren et al. 2015): "networks on conv feature maps" (He et al. 2015, app. A).

The layers below the cut run once an image and are shared by the region proposal network and the detector;
those above the cut run once a region.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from detectors.box_head import BoxHead
from detectors.rpn import RPN
from detectors.structures import Detections, ImageBatch, Targets


class FasterRCNN(nn.Module):
    """trunk: (pixels N3HW, sizes N2) -> features NCHW. Its parameters and those of `box_head.head` are the
    backbone's own; without the prefixes `trunk.` and `box_head.head.` their names are those of the uncut
    backbone.
    """

    def __init__(self, *, trunk: nn.Module, rpn: RPN, box_head: BoxHead) -> None:
        super().__init__()
        self.trunk = trunk
        self.rpn = rpn
        self.box_head = box_head

    def forward(self, images: ImageBatch, targets: Targets) -> dict[str, Tensor]:
        """The four losses, float32 scalars: of RPN and box head, each of classes and boxes."""
        features_NCHW = self.trunk(images.pixels_N3HW, images.sizes_hw_N2)
        anchors = self.rpn(features_NCHW)
        proposals = self.rpn.propose(anchors, images, self.rpn.train_limits)
        return {
            **self.rpn.losses(anchors, images, targets),
            **self.box_head.losses(features_NCHW, proposals, targets),
        }

    @torch.no_grad()
    def detect(self, images: ImageBatch) -> Detections:
        """What is in the images, best first. Call `.eval()` first: this does not change the mode of norms."""
        features_NCHW = self.trunk(images.pixels_N3HW, images.sizes_hw_N2)
        proposals = self.rpn.propose(self.rpn(features_NCHW), images, self.rpn.test_limits)
        return self.box_head.detect(features_NCHW, proposals, images)
