"""Which modules of a network are its 3x3 layers, to look at what the layers give (He et al. 2015, fig. 7)."""

from __future__ import annotations

from itertools import pairwise

from torch import nn

from backbones.base import Backbone, BackboneError
from backbones.cifar import CifarNet
from backbones.resnet import ResNet
from backbones.vgg import VGG


def three_by_three(backbone: Backbone) -> dict[str, nn.Module]:
    """Name of each 3x3 convolution, in the order of the layers, to the module that gives the layer's response.

    That is its batch norm, before the ReLU or the addition; the convolution itself where it has no norm (VGG).
    Raises BackboneError for an outside network, whose layers are not known by name.
    """
    if not isinstance(backbone, ResNet | CifarNet | VGG):
        raise BackboneError(f"{backbone.name} comes from outside: which module gives a layer's response is not known.")
    leaves = [(name, part) for name, part in backbone.named_modules() if not any(part.children())]
    layers: dict[str, nn.Module] = {}
    for (name, part), (_, after) in pairwise(leaves):
        if isinstance(part, nn.Conv2d) and part.kernel_size == (3, 3):
            layers[name] = after if isinstance(after, nn.BatchNorm2d) else part
    return layers
