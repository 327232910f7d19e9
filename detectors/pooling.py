"""Region of interest pooling: a fixed grid of features for every box, whatever its size.

Legend: N images, R regions an image, M = N * R regions of the batch in order of images, C channels, H W
feature map, B bins a side, S samples in a bin along one axis. Regions are in pixels of the image; feature (i, j) is
centred on pixel ((j + 0.5) * stride, (i + 0.5) * stride).
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torchvision
from torch import Tensor, nn

from backbones.norms import Pool

# Above so many intermediate values (0.5 GB in bf16) RoIAlign is left to torchvision's kernel.
MOST_PARTIAL_VALUES = 2**28


class RoIAlign(nn.Module):
    """Mean of bilinear samples in every bin (Mask R-CNN, §3), "aligned": half a cell is half a cell.

    aligned: False is the form before that (torchvision's detectors): half a cell off, regions of a cell at least.

    samples: in each bin and direction; 0 takes as many as the bin has cells, rounded up (detectron2's
    default). by_kernel: always torchvision's kernel, which other runtimes have as well.

    Bilinear weights are products of a weight of the row and one of the column, and so is the mean over a
    bin's samples. So the whole operation is two matrix products, in whatever precision the features have: to
    the kernel in torchvision equal in float32, to rounding, but in its backward pass, without atomic
    additions, deterministic, and on a CPU several times faster (11x for 96 regions of 14 x 14 bins, 256
    channels, bf16).
    """

    by_kernel = False

    def __init__(self, bins: int, stride: int, samples: int = 0, *, aligned: bool = True) -> None:
        super().__init__()
        self.bins = bins
        self.stride = stride
        self.samples = samples
        self.aligned = aligned

    def forward(self, maps: Sequence[Tensor], boxes_NR4: Tensor) -> Tensor:
        """Regions M x C x B x B of the one map, channels last."""
        (features_NCHW,) = maps
        pool = self.as_products(features_NCHW, boxes_NR4)
        return self._by_kernel(features_NCHW, boxes_NR4) if pool is None else pool(features_NCHW, 1)

    def as_products(self, features_NCHW: Tensor, boxes_NR4: Tensor) -> Pool | None:
        """Return what pools these regions of any map as large by products of matrices; None where a kernel does."""
        images, channels, rows, columns = features_NCHW.shape
        regions = boxes_NR4.shape[1]
        if self.by_kernel or images * regions * self.bins * columns * channels > MOST_PARTIAL_VALUES:
            return None
        start_M2, size_M2 = in_cells(boxes_NR4.reshape(-1, 4), self.stride, aligned=self.aligned)
        (x0_M, y0_M), (width_M, height_M) = start_M2.unbind(1), size_M2.unbind(1)
        row_MBH = axis_weights(y0_M, height_M, self.bins, rows, self.samples)
        column_MBW = axis_weights(x0_M, width_M, self.bins, columns, self.samples)

        def pool(map_NCHW: Tensor, step: int) -> Tensor:
            # b: the bins that are wanted
            row_MbH, column_MbW = (weights[:, ::step].to(map_NCHW.dtype) for weights in (row_MBH, column_MBW))
            bins, channels = row_MbH.shape[1], map_NCHW.shape[1]
            map_NHX = map_NCHW.permute(0, 2, 3, 1).reshape(images, rows, columns * channels)
            partial_NRX = row_MbH.reshape(images, regions * bins, rows) @ map_NHX
            partial_MbWC = partial_NRX.view(images * regions, bins, columns, channels)
            return (column_MbW.unsqueeze(1) @ partial_MbWC).permute(0, 3, 1, 2)

        return pool

    def _by_kernel(self, features_NCHW: Tensor, boxes_NR4: Tensor) -> Tensor:
        pooled_MCBB = torchvision.ops.roi_align(
            features_NCHW.float(),
            with_image_index(boxes_NR4),
            output_size=self.bins,
            spatial_scale=1 / self.stride,
            sampling_ratio=self.samples,
            aligned=self.aligned,
        )
        return pooled_MCBB.to(features_NCHW.dtype, memory_format=torch.channels_last)


def in_cells(boxes_X4: Tensor, stride: Tensor | int, *, aligned: bool) -> tuple[Tensor, Tensor]:
    """Return the upper left corners and sizes of regions in cells of a map of that stride, X2 each (x, y)."""
    start_X2, end_X2 = (boxes_X4.float() / stride).split(2, dim=-1)
    size_X2 = end_X2 - start_X2
    if aligned:
        return start_X2 - 0.5, size_X2
    return start_X2, size_X2.clamp(min=1)  # as before "aligned": half a cell off, and a cell at least


def axis_weights(start_M: Tensor, length_M: Tensor, bins: int, extent: int, samples: int = 0) -> Tensor:
    """Return what each of `extent` cells adds to each bin along one axis, M x bins x extent; lengths in cells."""
    most = samples or -(-extent // bins)
    at_MBS, share_MBS = sample_places(start_M, length_M, torch.full_like(start_M, extent), bins, samples, most)
    cell_X = torch.arange(extent, device=start_M.device)
    hat_MBSX = (1 - (at_MBS.unsqueeze(-1) - cell_X).abs_()).clamp_(min=0)
    return (hat_MBSX * share_MBS.unsqueeze(-1)).sum(dim=2)


def linear_samples(
    start_M: Tensor, length_M: Tensor, extent_M: Tensor, bins: int, samples: int
) -> tuple[Tensor, Tensor]:
    """Return the two cells along one axis that each sample lies between, and their weights, M x bins x 2S each.

    extent_M: cells that there are. samples 0: the host waits for the longest region.
    """
    most = samples or max(1, int((length_M / bins).max().ceil()))
    at_MBS, share_MBS = sample_places(start_M, length_M, extent_M, bins, samples, most)
    lower_MBS = at_MBS.long()
    upper_MBS = torch.minimum(lower_MBS + 1, (extent_M - 1).clamp(min=0).view(-1, 1, 1))
    beyond_MBS = at_MBS - lower_MBS
    weights_MBS2 = torch.stack([1 - beyond_MBS, beyond_MBS], dim=-1) * share_MBS.unsqueeze(-1)
    return torch.stack([lower_MBS, upper_MBS], dim=-1).flatten(2), weights_MBS2.flatten(2)


def sample_places(
    start_M: Tensor, length_M: Tensor, extent_M: Tensor, bins: int, samples: int, most: int
) -> tuple[Tensor, Tensor]:
    """Return where each bin's samples lie along one axis, and the share of each in its bin's mean, M x bins x S each.

    samples: in each bin; 0 takes as many as the bin has cells, rounded up, `most` (S) at most. Samples up to one cell
    outside take the outermost cell's value, those further out are 0, as in torchvision.
    """
    bin_M11 = (length_M / bins).view(-1, 1, 1)
    count_M11 = torch.full_like(bin_M11, samples) if samples > 0 else bin_M11.ceil().clamp(1, most)
    sample_S = torch.arange(most, device=start_M.device)
    within_MBS = torch.arange(bins, device=start_M.device).view(-1, 1) + (sample_S + 0.5) / count_M11
    at_MBS = start_M.view(-1, 1, 1) + within_MBS * bin_M11
    last_M11 = (extent_M - 1).clamp(min=0).view(-1, 1, 1)
    counts_MBS = (sample_S < count_M11) & (at_MBS >= -1) & (at_MBS <= last_M11 + 1)
    return torch.minimum(at_MBS.clamp(min=0), last_M11), counts_MBS / count_M11


class RoIPool(nn.Module):
    """Maximum over every bin, its borders rounded to whole cells (Fast R-CNN, §2.1)."""

    def __init__(self, bins: int, stride: int) -> None:
        super().__init__()
        self.bins = bins
        self.stride = stride

    def forward(self, maps: Sequence[Tensor], boxes_NR4: Tensor) -> Tensor:
        """Regions M x C x B x B of the one map, channels last."""
        (features_NCHW,) = maps
        pooled_MCBB = torchvision.ops.roi_pool(
            features_NCHW.float(), with_image_index(boxes_NR4), self.bins, 1 / self.stride
        )
        return pooled_MCBB.to(features_NCHW.dtype, memory_format=torch.channels_last)


def with_image_index(boxes_NR4: Tensor) -> Tensor:
    """Boxes as torchvision's kernels want them: M x 5, the image's place in the batch first."""
    images, regions = boxes_NR4.shape[:2]
    image_M = torch.arange(images, device=boxes_NR4.device).repeat_interleave(regions, output_size=images * regions)
    return torch.cat([image_M.unsqueeze(1).to(boxes_NR4.dtype), boxes_NR4.reshape(-1, 4)], dim=1)
