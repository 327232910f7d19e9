"""3x3 convolutions of large maps in float32 on a CPU, by a quarter of the products (Lavin & Gray 2016, F(4x4, 3x3)).

A tile of 4x4 outputs reads 6x6 inputs. Both, and the weight, are seen as polynomials, of which a convolution is the
product, and which are multiplied by their values at six points: 36 products a tile instead of 144, each a product of
matrices over all tiles. The gradients are of the same form. Beside oneDNN's direct convolutions on AVX2 and channels
last (two maps of 80x120, 256 channels, one thread) the output takes 0.6 of the time, the weight's gradient 0.2.

Legend: N images, H W map, C channels in, K out, P = 36 places in a transformed tile, T tiles, X the tiles of a piece.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import cache
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.utils._python_dispatch import is_in_torch_dispatch_mode

OUTPUTS, INPUTS = 4, 6  # a side of a tile
# With -2 beside 1/2 the transforms round less than with the usual pairs (2, -2): 2e-6 of the largest value, 8e-7 where
# products are direct.
POINTS = (0.0, 1.0, -1.0, 0.5, -2.0)  # and infinity
LEAST_CHANNELS = 256  # below, the transforms cost what the products save ...
LEAST_TILES = 128  # ... or reading the weight does, which has four times as many values
PIECE_VALUES = 2**21  # of a transformed piece of the map, 8 MB: about what caches hold


class WinogradConv2d(nn.Conv2d):
    """A 3x3 convolution that takes this way where it is the faster one."""

    def _conv_forward(self, x_NCHW: Tensor, weight_KC33: Tensor, bias_K: Tensor | None) -> Tensor:
        if _is_faster(x_NCHW, weight_KC33):
            return _Winograd.apply(x_NCHW, weight_KC33, bias_K)  # type: ignore[no-any-return]
        return super()._conv_forward(x_NCHW, weight_KC33, bias_K)


def use_winograd(module: nn.Module) -> None:
    """Let all 3x3 convolutions in `module` that are wide enough take this way; names and parameters stay."""
    for part in module.modules():
        if type(part) is nn.Conv2d and _is_eligible(part):
            part.__class__ = WinogradConv2d


def _is_eligible(conv: nn.Conv2d) -> bool:
    geometry = (conv.kernel_size, conv.stride, conv.padding, conv.dilation, conv.groups, conv.padding_mode)
    is_plain = geometry == ((3, 3), (1, 1), (1, 1), (1, 1), 1, "zeros")
    return is_plain and min(conv.in_channels, conv.out_channels) >= LEAST_CHANNELS


def _is_faster(x_NCHW: Tensor, weight_KC33: Tensor) -> bool:
    if x_NCHW.device.type != "cpu" or x_NCHW.dtype != torch.float32 or weight_KC33.dtype != torch.float32:
        return False
    if torch.is_autocast_enabled("cpu") or is_watched():
        return False
    images, _, height, width = x_NCHW.shape
    return images * _tiles_along(height) * _tiles_along(width) >= LEAST_TILES


def is_watched() -> bool:
    """Tell whether someone compiles, exports or counts, who wants to see a convolution."""
    return torch.compiler.is_compiling() or is_in_torch_dispatch_mode()


class _Winograd(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x_NCHW: Tensor, weight_KC33: Tensor, bias_K: Tensor | None) -> Tensor:  # type: ignore[override]
        ctx.save_for_backward(x_NCHW, weight_KC33)
        return _convolve(x_NCHW, weight_KC33, bias_K)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad_NKHW: Tensor) -> tuple[Tensor | None, Tensor | None, Tensor | None]:  # type: ignore[override]
        x_NCHW, weight_KC33 = ctx.saved_tensors
        needs_x, needs_weight, needs_bias = ctx.needs_input_grad
        turned_CK33 = weight_KC33.flip(2, 3).transpose(0, 1)
        return (
            _convolve(grad_NKHW, turned_CK33, None) if needs_x else None,
            _weight_gradient(x_NCHW, grad_NKHW) if needs_weight else None,
            grad_NKHW.sum((0, 2, 3)) if needs_bias else None,
        )


def _convolve(x_NCHW: Tensor, weight_KC33: Tensor, bias_K: Tensor | None) -> Tensor:
    """The convolution, channels last."""
    of_inputs_PP, of_weight_P9, to_outputs = _transforms(x_NCHW.dtype)
    images, channels, height, width = x_NCHW.shape
    outputs = len(weight_KC33)
    weight_PCK = (of_weight_P9 @ weight_KC33.permute(2, 3, 1, 0).reshape(9, -1)).view(-1, channels, outputs)
    size = images, outputs, height, width
    y_NKHW = torch.empty(size, dtype=x_NCHW.dtype, memory_format=torch.channels_last)
    for n, rows, tiles in _pieces(x_NCHW, weight_PCK.shape[0] * max(channels, outputs)):
        count, down, across = tiles.shape[2:5]
        tiles_PXC = (of_inputs_PP @ tiles.reshape(INPUTS**2, -1)).view(INPUTS**2, -1, channels)
        values = to_outputs @ torch.bmm(tiles_PXC, weight_PCK).view(INPUTS**2, -1)
        piece = values.view(OUTPUTS, OUTPUTS, count, down, across, outputs).permute(2, 3, 0, 4, 1, 5)
        place = y_NKHW.permute(0, 2, 3, 1)[n, rows]
        piece = piece.reshape(count, OUTPUTS * down, OUTPUTS * across, outputs)[:, : place.shape[1], :width]
        if bias_K is None:
            place.copy_(piece)
        else:
            torch.add(piece, bias_K, out=place)
    return y_NKHW


def _weight_gradient(x_NCHW: Tensor, grad_NKHW: Tensor) -> Tensor:
    """The gradient of the weight, K x C x 3 x 3: the transposes of what the forward pass does to it."""
    of_inputs_PP, of_weight_P9, to_outputs = _transforms(x_NCHW.dtype)
    channels, outputs = x_NCHW.shape[1], grad_NKHW.shape[1]
    grad_PCK = x_NCHW.new_zeros(INPUTS**2, channels, outputs)
    values = INPUTS**2 * max(channels, outputs)
    for (_, _, x_tiles), (_, _, grad_tiles) in zip(_pieces(x_NCHW, values), _pieces(grad_NKHW, values, OUTPUTS)):
        x_PXC = (of_inputs_PP @ x_tiles.reshape(INPUTS**2, -1)).view(INPUTS**2, -1, channels)
        grad_PXK = (to_outputs.t() @ grad_tiles.reshape(OUTPUTS**2, -1)).view(INPUTS**2, -1, outputs)
        grad_PCK.baddbmm_(x_PXC.transpose(1, 2), grad_PXK)
    return (of_weight_P9.t() @ grad_PCK.view(INPUTS**2, -1)).view(3, 3, channels, outputs).permute(3, 2, 0, 1)


def _pieces(x_NCHW: Tensor, values: int, side: int = INPUTS) -> Iterator[tuple[slice, slice, Tensor]]:
    """Which images and rows a piece of the map covers, and its tiles of `side`, side x side x images x down x across x
    C. values: of a transformed tile."""
    height, width = x_NCHW.shape[2:]
    down, across = _tiles_along(height), _tiles_along(width)
    before = (side - OUTPUTS) // 2
    beyond = OUTPUTS * across - width + before, OUTPUTS * down - height + before
    padded_NHWC = F.pad(x_NCHW.permute(0, 2, 3, 1), (0, 0, before, beyond[0], before, beyond[1]))
    tiles = padded_NHWC.unfold(1, side, OUTPUTS).unfold(2, side, OUTPUTS).permute(4, 5, 0, 1, 2, 3)
    most = max(1, PIECE_VALUES // values)
    images, rows = max(1, most // (down * across)), min(down, max(1, most // across))
    for n in range(0, len(x_NCHW), images):
        for row in range(0, down, rows):
            covered = slice(n, n + images), slice(OUTPUTS * row, min(OUTPUTS * (row + rows), height))
            yield *covered, tiles[:, :, n : n + images, row : row + rows]


def _tiles_along(length: int) -> int:
    return -(-length // OUTPUTS)


@cache
def _transforms(dtype: torch.dtype) -> tuple[Tensor, Tensor, Tensor]:
    """What makes the values P of a tile's inputs, 36 x 36, of a weight, 36 x 9, and the outputs of these, 16 x 36.

    Toom and Cook: row i of the weight's is (1, p, p^2) at point i, over the product of p's distances to the other
    points; that of the inputs' holds the coefficients of the polynomial whose zeros those other points are.
    """
    points = torch.tensor(POINTS, dtype=torch.float64)
    distance = (points[:, None] - points).fill_diagonal_(1).prod(dim=1)
    infinity = torch.eye(INPUTS, dtype=torch.float64)[-1]
    weight = torch.cat([points[:, None] ** torch.arange(3) / distance[:, None], infinity[None, -3:]])
    inputs = torch.stack([_coefficients(torch.cat([points[:i], points[i + 1 :]])) for i in range(len(POINTS))])
    inputs = torch.stack([*F.pad(inputs, (0, 1)), _coefficients(points)])
    outputs = torch.cat([points ** torch.arange(OUTPUTS)[:, None], infinity[-OUTPUTS:, None]], dim=1)
    return tuple(torch.kron(one, one).to(dtype) for one in (inputs, weight, outputs))  # type: ignore[return-value]


def _coefficients(zeros: Tensor) -> Tensor:
    """Of the polynomial (x - z) ..., the constant first."""
    found = zeros.new_ones(1)
    for zero in zeros:
        found = F.pad(found, (1, 0)) - zero * F.pad(found, (0, 1))
    return found
