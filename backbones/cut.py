"""What networks are made of, the links of a chain, and the two halves of a chain that is cut.

Legend of shape suffixes: N images, R regions, C channels, H W height and width, D length of a vector.

A network is described by data, not by a class for each use: a `Stage` names the modules it needs and a function
that runs them from whatever module owns them. So the whole network, the trunk below a cut and the head above
it run the same code on the same modules, and all three call their parameters by the same names in files.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor, nn

Run = Callable[[nn.Module, Tensor], Tensor]  # run(owner, x): the owner has the modules by their names

# Mean and standard deviation of ImageNet's pixels, RGB, as torchvision's weights expect them, on 0..255.
PIXEL_MEAN = (123.675, 116.28, 103.53)
PIXEL_STD = (58.395, 57.12, 57.375)


@dataclass(frozen=True)
class FeatureSpec:
    """What a feature map is: its number of channels, and how many pixels one step on it spans."""

    channels: int
    stride: int


@dataclass(frozen=True)
class Stage:
    """One link of the chain.

    key: name of its output ("c2" has stride 4, "c5" has stride 32).
    spec: channels and stride of the output.
    modules: dotted names of the modules it needs.
    run: run(owner, x_NCHW) -> NCHW.
    """

    key: str
    spec: FeatureSpec
    modules: tuple[str, ...]
    run: Run


@dataclass(frozen=True)
class Tail:
    """What lies between the last feature map and the classifier: run(owner, x_NCHW) -> vectors_ND."""

    modules: tuple[str, ...]
    run: Run
    channels: int


class PixelNorm(nn.Module):
    """RGB pixels 0..255 to zero mean and unit variance; what lies beyond an image's size becomes 0.

    mean, std: per channel, on the 0..255 scale. Buffers that are not saved: they are part of `identity()`.
    """

    mean: Tensor
    std: Tensor

    def __init__(self, mean: Sequence[float] = PIXEL_MEAN, std: Sequence[float] = PIXEL_STD) -> None:
        super().__init__()
        # Plain numbers as well, so that they can be told on any device, meta included.
        self.mean_values, self.std_values = tuple(mean), tuple(std)
        self.register_buffer("mean", torch.tensor(self.mean_values).view(1, 3, 1, 1), persistent=False)
        self.register_buffer("std", torch.tensor(self.std_values).view(1, 3, 1, 1), persistent=False)

    def forward(self, pixels_N3HW: Tensor, sizes_hw_N2: Tensor | None = None) -> Tensor:
        """uint8 or float pixels, and optionally the sizes (h, w) of the images, to float channels_last."""
        x = pixels_N3HW.to(self.mean.dtype, memory_format=torch.channels_last)
        x = (x - self.mean) / self.std
        if sizes_hw_N2 is None:
            return x
        rows_H = torch.arange(x.shape[2], device=x.device)
        columns_W = torch.arange(x.shape[3], device=x.device)
        below_NH = rows_H >= sizes_hw_N2[:, 0, None]
        right_NW = columns_W >= sizes_hw_N2[:, 1, None]
        return x.masked_fill_((below_NH[:, :, None] | right_NW[:, None, :])[:, None], 0.0)


def share(owner: nn.Module, names: Sequence[str], into: nn.Module) -> None:
    """Gives `into` the modules of `owner` with those dotted names, under the same names, uncopied."""
    for name in names:
        *parents, last = name.split(".")
        place = into
        for parent in parents:
            if parent not in place._modules:
                place.add_module(parent, nn.Module())
                place.get_submodule(parent).training = owner.training
            place = place.get_submodule(parent)
        place.add_module(last, owner.get_submodule(name))


class Trunk(nn.Module):
    """What runs once an image: pixel normalisation and the stages up to the cut.

    out_channels, stride: those of the map it ends in.
    """

    def __init__(self, backbone: nn.Module, pixel_norm: PixelNorm, chain: Sequence[Stage]) -> None:
        super().__init__()
        self.training = backbone.training
        self.pixel_norm = pixel_norm
        self._chain = tuple(chain)
        self.out_channels, self.stride = chain[-1].spec.channels, chain[-1].spec.stride
        for stage in chain:
            share(backbone, stage.modules, into=self)

    def forward(self, pixels_N3HW: Tensor, sizes_hw_N2: Tensor | None = None) -> Tensor:
        """RGB pixels 0..255 to the feature map at the cut, NCHW."""
        x = self.pixel_norm(pixels_N3HW, sizes_hw_N2)
        for stage in self._chain:
            x = stage.run(self, x)
        return x


class MapTrunk(nn.Module):
    """What runs once an image where several maps are read (FPN), or the last one (DC5): the stages up to the last.

    specs: channels and stride of each map, in the order of `keys`.
    """

    def __init__(self, backbone: nn.Module, pixel_norm: PixelNorm, chain: Sequence[Stage], keys: Sequence[str]) -> None:
        super().__init__()
        self.training = backbone.training
        self.pixel_norm = pixel_norm
        self._chain, self._keys = tuple(chain), tuple(keys)
        spec_of = {stage.key: stage.spec for stage in chain}
        self.specs = tuple(spec_of[key] for key in keys)
        for stage in chain:
            share(backbone, stage.modules, into=self)

    def forward(self, pixels_N3HW: Tensor, sizes_hw_N2: Tensor | None = None) -> tuple[Tensor, ...]:
        """RGB pixels 0..255 to the maps, NCHW each."""
        x = self.pixel_norm(pixels_N3HW, sizes_hw_N2)
        maps: dict[str, Tensor] = {}
        for stage in self._chain:
            x = stage.run(self, x)
            maps[stage.key] = x
        return tuple(maps[key] for key in self._keys)


class RegionHead(nn.Module):
    """What runs once a region: the network above the cut, without its classifier.

    roi_size: height and width of a pooled region; in_channels: its channels; map_channels: those of the map before
    the tail; out_channels: length of the vector. extra_norm: None, or a norm between the two (MoCo's transfer protocol
    has one, as features that no classifier has trained come in any scale: He et al. 2019, appendix).
    """

    extra_norm: nn.Module | None

    def __init__(
        self, backbone: nn.Module, chain: Sequence[Stage], tail: Tail, *, in_channels: int, roi_size: int
    ) -> None:
        super().__init__()
        self.training = backbone.training
        self._chain, self._tail = tuple(chain), tail
        self.in_channels, self.out_channels, self.roi_size = in_channels, tail.channels, roi_size
        self.map_channels = chain[-1].spec.channels if chain else in_channels
        self.extra_norm = None
        for stage in self._chain:
            share(backbone, stage.modules, into=self)
        share(backbone, tail.modules, into=self)

    def forward(self, regions_RCHW: Tensor) -> Tensor:
        """Pooled regions to vectors_RD."""
        return self.vectors(self.maps(regions_RCHW))

    def maps(self, regions_RCHW: Tensor) -> Tensor:
        """Pooled regions to the last map of each, RCHW: what a mask is read from."""
        # RoI pooling gives NCHW; one reorder here, instead of one in each convolution that reads the regions.
        x = regions_RCHW.contiguous(memory_format=torch.channels_last)
        for stage in self._chain:
            x = stage.run(self, x)
        return x if self.extra_norm is None else self.extra_norm(x)

    def vectors(self, maps_RCHW: Tensor) -> Tensor:
        """The last maps to vectors_RD."""
        return self._tail.run(self, maps_RCHW)


class Cut(NamedTuple):
    """A backbone in two: below the cut once an image, above it once a region. Modules are shared."""

    trunk: Trunk
    head: RegionHead
