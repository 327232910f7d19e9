"""Depthwise convolutions of outside networks: their gradients are float32's where autocast has bf16."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from backbones import create_backbone
from backbones.depthwise import learn_in_float32


def trained(net: nn.Module, dtype: torch.dtype | None) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
    x = torch.randn(2, 8, 9, 11, generator=torch.Generator().manual_seed(0))
    net.zero_grad()
    with torch.autocast("cpu", dtype or torch.bfloat16, enabled=dtype is not None):
        y = net(x)
    y.float().square().sum().backward()
    return y, {name: parameter.grad.clone() for name, parameter in net.named_parameters()}


@pytest.mark.parametrize("kind", [nn.Conv2d, "timm"])
def test_outputs_are_autocasts_and_gradients_as_good_as_float32s(kind):
    if kind == "timm":
        kind = pytest.importorskip("timm.layers").Conv2dSame  # which does not call _conv_forward
    torch.manual_seed(0)
    net = kind(8, 8, 5, stride=2, groups=8)
    names = list(net.state_dict())
    _, exact = trained(net, None)
    _, before = trained(net, torch.bfloat16)
    learn_in_float32(net)
    learn_in_float32(net)
    output, after = trained(net, torch.bfloat16)
    assert isinstance(net, kind) and list(net.state_dict()) == names and output.dtype == torch.bfloat16
    assert torch.equal(trained(net, None)[1]["weight"], exact["weight"])
    errors = [(grads["weight"] - exact["weight"]).abs().max() for grads in (after, before)]
    assert errors[0] < 0.5 * errors[1] and errors[0] < 0.01 * exact["weight"].abs().max()
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
        assert net(torch.ones(1, 8, 9, 9)).dtype == torch.bfloat16


def test_networks_from_outside_have_them_and_ordinary_convolutions_stay():
    pytest.importorskip("timm")
    net = create_backbone("timm:mobilenetv2_050")
    for part in net.modules():
        if isinstance(part, nn.Conv2d):
            assert (type(part).__name__ == "DepthwiseConv2d") == (part.groups == part.in_channels > 1)
    assert any(type(part).__name__ == "DepthwiseConv2d" for part in net.modules())
