"""Convolutions by Winograd's way equal torch's own, forward and backward, and are taken where they are the faster."""

from __future__ import annotations

import copy
from contextlib import nullcontext
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from backbones import winograd
from backbones.cost import count_flops
from backbones.winograd import WinogradConv2d, use_winograd

WIDE = winograd.LEAST_CHANNELS


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize(
    ("images", "height", "width", "piece"),
    [(1, 8, 12, 2**21), (2, 7, 9, 2**21), (3, 5, 6, 36 * 5 * 3), (2, 13, 10, 1)],
    ids=["whole tiles", "parts of tiles", "pieces of images", "pieces of rows"],
)
def test_output_and_gradients_are_those_of_a_convolution(
    images: int, height: int, width: int, piece: int, bias: bool, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(winograd, "PIECE_VALUES", piece)
    torch.manual_seed(0)
    shapes = [(images, 5, height, width), (3, 5, 3, 3), *([(3,)] if bias else [])]
    inputs = [torch.randn(shape, dtype=torch.float64, requires_grad=True) for shape in shapes]
    ours = winograd._Winograd.apply(*inputs, *([] if bias else [None]))
    theirs = F.conv2d(*inputs, padding=1)
    torch.testing.assert_close(ours, theirs)
    upstream = torch.randn_like(theirs)
    expected = torch.autograd.grad(theirs, inputs, upstream)
    for found, wanted in zip(torch.autograd.grad(ours, inputs, upstream), expected):
        torch.testing.assert_close(found, wanted)


def wide_pair(height: int = 44, width: int = 48) -> tuple[nn.Conv2d, WinogradConv2d, torch.Tensor]:
    torch.manual_seed(0)
    direct = nn.Conv2d(WIDE, WIDE, 3, padding=1)
    fast = copy.deepcopy(direct)
    use_winograd(fast)
    assert isinstance(fast, WinogradConv2d)
    return direct, fast, torch.randn(1, WIDE, height, width).to(memory_format=torch.channels_last)


def test_float32_is_rounded_little_more_than_by_a_direct_convolution():
    direct, fast, x = wide_pair()
    exact = copy.deepcopy(direct).double()
    results = []
    for conv in (direct, fast, exact):
        y = conv(x.to(conv.weight.dtype).requires_grad_())
        y.square().sum().backward()
        results.append((y, conv.weight.grad, conv.bias.grad))
    assert results[1][0].is_contiguous(memory_format=torch.channels_last)
    for by_direct, by_fast, wanted in zip(*results):
        largest = wanted.abs().max()
        assert (by_fast - wanted).abs().max() / largest < 1e-5
        assert not torch.equal(by_fast, by_direct)  # the way was taken


class Spy:
    """Counts the convolutions that go Winograd's way."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.calls, self.convolve = 0, winograd._convolve
        monkeypatch.setattr(winograd, "_convolve", self)

    def __call__(self, *args: Any) -> torch.Tensor:
        self.calls += 1
        return self.convolve(*args)


@pytest.mark.parametrize(
    ("change", "context"),
    [
        (lambda fast, x: (fast, x[:, :, :8]), nullcontext()),
        (lambda fast, x: (fast.double(), x.double()), nullcontext()),
        (lambda fast, x: (fast, x), torch.autocast("cpu", torch.bfloat16)),
        (lambda fast, x: (torch.compile(fast, backend="eager", fullgraph=True), x), nullcontext()),
        (lambda fast, x: (torch.export.export(fast, (x,)).module(), x), nullcontext()),
    ],
    ids=["small map", "float64", "autocast", "compiled", "exported"],
)
def test_a_convolution_stays_one(change: Any, context: Any, monkeypatch: pytest.MonkeyPatch):
    _, fast, x = wide_pair()
    spy = Spy(monkeypatch)
    net, pixels = change(fast, x)
    with context:
        net(pixels)
    assert spy.calls == 0
    fast.float()(x)
    assert spy.calls == 1


def test_multiply_adds_are_counted_as_those_of_convolutions():
    direct, fast, x = wide_pair()
    assert count_flops(fast, x) == count_flops(direct, x) > 0


@pytest.mark.parametrize(
    "conv",
    [
        nn.Conv2d(WIDE, WIDE, 3, padding=1, stride=2),
        nn.Conv2d(WIDE, WIDE, 3, padding=2, dilation=2),
        nn.Conv2d(WIDE, WIDE, 3, padding=1, groups=2),
        nn.Conv2d(WIDE, WIDE, 3, padding=1, padding_mode="reflect"),
        nn.Conv2d(WIDE, WIDE, 3),
        nn.Conv2d(WIDE, WIDE, 1),
        nn.Conv2d(WIDE, WIDE // 2, 3, padding=1),
    ],
    ids=["stride", "dilation", "groups", "reflection", "no padding", "1x1", "narrow"],
)
def test_other_convolutions_are_left_alone(conv: nn.Conv2d):
    use_winograd(nn.Sequential(conv))
    assert type(conv) is nn.Conv2d
