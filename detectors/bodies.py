"""Bodies of a detector: one map of a cut backbone (C4), a dilated last stage (DC5), or a pyramid (FPN).

A body turns pixels into a tuple of maps, finest first; its `strides` are the pixels that one step on each spans.

Legend: N images, C channels, H W map; L levels.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch.nn.functional as F
from torch import Tensor, nn

MakeNorm = Callable[[int], nn.Module]  # channels -> a norm over them

PYRAMID_STRIDES = (4, 8, 16, 32)
NORM_GROUPS = 32  # Wu & He 2018, §4.1


class SingleMap(nn.Module):
    """One map, that of a trunk: (pixels N3HW, sizes N2) -> NCHW."""

    def __init__(self, trunk: nn.Module, channels: int, stride: int) -> None:
        super().__init__()
        self.trunk = trunk
        self.channels, self.strides = channels, (stride,)

    def forward(self, pixels_N3HW: Tensor, sizes_hw_N2: Tensor) -> tuple[Tensor, ...]:
        return (self.trunk(pixels_N3HW, sizes_hw_N2),)


class FeaturePyramid(nn.Module):
    """Feature pyramid network (Lin et al. 2017, §3): every level as rich in meaning as the coarsest.

    trunk: (pixels, sizes) -> maps, finest first; in_channels, strides: of these. A 1x1 layer brings each map to
    `channels`, the next coarser level is added at twice its size (nearest), a 3x3 layer follows. A last level, for
    anchors of 512 px only, is the coarsest at every second cell (footnote 2). make_norm: after each layer, which then
    has no bias; None: as in the paper, none.

    A level that the trunk has no map for is made from the next coarser map, or else from the coarsest, by `rescaled`. A
    trunk of a single map (a plain ViT) thus has the simple pyramid of Li et al. 2022, §3, which adds no levels up.
    """

    def __init__(
        self,
        trunk: nn.Module,
        in_channels: Sequence[int],
        strides: Sequence[int],
        *,
        channels: int = 256,
        make_norm: MakeNorm | None = None,
    ) -> None:
        super().__init__()
        if any(stride not in PYRAMID_STRIDES for stride in strides):
            raise ValueError(f"A pyramid is made of maps at strides {PYRAMID_STRIDES}, not at {tuple(strides)}.")
        self.trunk = trunk
        self.channels, self.strides = channels, (*PYRAMID_STRIDES, 2 * PYRAMID_STRIDES[-1])
        self.sources = [next((i for i, s in enumerate(strides) if s >= level), -1) for level in PYRAMID_STRIDES]
        made = [rescaled(in_channels[i], strides[i], level) for i, level in zip(self.sources, PYRAMID_STRIDES)]
        self.rescaled = nn.ModuleList(module for module, _ in made)
        self.laterals = nn.ModuleList(conv_layer(count, channels, 1, make_norm) for _, count in made)
        self.outputs = nn.ModuleList(conv_layer(channels, channels, 3, make_norm) for _ in made)
        self.adds_up = len(strides) > 1

    def forward(self, pixels_N3HW: Tensor, sizes_hw_N2: Tensor) -> tuple[Tensor, ...]:
        maps = self.trunk(pixels_N3HW, sizes_hw_N2)
        sides = [lateral(x(maps[i])) for lateral, x, i in zip(self.laterals, self.rescaled, self.sources)]
        merged = sides[-1]
        levels = [self.outputs[-1](merged)]
        for side, output in zip(sides[-2::-1], list(self.outputs)[-2::-1]):
            merged = side + F.interpolate(merged, size=side.shape[-2:], mode="nearest") if self.adds_up else side
            levels.insert(0, output(merged))
        return (*levels, F.max_pool2d(levels[-1], kernel_size=1, stride=2))


def rescaled(channels: int, stride: int, wanted: int) -> tuple[nn.Module, int]:
    """A map at another stride, and its channels: pooled, or by deconvolutions that halve them (Li et al. 2022, §3)."""
    if wanted >= stride:
        return (nn.MaxPool2d(wanted // stride, ceil_mode=True) if wanted > stride else nn.Identity()), channels
    layers: list[nn.Module] = []
    while stride > wanted:
        if layers:
            layers += [ChannelNorm(channels), nn.GELU()]
        layers.append(nn.ConvTranspose2d(channels, channels // 2, kernel_size=2, stride=2))
        channels, stride = channels // 2, stride // 2
    return nn.Sequential(*layers), channels


class ChannelNorm(nn.LayerNorm):
    """Layer norm over the channels of each place."""

    def forward(self, x_NCHW: Tensor) -> Tensor:
        return super().forward(x_NCHW.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)


def conv_layer(
    inputs: int, outputs: int, size: int, make_norm: MakeNorm | None, *, relu: bool = False
) -> nn.Sequential:
    """A convolution that keeps the map's size, its norm if there is one, and a ReLU if asked for.

    Initialised as detectron2 and torchvision do: uniform of variance 1 / inputs without ReLU (Caffe's "Xavier"), He's
    normal distribution with it.
    """
    conv = nn.Conv2d(inputs, outputs, size, padding=size // 2, bias=make_norm is None)
    if relu:
        nn.init.kaiming_normal_(conv.weight, mode="fan_out", nonlinearity="relu")
    else:
        nn.init.kaiming_uniform_(conv.weight, a=1)
    layers: list[nn.Module] = [conv]
    if conv.bias is not None:
        nn.init.zeros_(conv.bias)
    if make_norm is not None:
        layers.append(make_norm(outputs))
    if relu:
        layers.append(nn.ReLU(inplace=True))
    return nn.Sequential(*layers)


def group_norm(channels: int) -> nn.GroupNorm:
    """Statistics of each image by itself, so that they do not depend on how few images a device holds."""
    groups = next(count for count in range(min(NORM_GROUPS, channels), 0, -1) if channels % count == 0)
    return nn.GroupNorm(groups, channels)
