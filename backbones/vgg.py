"""VGG-11, 13, 16, 19 with and without batch norm (Simonyan & Zisserman 2014, table 1); torchvision's names.

Legend of shape suffixes: N images, R regions, C channels, H W height and width.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import Any

import torch.nn.functional as F
from torch import Tensor, nn

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
from backbones.norms import conv_norm

# Convolutions in each of the five blocks; a block ends at a 2x2 max pooling.
DEPTHS = {11: (1, 1, 2, 2, 2), 13: (2, 2, 2, 2, 2), 16: (2, 2, 3, 3, 3), 19: (2, 2, 4, 4, 4)}
CHANNELS = (64, 128, 256, 512, 512)
FULL_MAP = 7  # side of the map that fc6 reads

Layer = tuple[str, str | None]  # names of a convolution and of its norm


def run_block(owner: nn.Module, x_NCHW: Tensor, *, layers: tuple[Layer, ...], pool: bool) -> Tensor:
    """One block: the pooling that ends the block before, then its convolutions with their ReLUs."""
    if pool:
        x_NCHW = F.max_pool2d(x_NCHW, kernel_size=2, stride=2)
    for conv, norm in layers:
        norm_module = None if norm is None else owner.get_submodule(norm)
        x_NCHW = conv_norm(x_NCHW, owner.get_submodule(conv), norm_module, relu=True)  # type: ignore[arg-type]
    return x_NCHW


def run_dense_pool(owner: nn.Module, x_NCHW: Tensor) -> Tensor:
    """pool5 that keeps the map's size: 3x3 at stride 1 instead of 2x2 at stride 2 (Liu et al. 2016, §3.1)."""
    return F.max_pool2d(x_NCHW, kernel_size=3, stride=1, padding=1)


def run_tail(owner: Any, x_NCHW: Tensor) -> Tensor:
    """fc6 and fc7, each with ReLU and dropout: maps of any size, made 7x7 where they are not, to vectors."""
    if x_NCHW.shape[2:] != (FULL_MAP, FULL_MAP):
        x_NCHW = F.adaptive_avg_pool2d(x_NCHW, FULL_MAP)
    x_ND = x_NCHW.flatten(1)
    for name in ("0", "3"):
        x_ND = F.relu(owner.classifier.get_submodule(name)(x_ND), inplace=True)
        x_ND = F.dropout(x_ND, p=0.5, training=owner.training)
    return x_ND


def shallow_layers(deep: Backbone, state: Mapping[str, Tensor], *, origin: str) -> tuple[dict[str, Tensor], str]:
    """What a deeper VGG takes over from a shallower one, under the deeper one's names, and the shallower one's name.

    §3.1: "we initialised the first four convolutional layers and the last three fully-connected layers with the
    layers of net A". A layer's place is its block and its number there, so that channels agree: of VGG-11 these are
    conv1_1, conv2_1, conv3_1 and conv3_2. Norms go with their convolutions; the last layer only where both networks
    tell the same number of classes apart.

    state: of a VGG of the same kind (norms or not) and width; `origin` names its file.
    Raises BackboneError where `deep` is no VGG, or the weights are not those of a shallower one.
    """
    if not isinstance(deep, VGG):
        raise BackboneError(
            f"{deep.name} cannot start from a shallower net: only VGGs do, being trained without shortcuts; "
            "give weights of the same network instead."
        )
    convolutions = sum(name.startswith("features.") and tensor.ndim == 4 for name, tensor in state.items())
    has_norms = any(name.startswith("features.") and name.endswith("running_mean") for name in state)
    depth = convolutions + 3
    kind = "_bn" * deep.batch_norm
    if depth not in DEPTHS or has_norms != deep.batch_norm or depth >= deep.depth:
        shallower = [f"vgg{d}{kind}" for d in DEPTHS if d < deep.depth]
        wanted = f"those of {' or '.join(shallower)} are meant" if shallower else "there is no shallower VGG"
        raise BackboneError(f"{origin} holds no weights from which {deep.name} could start: {wanted}.")
    shallow_places, deep_places = (_places(d, deep.batch_norm) for d in (depth, deep.depth))
    renamed = {name: name for name in ("classifier.0", "classifier.3", "classifier.6")}
    for place in list(shallow_places)[:4]:
        renamed |= dict(zip(shallow_places[place], deep_places[place]))
    if len(state.get("classifier.6.weight", ())) != deep.num_classes:
        del renamed["classifier.6"]
    taken = {}
    for name, tensor in state.items():
        layer, _, parameter = name.rpartition(".")
        if layer in renamed:
            taken[f"{renamed[layer]}.{parameter}"] = tensor
    return taken, f"vgg{depth}{kind}"


