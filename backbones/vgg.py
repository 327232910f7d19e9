"""VGG-11, 13, 16, 19 with and without batch norm (Simonyan & Zisserman 2014, table 1); torchvision's names.

Legend of shape suffixes: N images, C channels, H W height and width, D length of a vector.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch.nn.functional as F
from torch import Tensor, nn

from backbones.base import Backbone, BackboneError, check_width, initialise, scaled
from backbones.chain import ConvNorm, FeatureSpec, Stage, Step

# Convolutions in each of the five blocks; a block ends at a 2x2 max pooling.
DEPTHS = {11: (1, 1, 2, 2, 2), 13: (2, 2, 2, 2, 2), 16: (2, 2, 3, 3, 3), 19: (2, 2, 4, 4, 4)}
CHANNELS = (64, 128, 256, 512, 512)
FULL_MAP = 7  # side of the map that fc6 reads


def halve(x_NCHW: Tensor) -> Tensor:
    """The 2x2 max pooling that ends a block; it runs at the beginning of the next."""
    return F.max_pool2d(x_NCHW, kernel_size=2, stride=2)


def keep_size(x_NCHW: Tensor) -> Tensor:
    """pool5 that keeps the map's size: 3x3 at stride 1 instead of 2x2 at stride 2 (Liu et al. 2016, §3.1)."""
    return F.max_pool2d(x_NCHW, kernel_size=3, stride=1, padding=1)


def flatten_7x7(x_NCHW: Tensor) -> Tensor:
    """Maps of any size, made 7x7 where they are not, to vectors_ND."""
    if x_NCHW.shape[2:] != (FULL_MAP, FULL_MAP):
        x_NCHW = F.adaptive_avg_pool2d(x_NCHW, FULL_MAP)
    return x_NCHW.flatten(1)


def shallow_layers(deep: Backbone, state: Mapping[str, Tensor], *, origin: str) -> tuple[dict[str, Tensor], str]:
    """Return a shallower VGG's weights under a deeper one's names, for it to start from, and the shallower one's name.

    §3.1: "we initialised the first four convolutional layers and the last three fully-connected layers with the
    layers of net A". A layer's place is its block and its number there, so that channels agree: of VGG-11 these are
    conv1_1, conv2_1, conv3_1 and conv3_2. Norms go with their convolutions; the last layer only where both networks
    have the same number of classes.

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
        wanted = f"give those of {' or '.join(shallower)}" if shallower else "there is no shallower VGG"
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
    output_stride: 32, 16 or 8, as `ResNet`'s; at 8 conv5_x is dilated, and pool4 and pool5 keep the map's size (Chen et
        al. 2015, §3.1).
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
        output_stride: int = 32,
    ) -> None:
        name = f"vgg{depth}" + "_bn" * batch_norm
        if depth not in DEPTHS:
            raise BackboneError(f"There is no {name}: VGG has {', '.join(map(str, DEPTHS))} layers.")
        check_width(name, width)
        layers: list[nn.Module] = []
        chain: list[Stage] = []
        inputs = 3
        places = _places(depth, batch_norm)
        for index, (count, base) in enumerate(zip(DEPTHS[depth], CHANNELS)):
            outputs = scaled(base, width)
            dilation = 2 if 2**index > output_stride else 1
            steps: list[Step] = [halve if dilation == 1 else keep_size] if index > 0 else []
            for number in range(count):
                layers += [
                    nn.Conv2d(inputs, outputs, 3, padding=dilation, dilation=dilation),
                    *([nn.BatchNorm2d(outputs)] * batch_norm),
                    nn.ReLU(),
                ]
                steps.append(ConvNorm(*places[index, number]))
                inputs = outputs
            layers.append(nn.MaxPool2d(2, 2))
            # Not frozen at its own stride: the block's convolutions are those before the pooling to twice that stride.
            spec = FeatureSpec(outputs, min(2**index, output_stride))
            chain.append(Stage(f"c{index}", spec, tuple(steps), is_map=index >= 2, frozen_from=2 ** (index + 1)))
        # RoI pooling takes the place of pool5, so that regions reach fc6 with 7x7 (Girshick 2015, §2.1).
        last_stride = min(16 if dilate_last else 32, output_stride)
        pool5 = FeatureSpec(inputs, last_stride)
        chain.append(Stage("c5", pool5, (halve if last_stride == 32 else keep_size,), in_head=False))
        hidden = scaled(4096, width)
        head = nn.Sequential(
            nn.Linear(inputs * FULL_MAP * FULL_MAP, hidden), nn.ReLU(inplace=True), nn.Dropout(),
            nn.Linear(hidden, hidden), nn.ReLU(inplace=True), nn.Dropout(),
            classifier := nn.Linear(hidden, num_classes),
        )  # fmt: skip
        modules = {"features": nn.Sequential(*layers), "classifier": head}
        initialise(modules, classifier)
        super().__init__(
            name,
            num_classes,
            modules,
            chain,
            tail=(flatten_7x7, *(f"classifier.{place}" for place in range(6))),  # fc6, fc7: each with ReLU and dropout
            classifier="classifier.6",
            width=width,
            tail_side=FULL_MAP,
        )
        self.depth, self.batch_norm = depth, batch_norm
