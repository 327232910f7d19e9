"""Anchors: reference boxes of several scales and ratios at every cell of a map (Faster R-CNN, §3.1.1).

Legend: A anchors of one feature map, ordered by row, column, then ratio, then scale; K anchors a cell;
N images.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor


class AnchorGrid:
    """Anchors of all `scales` x `ratios` at every cell of `stride` px.

    scales: square root of an anchor's area in px; ratios: height / width. Anchors are centred on their cell,
    as the paper has them and as RoIAlign places features. (detectron2 and torchvision centre them on the
    cell's upper left corner: `offset` 0; torchvision also rounds their corners to whole pixels: `whole_pixels`.)
    """

    def __init__(
        self,
        *,
        scales: Sequence[float] = (128.0, 256.0, 512.0),
        ratios: Sequence[float] = (0.5, 1.0, 2.0),
        stride: int = 16,
        offset: float = 0.5,
        whole_pixels: bool = False,
    ) -> None:
        if not scales or not ratios or min(*scales, *ratios, stride) <= 0:
            raise ValueError(f"Anchors need positive scales, ratios and stride, not {scales}, {ratios}, {stride}.")
        self.stride = stride
        self.offset = offset
        self.whole_pixels = whole_pixels
        self.shapes_hw = [(scale * ratio**0.5, scale / ratio**0.5) for ratio in ratios for scale in scales]
        self._cache: dict[tuple[int, int, torch.device], Tensor] = {}

    @property
    def per_cell(self) -> int:
        return len(self.shapes_hw)

    def __call__(self, rows: int, columns: int, device: torch.device) -> Tensor:
        """Anchors of a `rows` x `columns` feature map, A4 float32; kept, so that a step copies nothing."""
        key = (rows, columns, device)
        if key not in self._cache:
            if len(self._cache) >= 64:  # test images come in many shapes
                self._cache.clear()
            # An inference tensor could not be used again in training.
            with torch.inference_mode(False):
                self._cache[key] = self._make(rows, columns, device)
        return self._cache[key]

    def _make(self, rows: int, columns: int, device: torch.device) -> Tensor:
        half_hw_K2 = torch.tensor(self.shapes_hw, dtype=torch.float32) / 2
        half_K4 = torch.cat([-half_hw_K2.flip(1), half_hw_K2.flip(1)], dim=1)
        if self.whole_pixels:
            half_K4 = half_K4.round()
        y_R = (torch.arange(rows, dtype=torch.float32) + self.offset) * self.stride
        x_C = (torch.arange(columns, dtype=torch.float32) + self.offset) * self.stride
        y_RC, x_RC = torch.meshgrid(y_R, x_C, indexing="ij")
        centre_RC14 = torch.stack([x_RC, y_RC, x_RC, y_RC], dim=-1).unsqueeze(2)
        return (centre_RC14 + half_K4).reshape(-1, 4).to(device)


def centred_inside(anchors_A4: Tensor, sizes_hw_N2: Tensor) -> Tensor:
    """Return which anchors have their centre within each image (not on the padding beyond it), NA bool."""
    centre_A2 = (anchors_A4[:, :2] + anchors_A4[:, 2:]) / 2
    return (centre_A2 < sizes_hw_N2.flip(-1).unsqueeze(1)).all(dim=-1)


def wholly_inside(anchors_A4: Tensor, sizes_hw_N2: Tensor) -> Tensor:
    """Return which anchors do not cross the border of each image, NA bool."""
    inside_low_A = (anchors_A4[:, :2] >= 0).all(dim=-1)
    return inside_low_A & (anchors_A4[:, 2:] <= sizes_hw_N2.flip(-1).unsqueeze(1)).all(dim=-1)
