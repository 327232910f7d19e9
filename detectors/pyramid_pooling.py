"""RoIAlign on a pyramid: each region from the level on which it measures about as much as any other.

Legend: N images, R regions an image, M = N * R, L levels, C channels, B bins a side, E cells that the samples of a bin
lie between along one axis (in the table: of both), K = M * B * B bins.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
import torchvision
from torch import Tensor, nn

from detectors.boxes import box_area
from detectors.pooling import in_cells, linear_samples, with_image_index

CANONICAL_SIDE = 224.0  # Lin et al. 2017, eq. 1: a region of 224 px, ImageNet's image, is read ...
CANONICAL_STRIDE = 16  # ... from the level of stride 16, as the cut ResNet's is


def level_of(boxes_NR4: Tensor, strides: Sequence[int]) -> Tensor:
    """Place among `strides` (each twice the one before) of every region's level, int64 NR (Lin et al. 2017, eq. 1)."""
    octaves_NR = torch.log2(box_area(boxes_NR4.float()).sqrt() * (CANONICAL_STRIDE / CANONICAL_SIDE / strides[0]))
    # 1e-6 as torchvision has it: a side of exactly 112 px belongs to the upper level however it is rounded.
    return (octaves_NR + 1e-6).floor().clamp(0, len(strides) - 1).long()


class _WeightedRows(torch.autograd.Function):
    """Sums of some rows of a table, each row times its weight: table XC, which rows KE, weights KE -> KC.

    It is torch's embedding_bag, but that the gradient of a row is summed up in float32: hundreds of regions may lie on
    the same cell, and a bfloat16 stops growing at 256 times what is added to it.
    """

    @staticmethod
    def forward(ctx: Any, table_XC: Tensor, rows_KE: Tensor, weights_KE: Tensor) -> Tensor:  # type: ignore[override]
        ctx.save_for_backward(rows_KE, weights_KE)
        ctx.table = table_XC.shape[0], table_XC.dtype
        return F.embedding_bag(rows_KE, table_XC, per_sample_weights=weights_KE.to(table_XC.dtype), mode="sum")

    @staticmethod
    def backward(ctx: Any, grad_KC: Tensor) -> tuple[Tensor, None, None]:  # type: ignore[override]
        rows_KE, weights_KE = ctx.saved_tensors
        (rows, kind), (sums, each) = ctx.table, rows_KE.shape
        sum_of_row = torch.arange(sums).unsqueeze(1).expand(sums, each).reshape(-1)
        sizes = torch.full((sums,), each)
        grad_XC = torch.ops.aten._embedding_bag_dense_backward(
            *(grad_KC.float().contiguous(), rows_KE.flatten(), sum_of_row, sizes, sizes[:0]),
            *(rows, False, 0, weights_KE.float().flatten(), -1),
        )
        return grad_XC.to(kind), None, None


