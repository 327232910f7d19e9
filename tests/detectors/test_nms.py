"""Suppression to a fixed number against torchvision's functions."""

from __future__ import annotations

import pytest
import torch
from torchvision import ops

from detectors.nms import nms, nms_by_class
from tests.detectors.test_boxes import random_boxes


def scores_of(count: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(count, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("count", [1, 10, 60, 1000])
def test_it_keeps_what_torchvision_keeps_first(count: int) -> None:
    boxes, scores = random_boxes(400, canvas=100), scores_of(400)
    expected = ops.nms(boxes, scores, 0.5)
    index, valid = nms(boxes, scores, 0.5, count)
    assert index.shape == valid.shape == (count,)
    assert torch.equal(index[valid], expected[:count])
    assert valid.sum() == min(count, len(expected))


def test_candidates_at_minus_infinity_neither_count_nor_suppress() -> None:
    boxes = torch.tensor([[0.0, 0, 10, 10]] * 3 + [[20.0, 20, 30, 30]])
    scores = torch.tensor([float("-inf"), 1.0, float("-inf"), 0.5])
    index, valid = nms(boxes, scores, 0.5, 3)
    assert index[valid].tolist() == [1, 3]
    many = random_boxes(50, canvas=1000)
    index, valid = nms(many, torch.where(torch.arange(50) < 45, float("-inf"), 1.0), 0.5, 5)
    assert index[valid].tolist() == [45, 46, 47, 48, 49]


@pytest.mark.parametrize("classes", [1, 3, 80])
def test_by_class_it_keeps_what_torchvisions_batched_version_keeps(classes: int) -> None:
    boxes, scores = random_boxes(300, canvas=60).clamp(max=60), scores_of(300)
    labels = torch.randint(0, classes, (300,), generator=torch.Generator().manual_seed(1))
    expected = ops.boxes._batched_nms_vanilla(boxes, scores, labels, 0.4)
    index, valid = nms_by_class(boxes, scores, labels, iou=0.4, count=300, classes=classes, extent_px=60)
    assert torch.equal(index[valid], expected)
