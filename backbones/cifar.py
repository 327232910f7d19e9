"""Nets of 6n+2 layers for 32x32 images, residual and plain (He et al. 2015, §4.2)."""

from __future__ import annotations

from functools import partial
from typing import Any

from torch import nn

from backbones.base import (
    Backbone,
    BackboneError,
    FeatureSpec,
    Stage,
    Tail,
    check_width,
    initialise,
    initialise_classifier,
    scaled,
)
from backbones.resnet import BasicBlock, conv, make_layer, run_global_pool, run_layer, run_stem

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
        super().__init__(name, num_classes, width=width, mean=CIFAR_MEAN, std=CIFAR_STD)
        self.shortcut = "A" if residual else None
        inputs = scaled(16, width)
        self.conv1 = conv(3, 3, inputs)
        self.bn1 = nn.BatchNorm2d(inputs)
        chain = []
        for index, base in enumerate((16, 32, 64)):
            planes, stride = scaled(base, width), 1 if index == 0 else 2
            layer = make_layer(
                BasicBlock, (depth - 2) // 6, inputs, planes, stride, shortcut=self.shortcut, stride_in="3x3"
            )
            name = f"layer{index + 1}"
            self.add_module(name, layer)
            run = partial(run_layer, name=name)
            chain.append(Stage(f"c{index}", FeatureSpec(planes, 2**index), (name,), run))
            inputs = planes
        stem = Stage("stem", FeatureSpec(scaled(16, width), 1), ("conv1", "bn1"), run_stem)
        self.fc = nn.Linear(inputs, num_classes)
        initialise(self)
        initialise_classifier(self.fc)
        self._finish([stem, *chain], Tail((), run_global_pool, inputs), "fc", native_px=32)

    def identity(self) -> dict[str, Any]:
        return {**super().identity(), "shortcut": self.shortcut}

    def _is_public(self, stage: Stage) -> bool:
        return stage.key != "stem"
