"""The 3x3 layers of a network are all there, in order, each with the module that gives its response."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from backbones import create_backbone


# 6n+2 layers: all but the classifier; a basic block has two, a bottleneck one; VGG: all convolutions.
@pytest.mark.parametrize(
    ("name", "count"),
    [
        ("cifar_r20", 19),
        ("cifar_plain56", 55),
        ("r18", 16),
        ("plain34", 32),
        ("r50", 16),
        ("vgg16", 13),
        ("vgg16_bn", 13),
    ],
)
def test_as_many_as_the_network_has(name, count):
    with torch.device("meta"):
        assert len(create_backbone(name, num_classes=10).three_by_three()) == count


@pytest.mark.parametrize(
    ("name", "kind"), [("cifar_r8", nn.BatchNorm2d), ("vgg11", nn.Conv2d), ("vgg11_bn", nn.BatchNorm2d)]
)
def test_they_run_in_this_order(name, kind):
    net = create_backbone(name, num_classes=10, width=0.25).eval()
    layers, called = net.three_by_three(), []
    for layer, module in layers.items():
        assert type(module) is kind
        module.register_forward_hook(lambda *_args, layer=layer: called.append(layer))
    with torch.no_grad():
        net(torch.zeros(1, 3, 32, 32))
    assert called == list(layers)
