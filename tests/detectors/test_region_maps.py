"""Regions read by 1x1 layers before they are pooled: the same to rounding, with less work."""

from __future__ import annotations

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from backbones import create_backbone
from backbones.norms import freeze_norms
from detectors import pooling
from detectors.box_head import BoxHead, BoxPredictor
from detectors.pooling import RoIAlign
from tests.detectors.test_boxes import random_boxes


def box_head(norms: str, name: str = "r50", **options: str) -> BoxHead:
    torch.manual_seed(0)
    backbone = create_backbone(name, num_classes=10, width=0.25, **options)
    for part in backbone.modules():
        if isinstance(part, torch.nn.BatchNorm2d):
            part.running_mean.uniform_(-0.1, 0.1)
            part.bias.data.uniform_(-0.5, 0.5)
    if norms == "frozen":
        freeze_norms(backbone)
    head = backbone.cut(16).head
    return BoxHead(RoIAlign(14, 16), head, BoxPredictor(head.out_channels, 3)).double().train(norms != "evaluated")


def pooled_first(box_head: BoxHead, features: torch.Tensor, boxes: torch.Tensor) -> torch.Tensor:
    return box_head.head.maps(box_head.pool((features,), boxes))


def read(box_head: BoxHead, *, before: bool) -> tuple[torch.Tensor, list[torch.Tensor]]:
    """The maps of regions, some of them half outside the map, and their gradients."""
    generator = torch.Generator().manual_seed(1)
    shape = (2, box_head.head.in_channels, 6, 8)
    features = torch.randn(shape, generator=generator, dtype=torch.float64).requires_grad_()
    boxes = random_boxes(2, 20, seed=1, canvas=160)
    maps = box_head.region_maps((features,), boxes) if before else pooled_first(box_head, features, boxes)
    wanted = [features, *(one for one in box_head.head.parameters() if one.requires_grad)]
    weight = torch.randn(maps.shape, generator=generator, dtype=torch.float64)
    return maps, list(torch.autograd.grad((maps * weight).sum(), wanted))


@pytest.mark.parametrize("norms", ["evaluated", "trained", "frozen"])
@pytest.mark.parametrize("stride_in", ["1x1", "3x3"])
def test_values_and_gradients_are_those_of_pooling_first(norms, stride_in):
    (maps, grads), (expected, expected_grads) = (
        read(box_head(norms, stride_in=stride_in), before=before) for before in (True, False)
    )
    assert torch.allclose(maps, expected, rtol=0, atol=1e-10)
    assert all(torch.allclose(a, b, rtol=1e-9, atol=1e-9) for a, b in zip(grads, expected_grads, strict=True))
    assert not torch.equal(maps, expected)  # another order of the same sums


def test_a_layer_with_more_channels_is_not_left_to_the_kernel_alone(monkeypatch):
    head = box_head("evaluated")
    features, boxes = torch.randn(1, head.head.in_channels, 6, 8).double(), random_boxes(1, 5, seed=1, canvas=100)
    monkeypatch.setattr(pooling, "MOST_PARTIAL_VALUES", 5 * 14 * 8 * head.head.in_channels)  # just so many
    monkeypatch.setattr(RoIAlign, "_by_kernel", lambda *_: pytest.fail("pooled by the kernel"))
    assert head.region_maps((features,), boxes).shape[0] == 5


def test_who_counts_sees_the_network_as_it_is_known():
    head = box_head("evaluated")
    features, boxes = torch.randn(1, head.head.in_channels, 6, 8).double(), random_boxes(1, 5, seed=1, canvas=100)
    with FlopCounterMode(display=False) as counter:
        head.region_maps((features,), boxes)
    counted = counter.get_total_flops()
    with FlopCounterMode(display=False) as counter:
        pooled_first(head, features, boxes)
    assert counted == counter.get_total_flops() > 0


@pytest.mark.parametrize("name, options", [("r18", {}), ("r50", {"shortcut": "A"}), ("vgg11_bn", {}), ("r50", {})])
def test_what_reads_a_region_otherwise_or_by_a_kernel_has_it_pooled_first(name, options):
    head = box_head("evaluated", name, **options)
    assert head.head.reads_by_1x1 == ((name, options) == ("r50", {}))
    head.pool.bins, head.pool.by_kernel = head.head.roi_size, head.head.reads_by_1x1
    features = torch.randn(1, head.head.in_channels, 6, 8, dtype=torch.float64)
    boxes = random_boxes(1, 5, seed=1, canvas=100)
    assert torch.equal(head.region_maps((features,), boxes), pooled_first(head, features, boxes))
