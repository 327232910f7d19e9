"""A semantic segmenter: a backbone's maps, a head that scores every pixel, and, in training, an auxiliary head.

Legend: N images, C classes, H W canvas or image.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch.nn.functional as F
from torch import Tensor, nn

from backbones.structures import ImageBatch
from segmenters.heads import resize

IGNORED = 255  # label of pixels that are neither learnt from nor scored


class Segmenter(nn.Module):
    """Scores every pixel of an image (Long et al. 2015).

    trunk: (pixels N3HW, sizes N2) -> maps. head, auxiliary: called with some of these, `head_maps` and `auxiliary_maps`
    say which by place. auxiliary: a second head, in training alone, whose loss has the weight `auxiliary_weight`
    (Zhao et al. 2017, §3.3).
    """

    def __init__(
        self,
        trunk: nn.Module,
        head: nn.Module,
        head_maps: Sequence[int],
        *,
        auxiliary: nn.Module | None = None,
        auxiliary_maps: Sequence[int] = (),
        auxiliary_weight: float = 0.4,
    ) -> None:
        super().__init__()
        self.trunk, self.head, self.auxiliary = trunk, head, auxiliary
        self.head_maps, self.auxiliary_maps = tuple(head_maps), tuple(auxiliary_maps)
        self.auxiliary_weight = auxiliary_weight

    def forward(self, batch: ImageBatch, labels_NHW: Tensor | None = None) -> dict[str, Tensor] | Tensor:
        """In training the losses by name; in evaluation logits_NCHW of the canvas, float32.

        labels_NHW: uint8, a class's place or IGNORED.
        """
        maps = self.trunk(batch.pixels_N3HW, batch.sizes_hw_N2)
        logits_NCHW = resize(self.head([maps[place] for place in self.head_maps]).float(), batch.pixels_N3HW.shape[2:])
        if not self.training:
            return logits_NCHW
        assert labels_NHW is not None, "a segmenter in training needs labels"
        losses = {"loss_pixels": pixel_loss(logits_NCHW, labels_NHW)}
        if self.auxiliary is not None:
            other_NCHW = self.auxiliary([maps[place] for place in self.auxiliary_maps]).float()
            other_NCHW = resize(other_NCHW, labels_NHW.shape[1:])
            losses["loss_auxiliary"] = self.auxiliary_weight * pixel_loss(other_NCHW, labels_NHW)
        return losses


def pixel_loss(logits_NCHW: Tensor, labels_NHW: Tensor) -> Tensor:
    """Cross-entropy, summed over the pixels that count and divided by all.

    By all, as their number is the same on every process and in every part of a batch, which the number of those that
    count is not: so one batch has one loss, however it is spread.
    """
    total = F.cross_entropy(logits_NCHW, labels_NHW.long(), ignore_index=IGNORED, reduction="sum")
    return total / labels_NHW.numel()