class PyramidRoIAlign(nn.Module):
    """Mean of `samples` x `samples` bilinear samples in every bin, each region from its own level.

    strides: of the levels that are read, which are the first of those that are given. aligned, samples, by_kernel: see
    `RoIAlign`; at 0 samples the canvas serves on a CPU too.

    On a CPU the levels are one table of cells, and a bin is a weighted sum of the 16 of its rows that its samples
    touch: torch's embedding_bag, which reads whole rows of channels. Next to torchvision's kernel a call with its
    backward pass takes a sixth of the time in float32 and a ninth in bfloat16 (512 regions, 256 channels, one
    thread), and no region has to be sorted by its level. On a GPU the levels are laid on one canvas, each within a
    border of its own outermost cells, and torchvision's kernel is called once: shapes are fixed either way.
    """

    by_kernel = False

    def __init__(self, bins: int, strides: Sequence[int], *, samples: int = 2, aligned: bool = True) -> None:
        super().__init__()
        self.bins, self.strides, self.samples, self.aligned = bins, tuple(strides), samples, aligned

    def forward(self, maps: Sequence[Tensor], boxes_NR4: Tensor) -> Tensor:
        """Regions M x C x B x B, channels last, in the precision of the maps."""
        levels = maps[: len(self.strides)]
        boxes_NR4 = boxes_NR4.float()
        place_NR = level_of(boxes_NR4, self.strides)
        pool = self._on_canvas if boxes_NR4.is_cuda or self.by_kernel or not self.samples else self._from_table
        return pool(levels, boxes_NR4, place_NR)

    def _from_table(self, levels: Sequence[Tensor], boxes_NR4: Tensor, place_NR: Tensor) -> Tensor:
        images, channels = levels[0].shape[:2]
        regions = boxes_NR4.shape[1]
        table_XC = torch.cat([level.permute(0, 2, 3, 1).reshape(-1, channels) for level in levels])
        facts_L4, first = [], 0
        for level, stride in zip(levels, self.strides):
            rows, columns = level.shape[-2:]
            facts_L4.append((stride, rows, columns, first))
            first += images * rows * columns
        stride_NR, rows_NR, columns_NR, first_NR = torch.tensor(facts_L4)[place_NR].unbind(-1)

        start_M2, size_M2 = in_cells(boxes_NR4.reshape(-1, 4), stride_NR.view(-1, 1), aligned=self.aligned)
        (x0_M, y0_M), (width_M, height_M) = start_M2.unbind(1), size_M2.unbind(1)
        column_MBE, weight_x_MBE = linear_samples(x0_M, width_M, columns_NR.flatten(), self.bins, self.samples)
        row_MBE, weight_y_MBE = linear_samples(y0_M, height_M, rows_NR.flatten(), self.bins, self.samples)
        base_NR = first_NR + torch.arange(images).unsqueeze(1) * rows_NR * columns_NR
        first_MBE = base_NR.view(-1, 1, 1) + row_MBE * columns_NR.view(-1, 1, 1)
        # Row bin, column bin, row, column.
        cells_MBBEE = first_MBE[:, :, None, :, None] + column_MBE[:, None, :, None]
        weights_MBBEE = weight_y_MBE[:, :, None, :, None] * weight_x_MBE[:, None, :, None]
        cells_KE, weights_KE = cells_MBBEE.flatten(3).flatten(0, 2), weights_MBBEE.flatten(3).flatten(0, 2)
        with torch.autocast("cpu", enabled=False):
            pooled_KC = _WeightedRows.apply(table_XC, cells_KE, weights_KE)
        return pooled_KC.view(images * regions, self.bins, self.bins, channels).permute(0, 3, 1, 2)

    def _on_canvas(self, levels: Sequence[Tensor], boxes_NR4: Tensor, place_NR: Tensor) -> Tensor:
        border = 2  # samples of clipped boxes lie at most one cell outside
        width = max(level.shape[-1] for level in levels) + 2 * border
        strips, tops, top = [], [], 0
        for level in levels:
            strip = F.pad(level.float(), (border,) * 4, mode="replicate")
            strips.append(F.pad(strip, (0, width - strip.shape[-1])))
            tops.append(top + border)
            top += strip.shape[-2]
        canvas_NCHW = torch.cat(strips, dim=2)
        # Powers of two and a few integers: made by arithmetic, so that nothing is copied to the device.
        stride_NR = self.strides[0] * torch.exp2(place_NR.float())
        top_NR = torch.zeros_like(stride_NR)
        for index, value in enumerate(tops):
            top_NR = top_NR.masked_fill(place_NR == index, value)
        start_NR2, size_NR2 = in_cells(boxes_NR4, stride_NR.unsqueeze(-1), aligned=self.aligned)
        start_NR2 = start_NR2 + torch.stack([torch.full_like(stride_NR, border), top_NR], dim=-1)
        regions_NR4 = torch.cat([start_NR2, start_NR2 + size_NR2], dim=-1) + 0.5  # the kernel takes the half away again
        pooled_MCBB = torchvision.ops.roi_align(
            canvas_NCHW, with_image_index(regions_NR4), self.bins, 1.0, self.samples, aligned=True
        )
        return pooled_MCBB.to(levels[0].dtype, memory_format=torch.channels_last)
