"""Multi-scale testing: each region is read at the two sizes of the image at which it is nearest to the size that the
network was trained to see (He et al. 2015, appendix B; Ren et al. 2015, "Object detection networks on convolutional
feature maps").

Proposals come from one size alone, that of the batch ("in the detector, not the RPN").

Legend: N images, S sizes, P regions an image, M = N * P.
"""

from __future__ import annotations

import torch
from torch import Tensor

from detectors.boxes import box_area
from detectors.faster_rcnn import FasterRCNN
from detectors.structures import ImageBatch
from detectors.views import DetectorView


def adjacent_sizes(boxes_NP4: Tensor, factors_SN2: Tensor, region_px: float) -> Tensor:
    """The first of the two neighbouring sizes between which a region's area is region_px² (or would come nearest to
    it), int64 NP. factors: by size, ascending, what x and y are multiplied by."""
    area_SNP = factors_SN2.prod(dim=2).unsqueeze(2) * box_area(boxes_NP4)
    below_NP = (area_SNP <= region_px**2).sum(dim=0)
    return (below_NP - 1).clamp(0, len(factors_SN2) - 2)


class MultiScaleView(DetectorView):
    """Images as a detector sees them at the batch's own and all other sizes that it has.

    region_px: root of the area at which a region is read best; 224, the side of ImageNet's training images, is the rule
    of SPP-net and its successors. The maxima over the two readings are taken of every pooled value, before the head.
    Each size is pooled for all regions, so that shapes are fixed: pooling is the small part of the work next to the
    head, which runs once a region.
    """

    def __init__(self, detector: FasterRCNN, images: ImageBatch, region_px: float = 224.0) -> None:
        super().__init__(detector, images, self._pool_two)
        self.region_px = region_px
        scales = sorted((images, *images.other_scales), key=_pixels)
        if len(scales) < 2:
            raise ValueError("Multi-scale testing needs images at two sizes or more; the batch has one.")
        self.scales_maps = [
            self.maps if scale is images else detector.body(scale.pixels_N3HW, scale.sizes_hw_N2) for scale in scales
        ]
        sizes_hw_SN2 = torch.stack([scale.sizes_hw_N2 for scale in scales])
        self.factors_SN2 = (sizes_hw_SN2 / images.sizes_hw_N2).flip(2).float()

    def _pool_two(self, boxes_NP4: Tensor) -> Tensor:
        first_NP = adjacent_sizes(boxes_NP4, self.factors_SN2, self.region_px)
        merged: Tensor | None = None
        for place, (maps, factor_N2) in enumerate(zip(self.scales_maps, self.factors_SN2)):
            read_M = ((first_NP == place) | (first_NP + 1 == place)).flatten()
            pooled = self.detector.box_head.pool(maps, boxes_NP4 * factor_N2.repeat(1, 2).unsqueeze(1))
            pooled = pooled.masked_fill_(~read_M.view(-1, 1, 1, 1), float("-inf"))
            merged = pooled if merged is None else torch.maximum(merged, pooled)
        assert merged is not None
        return merged


def _pixels(images: ImageBatch) -> int:
    """The area of the first image, by which the sizes of a batch are put in order."""
    height, width = images.sizes_hw[0]
    return height * width
