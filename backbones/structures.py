"""Values between the loaders and the networks that take images of several sizes: padded, in frozen dataclasses.

Legend of shape suffixes: N images, H W canvas height and width.

Everything that code on the host needs to know (sizes, ids) is kept on the host as well, so that nothing ever
reads it back from the device.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, fields, replace
from typing import Any, TypeVar

import torch
from torch import Tensor

Size = tuple[int, int]  # height, width, in pixels

_Structure = TypeVar("_Structure", bound="TensorStructure")


@dataclass(frozen=True)
class TensorStructure:
    """A frozen dataclass whose tensors move together; other fields stay on the host."""

    def _map(self: _Structure, change: Callable[[Tensor], Tensor]) -> _Structure:
        changed: dict[str, Any] = {}
        for field in fields(self):
            value = getattr(self, field.name)
            if isinstance(value, Tensor):
                changed[field.name] = change(value)
            elif isinstance(value, TensorStructure):
                changed[field.name] = value._map(change)
            elif isinstance(value, tuple) and value and isinstance(value[0], TensorStructure):
                changed[field.name] = tuple(one._map(change) for one in value)
        return replace(self, **changed)

    def to(self: _Structure, device: torch.device | str) -> _Structure:
        """The same value on `device`; copies from pinned memory do not wait."""
        return self._map(lambda tensor: tensor.to(device, non_blocking=True))

    def pin_memory(self: _Structure) -> _Structure:
        """The same value in page-locked memory, from where copies to a GPU are asynchronous."""
        return self._map(Tensor.pin_memory)


@dataclass(frozen=True)
class ImageBatch(TensorStructure):
    """Images on one canvas.

    pixels_N3HW: uint8 RGB, 0..255; what lies beyond an image's size is padding.
    sizes_hw_N2: int64, height and width of each image on the canvas (top left), on the device.
    sizes_hw: the same numbers on the host.
    other_scales: the same images at other sizes, where a detector is tested at several.
    """

    pixels_N3HW: Tensor
    sizes_hw_N2: Tensor
    sizes_hw: tuple[Size, ...]
    other_scales: tuple[ImageBatch, ...] = ()

    def __len__(self) -> int:
        return self.pixels_N3HW.shape[0]


def mirror(maps_NCHW: Tensor, sizes_hw_N2: Tensor) -> Tensor:
    """Every image's pixels or scores mirrored left to right where it lies on the canvas; the padding stays."""
    width_N1 = sizes_hw_N2[:, 1:]
    column_W = torch.arange(maps_NCHW.shape[3], device=width_N1.device)
    source_NW = torch.where(column_W < width_N1, width_N1 - 1 - column_W, column_W)
    return maps_NCHW.gather(3, source_NW[:, None, None, :].expand_as(maps_NCHW))
