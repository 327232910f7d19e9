"""Small detectors that are not trained but sure of themselves, and the arithmetic on boxes once more, box by box."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor

from detectors.faster_rcnn import FasterRCNN
from detectors.mask_head import MaskHead
from detectors.structures import ImageBatch
from tests.detectors.tiny import make_images, tiny_detector

SIZES_HW = ((96, 96), (70, 90))
CLASSES = 3
Box = list[float]


def opinionated(seed: int = 0, *, masks: bool = False, **options: Any) -> FasterRCNN:
    """A detector with random weights of a size at which scores and boxes differ much from region to region."""
    detector = tiny_detector(CLASSES, seed=seed, **options)
    if masks:
        detector.mask_head = MaskHead(64, CLASSES, channels=8, convs=0)
    with torch.no_grad():
        detector.box_head.predictor.scores.weight.mul_(150)
        detector.box_head.predictor.deltas.weight.mul_(1500)
    return detector.eval()


def pictures(seed: int = 0, sizes_hw: tuple[tuple[int, int], ...] = SIZES_HW, canvas: int = 96) -> ImageBatch:
    generator = torch.Generator().manual_seed(seed)
    coarse = torch.randint(0, 256, (len(sizes_hw), 3, canvas // 8, canvas // 8), generator=generator).float()
    pixels = torch.nn.functional.interpolate(coarse, size=(canvas, canvas), mode="nearest")
    return make_images(pixels.to(torch.uint8), sizes_hw)


def iou(one: Box, other: Box) -> float:
    width = min(one[2], other[2]) - max(one[0], other[0])
    height = min(one[3], other[3]) - max(one[1], other[1])
    shared = max(width, 0.0) * max(height, 0.0)
    areas = [(box[2] - box[0]) * (box[3] - box[1]) for box in (one, other)]
    return shared / (sum(areas) - shared) if shared else 0.0


def moved(box: Box, delta: list[float], size_hw: tuple[int, int]) -> Box:
    """The box that a delta of the paper's normalisation makes of another, cut at the border of its image."""
    width, height = box[2] - box[0], box[3] - box[1]
    x = (box[0] + box[2]) / 2 + delta[0] / 10 * width
    y = (box[1] + box[3]) / 2 + delta[1] / 10 * height
    width *= math.exp(min(delta[2] / 5, math.log(1000 / 16)))
    height *= math.exp(min(delta[3] / 5, math.log(1000 / 16)))
    corners = [x - width / 2, y - height / 2, x + width / 2, y + height / 2]
    return [min(max(value, 0.0), float(limit)) for value, limit in zip(corners, [*size_hw[::-1], *size_hw[::-1]])]


def answer(detector: FasterRCNN, images: ImageBatch, n: int, box: Box) -> tuple[list[float], list[Box]]:
    """One detector's probabilities, background first, and boxes by class of one region of image `n`."""
    maps = [level[n : n + 1] for level in detector.body(images.pixels_N3HW, images.sizes_hw_N2)]
    region = torch.tensor([[box]])
    head = detector.box_head
    vectors = head.head.vectors(head.head.maps(head.pool(maps, region)))
    logits, deltas = head.predictor(vectors)
    size_hw = images.sizes_hw[n]
    return softmax(logits[0]), [moved(box, delta, size_hw) for delta in deltas[0].tolist()]


def softmax(logits_K: Tensor) -> list[float]:
    values = [math.exp(value) for value in (logits_K - logits_K.max()).tolist()]
    return [value / sum(values) for value in values]


def suppressed(found: list[tuple[float, Box]], limit: float) -> list[tuple[float, Box]]:
    """Greedy non-maximum suppression of (score, box) of one class."""
    kept: list[tuple[float, Box]] = []
    for score, box in sorted(found, key=lambda one: -one[0]):
        if all(iou(box, other) <= limit for _, other in kept):
            kept.append((score, box))
    return kept
