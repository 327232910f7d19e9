"""Nets of 6n+2 layers for 32x32 images, residual and plain (He et al. 2015, §4.2)."""

from __future__ import annotations

from torch import nn

from backbones.base import Backbone, BackboneError, check_width, initialise, scaled
from backbones.blocks import BasicBlock, conv, global_average, make_layer
from backbones.chain import ConvNorm, FeatureSpec, Stage

# Mean and standard deviation of CIFAR-10's training pixels, RGB, on 0..255.
CIFAR_MEAN = (125.307, 122.950, 113.865)
CIFAR_STD = (62.993, 62.089, 66.705)


class CifarNet(Backbone):
    """A 3x3 layer, then 2n layers on each of maps of 32, 16 and 8 px with 16, 32 and 64 channels.

    depth: 6n + 2 (20, 32, 44, 56, 110, 1202). residual: False for a plain net. All shortcuts are of option A,
    so a residual net has exactly its plain counterpart's parameters. Maps: c0, c1, c2 at strides 1, 2, 4.
    """

    def __init__(self, depth: int, num_classes: int = 10, *, residual: bool = True, width: float = 1.0) -> None:
        name = f"cifar_r{depth}" if residual else f"cifar_plain{depth}"
        if depth < 8 or (depth - 2) % 6:
            below = max(8, depth - (depth - 2) % 6)
            raise BackboneError(
                f"There is no {name}: these nets have 6n+2 layers; the nearest are {below} and {below + 6}."
            )
        check_width(name, width)
        shortcut = "A" if residual else None
        inputs = scaled(16, width)
        modules: dict[str, nn.Module] = {"conv1": conv(3, 3, inputs), "bn1": nn.BatchNorm2d(inputs)}
        chain = [Stage("stem", FeatureSpec(inputs, 1), (ConvNorm("conv1", "bn1"),), is_map=False)]
        for index, base in enumerate((16, 32, 64)):
            planes, stride, layer = scaled(base, width), 1 if index == 0 else 2, f"layer{index + 1}"
            modules[layer] = make_layer(
                BasicBlock, (depth - 2) // 6, inputs, planes, stride, shortcut=shortcut, stride_in="3x3"
            )
            chain.append(Stage(f"c{index}", FeatureSpec(planes, 2**index), (layer,)))
            inputs = planes
        modules["fc"] = classifier = nn.Linear(inputs, num_classes)
        initialise(modules, classifier)
        super().__init__(
            name,
            num_classes,
            modules,
            chain,
            tail=(global_average,),
            classifier="fc",
            width=width,
            mean=CIFAR_MEAN,
            std=CIFAR_STD,
            native_px=32,
            shortcut=shortcut,
        )
