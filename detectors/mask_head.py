"""Mask R-CNN's third branch: the cells of a region that its object covers (He et al. 2017, §3).

Legend: N images, R regions an image, M = N * R, C channels, Q classes (masks a region), B cells a side of a mask, G
padded truths, K masks of the batch, X rows and Y columns of pixels that a region's samples lie between.
"""

from __future__ import annotations

from itertools import pairwise

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from detectors.bodies import MakeNorm, conv_layer
from detectors.box_head import Regions
from detectors.boxes import of_class
from detectors.losses import GlobalCounts, masked_sum
from detectors.pooling import in_cells, linear_samples
from detectors.structures import Detections, ImageBatch, Masks, Targets


class MaskHead(nn.Module):
    """Convolutions, one transposed convolution to twice the size, and a mask for every class, as logits.

    pool: (maps, boxes NR4) -> regions; None: the head reads the maps that the box head has made of the regions, as
    above a cut backbone ("the head on the ResNet C4 backbone", fig. 4 left). convs: 4 with a pyramid, 0 with a cut.
    samples: in each cell of the truth's mask and direction, when it is brought to the region's grid; 0: as many as a
    cell has pixels. aligned: see `RoIAlign`. binary: a cell of the truth is 1 where at least half of it is covered, as
    in detectron2, or else the share of it that is.
    """

    def __init__(
        self,
        in_channels: int,
        classes: int,
        *,
        pool: nn.Module | None = None,
        channels: int = 256,
        convs: int = 4,
        make_norm: MakeNorm | None = None,
        samples: int = 2,
        aligned: bool = True,
        binary: bool = False,
    ) -> None:
        super().__init__()
        self.pool = pool
        sizes = [in_channels, *[channels] * convs]
        self.convs = nn.Sequential(*(conv_layer(a, b, 3, make_norm, relu=True) for a, b in pairwise(sizes)))
        self.upsample = nn.ConvTranspose2d(sizes[-1], channels, kernel_size=2, stride=2)
        self.predictor = nn.Conv2d(channels, classes, kernel_size=1)
        nn.init.kaiming_normal_(self.upsample.weight, mode="fan_out", nonlinearity="relu")
        nn.init.normal_(self.predictor.weight, std=0.001)  # as detectron2
        for layer in (self.upsample, self.predictor):
            assert layer.bias is not None
            nn.init.zeros_(layer.bias)
        self.samples, self.aligned, self.binary = samples, aligned, binary

    def forward(self, regions_MCHW: Tensor) -> Tensor:
        """Mask logits MQBB of pooled regions."""
        x_MCHW = self.convs(regions_MCHW.contiguous(memory_format=torch.channels_last))
        return self.predictor(self.upsample(x_MCHW).relu_())

    def losses(
        self,
        logits_MQBB: Tensor,
        regions: Regions,
        images: ImageBatch,
        targets: Targets,
        count: Tensor | None = None,
    ) -> dict[str, Tensor]:
        """Binary cross entropy of the true class's mask: mean over its cells, then over the whole batch's `count`
        positive regions (§3: the other classes' masks do not compete, and learn nothing)."""
        count = GlobalCounts(regions.positive_NR)[0] if count is None else count
        wanted_MBB = masks_of_regions(
            regions, images, targets, bins=logits_MQBB.shape[-1], samples=self.samples, aligned=self.aligned
        )
        if self.binary:
            wanted_MBB = (wanted_MBB >= 0.5).float()
        own_MBB = of_class(logits_MQBB, regions.labels_NR.flatten() - 1)
        loss_MBB = F.binary_cross_entropy_with_logits(own_MBB.float(), wanted_MBB, reduction="none")
        loss_NR = loss_MBB.mean(dim=(1, 2)).view_as(regions.positive_NR)
        return {"loss_mask": masked_sum(loss_NR, regions.positive_NR) / count}

    @staticmethod
    def probabilities(logits_MQBB: Tensor, detections: Detections) -> Tensor:
        """Return the probability of each cell of a detection's box to be its object's, NDBB float32, 0..1."""
        own_MBB = of_class(logits_MQBB, detections.labels_ND.flatten() - 1)
        return own_MBB.float().sigmoid().unflatten(0, detections.labels_ND.shape)


@torch.no_grad()
def masks_of_regions(
    regions: Regions, images: ImageBatch, targets: Targets, *, bins: int, samples: int, aligned: bool = True
) -> Tensor:
    """Each region's truth seen on the region's grid: the share of every cell that it covers, MBB float32.

    It is RoIAlign on the truth's mask. Regions without a truth get anything. Raises ValueError where the targets have
    no masks.
    """
    if targets.masks is None:
        raise ValueError("This detector learns masks, and the batch has none: load the data set with masks.")
    masks = targets.masks
    mask_NR = _places(masks, targets).gather(1, regions.truth_index_NR).clamp(min=0)
    # one more: a batch may have no mask at all
    start_M = F.pad(masks.starts_K, (0, 1))[mask_NR].flatten()
    left_M1, top_M1, right_M1, bottom_M1 = F.pad(masks.windows_K4, (0, 0, 0, 1))[mask_NR].view(-1, 4, 1).unbind(1)
    size_M2 = images.sizes_hw_N2.repeat_interleave(mask_NR.shape[1], dim=0, output_size=mask_NR.numel())
    (x0_M, y0_M), (across_M, down_M) = (
        pair_M2.unbind(1) for pair_M2 in in_cells(regions.boxes_NR4.reshape(-1, 4), 1, aligned=aligned)
    )
    height_M, width_M = size_M2.unbind(1)
    row_MX, row_weight_MX = (part.flatten(1) for part in linear_samples(y0_M, down_M, height_M, bins, samples))
    column_MY, column_weight_MY = (part.flatten(1) for part in linear_samples(x0_M, across_M, width_M, bins, samples))
    row_weight_MX = row_weight_MX * ((top_M1 <= row_MX) & (row_MX < bottom_M1))
    column_weight_MY = column_weight_MY * ((left_M1 <= column_MY) & (column_MY < right_M1))
    first_MX = start_M.unsqueeze(1) + (row_MX - top_M1) * (right_M1 - left_M1)
    index_MXY = first_MX.unsqueeze(2) + (column_MY - left_M1).unsqueeze(1)
    pixels = 8 * len(masks.packed_B)
    index_MXY.clamp_(0, max(pixels - 1, 0))
    bits_MXY = masks.bits(index_MXY).float() if pixels else torch.zeros_like(index_MXY, dtype=torch.float32)
    covered_MBY = (bits_MXY * row_weight_MX.unsqueeze(2)).unflatten(1, (bins, -1)).sum(2)
    return (covered_MBY * column_weight_MY.unsqueeze(1)).unflatten(2, (bins, -1)).sum(3)


def _places(masks: Masks, targets: Targets) -> Tensor:
    """Return the number of each truth's mask, NG; -1: none."""
    index_K = masks.image_index_K * targets.valid_NG.shape[1] + masks.truth_index_K
    place_X = index_K.new_full((targets.valid_NG.numel(),), -1)
    return place_X.scatter(0, index_K, torch.arange(len(index_K), device=index_K.device)).view_as(targets.valid_NG)
