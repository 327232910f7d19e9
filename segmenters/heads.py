"""Heads that make a map of class scores from a backbone's maps, each at the stride of its finest map.

A head is called with its maps, of which it is told channels and strides; `HEADS` has their names.

Legend: N images, C channels or classes, H W map.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from backbones.chain import FeatureSpec
from backbones.norms import conv_norm
from segmenters.dilated import DilatedConv2d

WIDTH = 256  # channels inside DeepLab's heads and the pyramid
RATES = (6, 12, 18)  # of the dilated layers at output stride 16 (Chen et al. 2017, §4.1); twice that at 8


class Layer(nn.Sequential):
    """A convolution that keeps the map's size, its norm and a ReLU."""

    def __init__(self, inputs: int, outputs: int, size: int = 3, dilation: int = 1) -> None:
        make = nn.Conv2d if dilation == 1 else DilatedConv2d
        conv = make(inputs, outputs, size, padding=dilation * (size // 2), dilation=dilation, bias=False)
        nn.init.kaiming_normal_(conv.weight, mode="fan_out", nonlinearity="relu")
        super().__init__(conv, nn.BatchNorm2d(outputs))

    def forward(self, x_NCHW: Tensor) -> Tensor:
        conv, norm = self
        return conv_norm(x_NCHW, conv, norm, relu=True)  # type: ignore[arg-type]


def grouped_layer(inputs: int, outputs: int) -> nn.Sequential:
    """A 3x3 convolution, a norm over 32 groups of channels (Wu & He 2018, §4.1) and a ReLU."""
    conv = nn.Conv2d(inputs, outputs, 3, padding=1, bias=False)
    nn.init.kaiming_normal_(conv.weight, mode="fan_out", nonlinearity="relu")
    return nn.Sequential(conv, nn.GroupNorm(math.gcd(32, outputs), outputs), nn.ReLU(inplace=True))


def scores(inputs: int, classes: int) -> nn.Conv2d:
    """The last layer: a 1x1 convolution with small weights, so that all classes start about equally likely."""
    conv = nn.Conv2d(inputs, classes, 1)
    nn.init.normal_(conv.weight, std=0.01)
    nn.init.zeros_(conv.bias)  # type: ignore[arg-type]
    return conv


def resize(x_NCHW: Tensor, size_hw: Sequence[int]) -> Tensor:
    """The map at that size, bilinear, its outer edges on the other's."""
    return F.interpolate(x_NCHW, size=tuple(size_hw), mode="bilinear", align_corners=False)


class FullyConvolutional(nn.Sequential):
    """FCN-32s/16s/8s' head on one map (Long et al. 2015, §4), as torchvision has it: a 3x3 layer and scores.

    specs: of the one map. channels: of the layer; None: a quarter of the map's.
    """

    def __init__(self, specs: Sequence[FeatureSpec], classes: int, channels: int | None = None) -> None:
        inputs = specs[0].channels
        channels = channels or max(8, inputs // 4)
        super().__init__(Layer(inputs, channels), nn.Dropout(0.1), scores(channels, classes))

    def forward(self, maps: Sequence[Tensor]) -> Tensor:
        return super().forward(maps[0])


class ContextPyramid(nn.Module):
    """Atrous spatial pyramid pooling: one map read at several dilations and as a whole (Chen et al. 2017, §3.3)."""

    def __init__(self, inputs: int, rates: Sequence[int], channels: int = WIDTH) -> None:
        super().__init__()
        self.branches = nn.ModuleList([Layer(inputs, channels, 1), *(Layer(inputs, channels, 3, r) for r in rates)])
        self.whole = Layer(inputs, channels, 1)
        self.merge = nn.Sequential(Layer((len(rates) + 2) * channels, channels, 1), nn.Dropout(0.5))

    def forward(self, x_NCHW: Tensor) -> Tensor:
        whole_NC11 = self.whole(x_NCHW.mean(dim=(2, 3), keepdim=True))
        whole_NCHW = whole_NC11.expand(-1, -1, *x_NCHW.shape[2:])
        return self.merge(torch.cat([*(branch(x_NCHW) for branch in self.branches), whole_NCHW], dim=1))


class DeepLabV3(nn.Module):
    """DeepLabv3's head (Chen et al. 2017): the context pyramid, a 3x3 layer and scores, on one map."""

    def __init__(self, specs: Sequence[FeatureSpec], classes: int) -> None:
        super().__init__()
        self.context = ContextPyramid(specs[0].channels, _rates(specs[0].stride))
        self.layers = nn.Sequential(Layer(WIDTH, WIDTH), scores(WIDTH, classes))

    def forward(self, maps: Sequence[Tensor]) -> Tensor:
        return self.layers(self.context(maps[0]))


class DeepLabV3Plus(nn.Module):
    """DeepLabv3+'s head (Chen et al. 2018, §3.1): the context pyramid, refined by the map at stride 4.

    48 channels of the fine map and two 3x3 layers are what its table 1 and 2 found best.
    """

    def __init__(self, specs: Sequence[FeatureSpec], classes: int) -> None:
        super().__init__()
        fine, coarse = specs
        self.context = ContextPyramid(coarse.channels, _rates(coarse.stride))
        self.fine = Layer(fine.channels, 48, 1)
        self.layers = nn.Sequential(
            Layer(WIDTH + 48, WIDTH), Layer(WIDTH, WIDTH), nn.Dropout(0.1), scores(WIDTH, classes)
        )

    def forward(self, maps: Sequence[Tensor]) -> Tensor:
        fine_NCHW, coarse_NCHW = maps
        context_NCHW = resize(self.context(coarse_NCHW), fine_NCHW.shape[2:])
        return self.layers(torch.cat([context_NCHW, self.fine(fine_NCHW)], dim=1))


class SemanticPyramid(nn.Module):
    """The semantic branch of a feature pyramid (Kirillov et al. 2019, §3): each level brought to the finest, and added.

    specs: of the pyramid's levels, finest first.
    """

    def __init__(self, specs: Sequence[FeatureSpec], classes: int, channels: int = 128) -> None:
        super().__init__()
        self.levels = nn.ModuleList(
            nn.Sequential(
                *(grouped_layer(channels if place else spec.channels, channels) for place in range(max(1, doublings)))
            )
            for doublings, spec in enumerate(specs)
        )
        self.scores = scores(channels, classes)

    def forward(self, maps: Sequence[Tensor]) -> Tensor:
        grown = []
        for doublings, layers in enumerate(self.levels):
            x = maps[doublings]
            for place, one in enumerate(layers.children(), start=1):
                x = one(x)
                if doublings:  # by the finer levels' sizes: where a side is odd, these are not twice as large
                    x = resize(x, maps[doublings - place].shape[2:])
            grown.append(x)
        return self.scores(torch.stack(grown).sum(dim=0))


def _rates(stride: int) -> tuple[int, ...]:
    return tuple(max(1, rate * 16 // stride) for rate in RATES)


# Those on maps of the backbone, by name: the places of the maps that one reads, its class. SemanticPyramid stands on a
# pyramid.
HEADS: dict[str, tuple[tuple[int, ...], type[nn.Module]]] = {
    "fcn": ((-1,), FullyConvolutional),
    "deeplabv3": ((-1,), DeepLabV3),
    "deeplabv3plus": ((0, -1), DeepLabV3Plus),
}
