"""A network as data: pixels normalised, then a chain of stages, each a few steps on modules of the network.

Legend of shape suffixes: N images, C channels, H W height and width.

A step names its modules and does not hold them, so whatever owns modules of those names can run it: the whole network,
or the part of it below or above a cut. And a module that is exchanged (an adapted first convolution, synchronised
norms) is the one that runs.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from backbones.norms import conv_norm

# Mean and standard deviation of ImageNet's pixels, RGB, as torchvision's weights expect them, on 0..255.
PIXEL_MEAN = (123.675, 116.28, 103.53)
PIXEL_STD = (58.395, 57.12, 57.375)


@dataclass(frozen=True)
class ConvNorm:
    """Names of a convolution and of its norm, if it has one: run as one and with a ReLU, see `conv_norm`."""

    conv: str
    norm: str | None = None


Step = str | ConvNorm | Callable[[Tensor], Tensor]  # a module's dotted name; two of them; a function without weights


@dataclass(frozen=True)
class FeatureSpec:
    """A feature map's number of channels, and how many pixels one step on it spans."""

    channels: int
    stride: int


@dataclass(frozen=True)
class Stage:
    """One link of the chain.

    key: name of its output ("c2" has stride 4, "c5" has stride 32). spec: of the output.
    is_map: the output is one of the network's `feature_maps`, where it can be cut.
    in_head: False for a pooling in whose place regions are pooled, so that no head has it.
    frozen_from: the stage is fixed by `freeze(stride)` from this stride on; None: from its own.
    """

    key: str
    spec: FeatureSpec
    steps: tuple[Step, ...]
    is_map: bool = True
    in_head: bool = True
    frozen_from: int | None = None


def modules_of(steps: Sequence[Step]) -> Iterator[str]:
    """The dotted names of all modules that these steps run."""
    for step in steps:
        if isinstance(step, str):
            yield step
        elif isinstance(step, ConvNorm):
            yield step.conv
            if step.norm is not None:
                yield step.norm


class Chain(nn.Module):
    """An owner of modules and the stages that run them."""

    def __init__(self, chain: Sequence[Stage]) -> None:
        super().__init__()
        self.chain = tuple(chain)

    def run(
        self, x_NCHW: Tensor, first: int = 0, last: int | None = None, keep: Collection[str] = ()
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """Return the output of the stages from `first` to before `last`, and the outputs whose key is in `keep`."""
        maps: dict[str, Tensor] = {}
        for stage in self.chain[first:last]:
            x_NCHW = self.run_steps(stage.steps, x_NCHW)
            if stage.key in keep:
                maps[stage.key] = x_NCHW
        return x_NCHW, maps

    def run_steps(self, steps: Sequence[Step], x: Tensor) -> Tensor:
        """Run the steps on this module's own modules, one after the other."""
        for step in steps:
            if isinstance(step, str):
                x = self.get_submodule(step)(x)
            elif isinstance(step, ConvNorm):
                norm = None if step.norm is None else self.get_submodule(step.norm)
                x = conv_norm(x, self.get_submodule(step.conv), norm, relu=True)  # type: ignore[arg-type]
            else:
                x = step(x)
        return x


class PixelNorm(nn.Module):
    """RGB pixels 0..255 to zero mean and unit variance; what lies beyond an image's size becomes 0.

    mean, std: per channel, on the 0..255 scale. Buffers that are not saved: they are part of `Backbone.identity()`.
    """

    mean: Tensor
    std: Tensor

    def __init__(self, mean: Sequence[float] = PIXEL_MEAN, std: Sequence[float] = PIXEL_STD) -> None:
        super().__init__()
        # Plain numbers as well, so that they can be read on any device, meta included.
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
