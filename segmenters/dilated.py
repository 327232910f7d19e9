"""3x3 convolutions of wide maps at large dilations on a CPU, tap by tap.

Where a map has a thousand channels or more, oneDNN's direct convolutions no longer find in the caches what taps far
apart read, and they multiply the padding too, which at DeepLab's rates is most of what the outer taps see. Each of the
nine taps is a product of matrices over the places that it reads inside the map. On AMX in bf16 (one map of 60x60, 2048
channels to 256, dilations 12, 24 and 36, one thread) an output takes a fifth to a twenty-fifth of the time.

Legend: N images, H W map, C channels in, K out, R the places that a tap reads.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import product
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from backbones.winograd import is_watched

LEAST_CHANNELS = 1024  # below, direct convolutions are the faster ones


class DilatedConv2d(nn.Conv2d):
    """A dilated 3x3 convolution that keeps the map's size, and takes this way where it is the faster one."""

    def _conv_forward(self, x_NCHW: Tensor, weight_KC33: Tensor, bias_K: Tensor | None) -> Tensor:
        if x_NCHW.device.type != "cpu" or self.in_channels < LEAST_CHANNELS or is_watched():
            return super()._conv_forward(x_NCHW, weight_KC33, bias_K)
        if torch.is_autocast_enabled("cpu"):
            dtype = torch.get_autocast_dtype("cpu")
            x_NCHW, weight_KC33 = x_NCHW.to(dtype), weight_KC33.to(dtype)
        y_NKHW = _Taps.apply(x_NCHW, weight_KC33, self.dilation[0])
        return y_NKHW if bias_K is None else y_NKHW + bias_K.to(y_NKHW.dtype).view(-1, 1, 1)  # type: ignore[no-any-return]


class _Taps(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x_NCHW: Tensor, weight_KC33: Tensor, dilation: int) -> Tensor:  # type: ignore[override]
        ctx.save_for_backward(x_NCHW, weight_KC33)
        ctx.dilation = dilation
        images, _, height, width = x_NCHW.shape
        size, precise = (images, len(weight_KC33), height, width), torch.promote_types(x_NCHW.dtype, torch.float32)
        # Not a view, so that what follows may change it in place.
        y_NKHW = torch.empty(size, dtype=precise, memory_format=torch.channels_last).zero_()
        x_NHWC, y_NHWK = x_NCHW.permute(0, 2, 3, 1), y_NKHW.permute(0, 2, 3, 1)
        for tap, read, written in _taps(x_NCHW.shape[2:], dilation):
            place = y_NHWK[written]
            place += (x_NHWC[read].flatten(0, 2) @ weight_KC33[tap].t()).view(place.shape)
        return y_NKHW.to(x_NCHW.dtype)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad_NKHW: Tensor) -> tuple[Tensor | None, Tensor | None, None]:  # type: ignore[override]
        x_NCHW, weight_KC33 = ctx.saved_tensors
        x_NHWC, grad_NHWK = x_NCHW.permute(0, 2, 3, 1), grad_NKHW.permute(0, 2, 3, 1)
        x_grad_NHWC = torch.zeros_like(x_NHWC) if ctx.needs_input_grad[0] else None
        weight_grad_KC33 = torch.zeros_like(weight_KC33)
        for tap, read, written in _taps(x_NCHW.shape[2:], ctx.dilation):
            grad_RK = grad_NHWK[written].flatten(0, 2)
            weight_grad_KC33[tap] = grad_RK.t() @ x_NHWC[read].flatten(0, 2)
            if x_grad_NHWC is not None:
                place = x_grad_NHWC[read]
                place += (grad_RK @ weight_KC33[tap]).view(place.shape)
        return None if x_grad_NHWC is None else x_grad_NHWC.permute(0, 3, 1, 2), weight_grad_KC33, None


def _taps(size_hw: torch.Size, dilation: int) -> Iterator[tuple[Any, Any, Any]]:
    """Yield where each tap lies in KC33, and where in NHWC the places that it reads and those that it adds to; taps
    that read padding alone are left out."""
    for row, column in product(range(3), repeat=2):
        shifts = (row - 1) * dilation, (column - 1) * dilation
        if all(abs(shift) < side for shift, side in zip(shifts, size_hw)):
            read, written = (
                [slice(max(0, sign * shift), side - max(0, -sign * shift)) for shift, side in zip(shifts, size_hw)]
                for sign in (1, -1)
            )
            yield (..., row, column), (slice(None), *read), (slice(None), *written)
