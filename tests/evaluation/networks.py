"""A detector, a classifier and loaders made up for tests: image `i` carries its own number in its pixels."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from detectors.structures import Detections, ImageBatch, Targets

CATEGORY_IDS = (3, 7, 90)  # not contiguous, on purpose


@dataclass(frozen=True)
class Batch:
    inputs: tuple[Any, ...]
    image_ids: tuple[int, ...]

    def to(self, device: torch.device | str) -> Batch:
        return Batch(tuple(one.to(device) for one in self.inputs), self.image_ids)


def detection_batch(image_ids: tuple[int, ...], *, resized: tuple[int, int], original: tuple[int, int]) -> Batch:
    """Black images of one resized size (h, w), whose first pixel is the image id."""
    count = len(image_ids)
    pixels_N3HW = torch.zeros(count, 3, *resized, dtype=torch.int32)
    pixels_N3HW[:, 0, 0, 0] = torch.tensor(image_ids, dtype=torch.int32)
    images = ImageBatch(pixels_N3HW, torch.tensor([resized] * count), (resized,) * count)
    flags_NG = torch.zeros(count, 1, dtype=torch.bool)
    targets = Targets(
        boxes_NG4=torch.zeros(count, 1, 4),
        labels_NG=torch.zeros(count, 1, dtype=torch.int64),
        valid_NG=flags_NG,
        crowd_NG=flags_NG,
        difficult_NG=flags_NG,
        ignore_NG=flags_NG,
        draw_seeds_N=torch.zeros(count, dtype=torch.int64),
        image_ids=image_ids,
        original_sizes_hw=(original,) * count,
    )
    return Batch((images, targets), image_ids)


class Fixed(nn.Module):
    """A detector that finds the same in every image: the rows x0 y0 x1 y1 score label valid, and their masks."""

    def __init__(self, *rows: tuple[float, ...], masks_DMM: Tensor | None = None) -> None:
        super().__init__()
        self.masks_DMM = masks_DMM
        self.rows_D7 = torch.tensor(rows, dtype=torch.float32).reshape(-1, 7)

    def detect(self, images: ImageBatch) -> Detections:
        assert not self.training and not torch.is_grad_enabled()
        rows_ND7 = self.rows_D7.expand(len(images), -1, -1)
        masks_NDMM = None if self.masks_DMM is None else self.masks_DMM.expand(len(images), -1, -1, -1)
        return detections_of(rows_ND7, masks_NDMM)


class Drawn(nn.Module):
    """A detector that draws its findings, masks too, from the image's own number: up to six an image."""

    def detect(self, images: ImageBatch) -> Detections:
        drawn, masks = [], []
        for image_id in images.pixels_N3HW[:, 0, 0, 0].tolist():
            draw = torch.Generator().manual_seed(image_id)
            corner_D2, size_D2 = torch.rand(6, 2, generator=draw) * 40, torch.rand(6, 2, generator=draw) * 30
            score_D1 = torch.rand(6, 1, generator=draw).sort(dim=0, descending=True).values
            label_D1 = torch.randint(1, 4, (6, 1), generator=draw).float()
            valid_D1 = (torch.arange(6)[:, None] < image_id % 7).float()
            drawn.append(torch.cat([corner_D2, corner_D2 + size_D2, score_D1, label_D1, valid_D1], dim=1))
            masks.append(torch.rand(6, 14, 14, generator=draw))
        return detections_of(torch.stack(drawn), torch.stack(masks))


def detections_of(rows_ND7: Tensor, masks_NDMM: Tensor | None = None) -> Detections:
    labels_ND, valid_ND = rows_ND7[..., 5].to(torch.int64), rows_ND7[..., 6].to(torch.bool)
    return Detections(rows_ND7[..., :4], rows_ND7[..., 4], labels_ND, valid_ND, masks_NDMM)


class Table(nn.Module):
    """A classifier that looks its logits up by the image's number (its one pixel)."""

    def __init__(self, logits_IC: Tensor) -> None:
        super().__init__()
        self.register_buffer("logits_IC", logits_IC)

    def forward(self, pixels_N3HW: Tensor) -> Tensor:
        assert not self.training and not torch.is_grad_enabled()
        return self.logits_IC[pixels_N3HW[:, 0, 0, 0].long()]


def classification_batch(image_ids: tuple[int, ...], labels: tuple[int, ...]) -> Batch:
    pixels_N3HW = torch.tensor(image_ids, dtype=torch.int32)[:, None, None, None].expand(-1, 3, 1, 1)
    return Batch((pixels_N3HW, torch.tensor(labels)), image_ids)
