"""Values between the loader, a detector and its evaluation, beside those of backbones.structures.

Legend of shape suffixes: N images, H W canvas height and width, G truths an image (padded to 16, 64, 256, ...),
D detections an image (padded). Boxes are x0 y0 x1 y1, float32, in pixels of the resized image, without +1.
Labels: 0 is background and padding, 1..C are the classes in the data set's order.

Everything that code on the host needs to know (sizes, ids) is kept on the host as well, so that nothing ever
reads it back from the device.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from backbones.structures import ImageBatch, Size, TensorStructure

__all__ = ["Detections", "ImageBatch", "Masks", "Size", "Targets", "TensorStructure", "padded_count"]


@dataclass(frozen=True)
class Masks(TensorStructure):
    """Instance masks of a whole batch in one flat array of bits, each only where it is set, never padded to G.

    packed_B: uint8, eight of M pixels each, the first in the highest bit; all windows row by row, one after the other.
    windows_K4: int64, x0 y0 x1 y1 in pixels of the image; beyond its window a mask is 0.
    image_index_K: int64, image of each mask; truth_index_K: int64, its place among that image's truths.
    """

    packed_B: Tensor
    windows_K4: Tensor
    image_index_K: Tensor
    truth_index_K: Tensor

    @classmethod
    def of(cls, masks: Sequence[Tensor], image_index_K: Tensor, truth_index_K: Tensor) -> Masks:
        """Whole masks, each HW of its image, 0 or 1."""
        bits_M = torch.cat([torch.zeros(0, dtype=torch.uint8), *(mask_HW.flatten() for mask_HW in masks)])
        padded_B8 = F.pad(bits_M, (0, -len(bits_M) % 8)).view(-1, 8)
        packed_B = sum((padded_B8[:, place] << (7 - place) for place in range(8)), torch.zeros_like(padded_B8[:, 0]))
        windows = [(0, 0, mask_HW.shape[1], mask_HW.shape[0]) for mask_HW in masks]
        return cls(packed_B, torch.tensor(windows, dtype=torch.int64).view(-1, 4), image_index_K, truth_index_K)

    @property
    def starts_K(self) -> Tensor:
        """The place among M at which each window begins, int64."""
        area_K = (self.windows_K4[:, 2:] - self.windows_K4[:, :2]).prod(dim=1)
        return area_K.cumsum(0) - area_K

    def bits(self, index: Tensor) -> Tensor:
        """Return the pixels (uint8 0/1) at those places of M (int64, any shape)."""
        return (self.packed_B[index >> 3] >> (7 - (index & 7)).to(torch.uint8)) & 1

    def whole(self, k: int, size_hw: Size) -> Tensor:
        """Return mask k on its whole image, HW uint8 0/1; the host waits for it."""
        mask_HW = torch.zeros(size_hw, dtype=torch.uint8, device=self.packed_B.device)
        x0, y0, x1, y1 = self.windows_K4[k].tolist()
        places = self.starts_K[k] + torch.arange((y1 - y0) * (x1 - x0), device=mask_HW.device)
        mask_HW[y0:y1, x0:x1] = self.bits(places).view(y1 - y0, x1 - x0)
        return mask_HW


@dataclass(frozen=True)
class Targets(TensorStructure):
    """The truth of one ImageBatch, padded to G truths an image.

    boxes_NG4 float32; labels_NG int64; valid_NG bool (False: padding); crowd_NG bool; difficult_NG bool.
    ignore_NG: bool, truths that are neither to be found nor to be punished; set by the recipe's `crowd` and
        `difficult` fields (a truth that the recipe drops is not here at all).
    draw_seeds_N: int64, one key an image from seed, iteration and image id: all random draws for that image
        follow from it, so that they do not depend on the number of processes.
    image_ids, original_sizes_hw: host; the ids in the data set and the sizes on disk (after EXIF rotation).
    """

    boxes_NG4: Tensor
    labels_NG: Tensor
    valid_NG: Tensor
    crowd_NG: Tensor
    difficult_NG: Tensor
    ignore_NG: Tensor
    draw_seeds_N: Tensor
    image_ids: tuple[int, ...]
    original_sizes_hw: tuple[Size, ...]
    masks: Masks | None = None


@dataclass(frozen=True)
class Detections(TensorStructure):
    """The objects that a detector found, best first, padded to D an image.

    boxes_ND4 float32 in pixels of the resized image; scores_ND float32 in 0..1; labels_ND int64 (1..C);
    valid_ND bool (False: padding). masks_NDMM: float, for every cell of an M x M grid over the box how probable it
    is that the object covers it, 0..1; None: the detector gives boxes alone.
    """

    boxes_ND4: Tensor
    scores_ND: Tensor
    labels_ND: Tensor
    valid_ND: Tensor
    masks_NDMM: Tensor | None = None


def padded_count(count: int, steps: tuple[int, ...] = (16, 64, 256)) -> int:
    """`count` truths rounded up to a short list of sizes, beyond its end to multiples of its last; never cut.

    Few distinct sizes mean few distinct shapes, which is what compiled steps and allocators like.
    """
    for step in steps:
        if count <= step:
            return step
    return -(-count // steps[-1]) * steps[-1]