def _places(depth: int, batch_norm: bool) -> dict[tuple[int, int], tuple[str, ...]]:
    """Block and number in it of every convolution, in order, to its name and its norm's."""
    places, at = {}, 0
    for block, count in enumerate(DEPTHS[depth]):
        for number in range(count):
            places[block, number] = (f"features.{at}", *([f"features.{at + 1}"] * batch_norm))
            at += 2 + batch_norm  # the convolution, its norm, the ReLU
        at += 1  # the pooling
    return places


class VGG(Backbone):
    """VGG of 11, 13, 16 or 19 layers.

    batch_norm: a norm after each convolution. width: factor on all channels, those of fc6 and fc7 too.
    dilate_last: c5 at stride 16 instead of 32 (DC5); there is no layer above it to dilate.
    Maps: c2 is the last of conv3_x (stride 4), c3 of conv4_x (8), c4 of conv5_x (16), c5 is pool5 (32).
    """

    def __init__(
        self,
        depth: int,
        num_classes: int = 1000,
        *,
        batch_norm: bool = False,
        width: float = 1.0,
        dilate_last: bool = False,
    ) -> None:
        name = f"vgg{depth}" + "_bn" * batch_norm
        if depth not in DEPTHS:
            raise BackboneError(f"There is no {name}: VGG has {', '.join(map(str, DEPTHS))} layers.")
        check_width(name, width)
        super().__init__(name, num_classes, width=width)
        self.depth, self.batch_norm = depth, batch_norm
        layers: list[nn.Module] = []
        chain: list[Stage] = []
        inputs = 3
        places = _places(depth, batch_norm)
        for index, (count, base) in enumerate(zip(DEPTHS[depth], CHANNELS)):
            outputs = scaled(base, width)
            names: list[Layer] = []
            for number in range(count):
                layers += [
                    nn.Conv2d(inputs, outputs, 3, padding=1),
                    *([nn.BatchNorm2d(outputs)] * batch_norm),
                    nn.ReLU(),
                ]
                conv, *norm = places[index, number]
                names.append((conv, norm[0] if norm else None))
                inputs = outputs
            layers.append(nn.MaxPool2d(2, 2))
            modules = tuple(part for layer in names for part in layer if part is not None)
            run = partial(run_block, layers=tuple(names), pool=index > 0)
            chain.append(Stage(f"c{index}", FeatureSpec(outputs, 2**index), modules, run))
        pool5 = run_dense_pool if dilate_last else partial(run_block, layers=(), pool=True)
        chain.append(Stage("c5", FeatureSpec(inputs, 16 if dilate_last else 32), (), pool5))
        self.features = nn.Sequential(*layers)
        hidden = scaled(4096, width)
        self.classifier = nn.Sequential(
            nn.Linear(inputs * FULL_MAP * FULL_MAP, hidden), nn.ReLU(), nn.Dropout(),
            nn.Linear(hidden, hidden), nn.ReLU(), nn.Dropout(),
            nn.Linear(hidden, num_classes),
        )  # fmt: skip
        initialise(self)
        initialise_classifier(self.classifier[6])  # type: ignore[arg-type]
        self._finish(chain, Tail(("classifier.0", "classifier.3"), run_tail, hidden), "classifier.6")

    def freeze(self, stride: int) -> None:
        """Fixes the layers whose output is pooled on the way to that stride; 0 fixes nothing.

        Stride 4 fixes conv1_x and conv2_x, as Fast and Faster R-CNN do (Girshick 2015, §4.5), not conv3_x,
        although its output has stride 4 as well; stride 32 fixes all convolutions.
        """
        super().freeze(stride)

    def _freezes(self, stage: Stage, stride: int) -> bool:
        return stage.spec.stride < stride

    def _above(self, below: int) -> tuple[Stage, ...]:
        # RoI pooling takes the place of pool5, so that regions reach fc6 with 7x7 (Girshick 2015, §2.1).
        return tuple(stage for stage in self._chain[below:] if stage.key != "c5")

    def _roi_size(self, stride: int, asked: int | None) -> int:
        fixed = FULL_MAP * max(1, 16 // stride)
        if asked not in (None, fixed):
            raise BackboneError(
                f"{self.name} cut at stride {stride} needs roi_size {fixed}, as fc6 reads "
                f"{FULL_MAP}x{FULL_MAP} maps; {asked} was asked for."
            )
        return fixed
