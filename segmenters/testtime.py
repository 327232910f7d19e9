"""A segmenter tested at several sizes, mirrored, or by windows that slide over the image.

Legend: N images, C classes, H W canvas.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from backbones.structures import ImageBatch, mirror
from segmenters.heads import resize
from segmenters.segmenter import Segmenter

OVERLAP = 1 / 3  # of neighbouring windows


class AveragedViews(nn.Module):
    """The mean of a segmenter's class probabilities over sizes and mirror images (Chen et al. 2017, §4.1).

    scales: factors on the image's size. flip: the mirror image too. window_hw: the net sees parts of that size, which
    overlap by a third and whose scores are averaged; None: the whole image.
    """

    def __init__(
        self,
        segmenter: Segmenter,
        *,
        scales: Sequence[float] = (1.0,),
        flip: bool = False,
        window_hw: tuple[int, int] | None = None,
    ) -> None:
        super().__init__()
        self.segmenter, self.scales, self.flip, self.window_hw = segmenter, tuple(scales), flip, window_hw

    def forward(self, batch: ImageBatch) -> Tensor:
        """probabilities_NCHW of the canvas."""
        total: Tensor = sum(  # one after the other: of many classes each is large
            resize(found_NCHW, batch.pixels_N3HW.shape[2:])
            for scale in self.scales
            for found_NCHW in self._probabilities(batch if scale == 1 else scaled(batch, scale))
        )  # type: ignore[assignment]
        return total / (len(self.scales) * (1 + self.flip))

    def _probabilities(self, batch: ImageBatch) -> Iterator[Tensor]:
        """Yield those of the images, and of their mirror images, as the images lie."""
        yield self._scores(batch).softmax(dim=1)
        if self.flip:
            sizes_hw_N2 = batch.sizes_hw_N2
            view = replace(batch, pixels_N3HW=mirror(batch.pixels_N3HW, sizes_hw_N2))
            yield mirror(self._scores(view).softmax(dim=1), sizes_hw_N2)

    def _scores(self, batch: ImageBatch) -> Tensor:
        height, width = batch.pixels_N3HW.shape[2:]
        if self.window_hw is None:
            return self.segmenter(batch)
        tall, wide = min(height, self.window_hw[0]), min(width, self.window_hw[1])
        sums, times = torch.zeros(()), torch.zeros(height, width)
        for top in starts(height, tall):
            for left in starts(width, wide):
                rows, columns = slice(top, top + tall), slice(left, left + wide)
                pixels = batch.pixels_N3HW[:, :, rows, columns].contiguous(memory_format=torch.channels_last)
                corner = torch.tensor([top, left], device=pixels.device)
                room = torch.tensor([tall, wide], device=pixels.device)
                sizes_hw_N2 = (batch.sizes_hw_N2 - corner).clamp(min=0).minimum(room)
                sizes = tuple((min(max(h - top, 0), tall), min(max(w - left, 0), wide)) for h, w in batch.sizes_hw)
                found_NCHW = self.segmenter(ImageBatch(pixels, sizes_hw_N2, sizes))
                if not sums.ndim:
                    sums = found_NCHW.new_zeros((*found_NCHW.shape[:2], height, width))
                sums[:, :, rows, columns] += found_NCHW
                times[rows, columns] += 1
        return sums / times.to(sums.device)


def starts(side: int, window: int) -> list[int]:
    """Return where windows begin that cover a side, each overlapping the one before by a third or more."""
    step = max(1, round(window * (1 - OVERLAP)))
    return [*range(0, side - window, step), side - window]


def scaled(batch: ImageBatch, factor: float) -> ImageBatch:
    """Return the images, and the canvas, at `factor` of their size."""
    canvas_hw = [max(1, round(side * factor)) for side in batch.pixels_N3HW.shape[2:]]
    pixels = F.interpolate(batch.pixels_N3HW.float(), size=canvas_hw, mode="bilinear", antialias=factor < 1)
    sizes = tuple((max(1, round(h * factor)), max(1, round(w * factor))) for h, w in batch.sizes_hw)
    sizes_hw_N2 = torch.tensor(sizes).to(pixels.device, non_blocking=True)
    return ImageBatch(pixels.contiguous(memory_format=torch.channels_last), sizes_hw_N2, sizes)
