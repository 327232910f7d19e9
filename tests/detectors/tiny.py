"""A stand-in for a cut backbone, and batches drawn from a seed: small enough to train in seconds."""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor, nn

from detectors.anchors import AnchorGrid
from detectors.bodies import SingleMap
from detectors.box_head import BoxHead, BoxPredictor
from detectors.faster_rcnn import FasterRCNN
from detectors.pooling import RoIAlign
from detectors.rpn import RPN, ProposalLimits, RPNHead
from detectors.structures import ImageBatch, Targets

STRIDE = 8
COLOURS = torch.tensor([[220.0, 40.0, 40.0], [40.0, 220.0, 40.0], [40.0, 40.0, 220.0]])


class TinyTrunk(nn.Module):
    """Three strided convolutions; like a backbone's trunk it blanks what lies beyond an image's size."""

    def __init__(self, channels: int = 32) -> None:
        super().__init__()
        widths = (3, channels // 2, channels, channels)
        self.convs = nn.ModuleList(nn.Conv2d(a, b, 3, 2, padding=1) for a, b in pairwise(widths))

    def forward(self, pixels_N3HW: Tensor, sizes_hw_N2: Tensor) -> Tensor:
        x = (pixels_N3HW.float() - 114) / 60
        rows = torch.arange(x.shape[2], device=x.device) < sizes_hw_N2[:, :1]
        columns = torch.arange(x.shape[3], device=x.device) < sizes_hw_N2[:, 1:]
        x = x * (rows[:, None, :, None] & columns[:, None, None, :])
        for conv in self.convs:
            x = conv(x).relu()
        return x


class TinyHead(nn.Module):
    def __init__(self, channels: int = 32) -> None:
        super().__init__()
        self.conv = nn.Conv2d(channels, 2 * channels, 3, padding=1)

    def maps(self, regions_MCBB: Tensor) -> Tensor:
        return self.conv(regions_MCBB).relu()

    def vectors(self, maps_MCBB: Tensor) -> Tensor:
        return maps_MCBB.mean(dim=(2, 3))


def tiny_detector(classes: int = 3, *, seed: int = 0, bins: int = 7, samples: int = 32, **options: Any) -> FasterRCNN:
    """A detector at stride 8; `options` go to the box head."""
    torch.manual_seed(seed)
    grid = AnchorGrid(scales=(16, 32, 64), stride=STRIDE)
    rpn = RPN(
        RPNHead(32, grid.per_cell),
        [grid],
        samples=64,
        train_limits=ProposalLimits(before_nms=200, after_nms=50),
        test_limits=ProposalLimits(before_nms=200, after_nms=30),
    )
    return FasterRCNN(
        body=SingleMap(TinyTrunk(), 32, STRIDE),
        rpn=rpn,
        box_head=BoxHead(
            RoIAlign(bins, STRIDE),
            TinyHead(),
            BoxPredictor(128 if options.get("context") else 64, classes),
            samples=samples,
            **options,
        ),
    )


def make_targets(
    boxes: list[list[list[float]]],
    labels: list[list[int]],
    places: int = 16,
    ignore: list[list[bool]] | None = None,
) -> Targets:
    """Targets of the given boxes in `places` places an image; crowds are what is to be ignored."""
    shape = (len(boxes), places)
    boxes_NG4, labels_NG = torch.zeros(*shape, 4), torch.zeros(shape, dtype=torch.int64)
    valid_NG, ignore_NG = torch.zeros(shape, dtype=torch.bool), torch.zeros(shape, dtype=torch.bool)
    for n, (image_boxes, image_labels) in enumerate(zip(boxes, labels)):
        count = len(image_boxes)
        boxes_NG4[n, :count] = torch.tensor(image_boxes).reshape(-1, 4)
        labels_NG[n, :count] = torch.tensor(image_labels, dtype=torch.int64)
        valid_NG[n, :count] = True
        if ignore is not None:
            ignore_NG[n, :count] = torch.tensor(ignore[n], dtype=torch.bool)
    return Targets(
        boxes_NG4=boxes_NG4,
        labels_NG=labels_NG,
        valid_NG=valid_NG,
        crowd_NG=ignore_NG,
        difficult_NG=torch.zeros_like(ignore_NG),
        ignore_NG=ignore_NG,
        draw_seeds_N=torch.arange(len(boxes)) * 7919 + 12345678901234567,
        image_ids=tuple(range(len(boxes))),
        original_sizes_hw=((96, 96),) * len(boxes),
    )


def make_images(pixels_N3HW: Tensor, sizes_hw: tuple[tuple[int, int], ...]) -> ImageBatch:
    return ImageBatch(pixels_N3HW, torch.tensor(sizes_hw).reshape(-1, 2), tuple(sizes_hw))


def part_of(images: ImageBatch, targets: Targets, part: slice) -> tuple[ImageBatch, Targets]:
    """Some images of a batch and their truth."""

    def cut(structure: Any) -> Any:
        fields = vars(structure).items()
        return replace(structure, **{k: v[part] for k, v in fields if isinstance(v, Tensor | tuple)})

    return cut(images), cut(targets)


def squares(
    images: int, *, seed: int = 0, canvas: int = 96, sizes_hw: tuple[tuple[int, int], ...] | None = None
) -> tuple[ImageBatch, Targets]:
    """One to three coloured squares an image on noise; the colour is the class."""
    generator = torch.Generator().manual_seed(seed)
    sizes_hw = sizes_hw or ((canvas, canvas),) * images
    pixels = 114 + 15 * torch.randn(images, 3, canvas, canvas, generator=generator)
    boxes: list[list[list[float]]] = []
    labels: list[list[int]] = []
    for n, (height, width) in enumerate(sizes_hw):
        count = int(torch.randint(1, 4, (), generator=generator))
        boxes.append([])
        labels.append([])
        for _ in range(count):
            side = int(torch.randint(14, 45, (), generator=generator))
            x = int(torch.randint(0, width - side + 1, (), generator=generator))
            y = int(torch.randint(0, height - side + 1, (), generator=generator))
            label = int(torch.randint(1, 4, (), generator=generator))
            pixels[n, :, y : y + side, x : x + side] = COLOURS[label - 1][:, None, None]
            boxes[-1].append([x, y, x + side, y + side])
            labels[-1].append(label)
    return make_images(pixels.clamp(0, 255).to(torch.uint8), sizes_hw), make_targets(boxes, labels)
