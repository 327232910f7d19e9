"""Dilated convolutions tap by tap equal torch's own, forward and backward, at every size beside the dilation."""

import copy

import pytest
import torch
from torch import nn

from segmenters import dilated
from segmenters.dilated import DilatedConv2d


@pytest.fixture(autouse=True)
def narrow(monkeypatch):
    monkeypatch.setattr(dilated, "LEAST_CHANNELS", 3)


def pair(dilation, **options):
    torch.manual_seed(0)
    direct = nn.Conv2d(3, 5, 3, padding=dilation, dilation=dilation, **options)
    ours = DilatedConv2d(3, 5, 3, padding=dilation, dilation=dilation, **options)
    ours.load_state_dict(direct.state_dict())
    return direct, ours


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("dilation", [2, 6, 9, 30])  # 9 and 30 leave outer taps nothing, or one side of the map
@pytest.mark.parametrize("size", [(12, 9), (7, 31)])
def test_output_and_gradients_are_those_of_a_convolution(dilation, size, bias):
    direct, ours = pair(dilation, bias=bias)
    x = torch.randn(2, 3, *size).to(memory_format=torch.channels_last)
    upstream = torch.randn(2, 5, *size)
    found = []
    for conv in (direct, ours):
        own = x.clone().requires_grad_()
        y = torch.relu_(conv(own))  # in place, as after a folded norm
        y.backward(upstream)
        found.append([y, own.grad, *(parameter.grad for parameter in conv.parameters())])
    for wanted, mine in zip(*found):
        torch.testing.assert_close(mine, wanted, atol=1e-5, rtol=1e-5)
    assert found[1][0].is_contiguous(memory_format=torch.channels_last)


def test_in_bf16_it_is_as_near_to_the_exact_one_as_torchs_is():
    direct, ours = pair(3, bias=False)
    exact = copy.deepcopy(direct).double()
    x = torch.randn(2, 3, 16, 16)
    errors = []
    for conv in (direct, ours):
        own = x.clone().requires_grad_()
        with torch.autocast("cpu", dtype=torch.bfloat16):
            y = conv(own)
        assert y.dtype == torch.bfloat16
        y.float().square().sum().backward()
        assert own.grad.dtype == conv.weight.grad.dtype == torch.float32
        errors.append((y - exact(x.double())).abs().max())
    assert errors[1] < 2 * errors[0]


def test_who_exports_sees_a_convolution():
    _, ours = pair(6)
    program = torch.export.export(ours, (torch.zeros(1, 3, 16, 16),))
    assert any(node.target is torch.ops.aten.conv2d.default for node in program.graph.nodes)
