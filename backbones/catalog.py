"""Names to networks: the one visible table."""

from __future__ import annotations

import difflib
import re
from collections.abc import Callable
from functools import partial
from typing import Any

from backbones import cifar, resnet, vgg
from backbones.base import Backbone, BackboneError
from backbones.depthwise import learn_in_float32

Maker = Callable[..., Backbone]

RESNETS: dict[str, Maker] = {f"r{depth}": partial(resnet.ResNet, depth) for depth in resnet.DEPTHS}
PLAIN: dict[str, Maker] = {f"plain{depth}": partial(resnet.ResNet, depth, residual=False) for depth in (18, 34)}
VGGS: dict[str, Maker] = {
    f"vgg{depth}{'_bn' * batch_norm}": partial(vgg.VGG, depth, batch_norm=batch_norm)
    for batch_norm in (False, True)
    for depth in vgg.DEPTHS
}
# The depths of the paper; any other 6n+2 is made too.
CIFAR: dict[str, Maker] = {
    f"cifar_{kind}{depth}": partial(cifar.CifarNet, depth, residual=kind == "r")
    for kind, depths in {"r": (20, 32, 44, 56, 110, 1202), "plain": (20, 32, 44, 56, 110)}.items()
    for depth in depths
}
MAKERS = {**RESNETS, **PLAIN, **VGGS, **CIFAR}
OUTSIDE = ("torchvision", "timm")
OUTSIDE_NAMES = "outside networks are torchvision:NAME, timm:NAME or FILE.py:FUNCTION"


def list_backbones() -> tuple[str, ...]:
    """Names of our networks. Besides: any 6n+2 of the CIFAR nets, torchvision:NAME, timm:NAME, FILE.py:FUNCTION."""
    return tuple(MAKERS)


def create_backbone(
    name: str,
    *,
    num_classes: int = 1000,
    width: float = 1.0,
    shortcut: str = "B",
    stride_in: str = "3x3",
    dilate_last: bool = False,
    output_stride: int = 32,
    zero_init_last: bool = False,
    drop_path: float | None = None,
) -> Backbone:
    """The network of that name with random weights (from torch's global generator), in training mode.

    name: one of `list_backbones()`, torchvision:NAME, timm:NAME, or FILE.py:FUNCTION. width: factor on all channels.
    shortcut ("A", "B", "C") and stride_in ("1x1", "3x3") are read by the ResNets and ignored by the others,
    so that one recipe serves all; `identity()` has what was built. dilate_last (DC5: the last map at stride 16),
    output_stride and zero_init_last: see `ResNet`. drop_path: probability that a network from outside leaves out its
    last block in training, and earlier ones less often; None: the network's own. Raises BackboneError (a ValueError)
    for an unknown name, with the nearest one.
    """
    if ":" in name:
        net = _outside(name, num_classes, width, 16 if dilate_last else output_stride, drop_path)
        learn_in_float32(net)
        return net
    if drop_path is not None:
        raise BackboneError(f"{name} has no drop path; networks of timm and torchvision have: leave out {drop_path}.")
    options: dict[str, Any] = {"num_classes": num_classes, "width": width}
    if name in RESNETS or name in PLAIN:
        options |= {"dilate_last": dilate_last, "output_stride": output_stride, "zero_init_last": zero_init_last}
        options |= {"shortcut": shortcut, "stride_in": stride_in}
    elif name in VGGS:
        options |= {"dilate_last": dilate_last, "output_stride": output_stride}
    elif dilate_last or output_stride != 32:
        raise BackboneError(f"{name} cannot be built with a dilated last stage; ResNets and VGGs can.")
    if name in MAKERS:
        return MAKERS[name](**options)
    if found := re.fullmatch(r"cifar_(r|plain)(\d+)", name):
        return cifar.CifarNet(int(found[2]), residual=found[1] == "r", **options)
    raise BackboneError(f"There is no backbone {name!r}; {_hint(name)}.")


def _hint(name: str) -> str:
    # "resnet50" and "vgg-16" are what people type; r50 and vgg16 is what they mean.
    plain = name.lower().replace("resnet", "r").replace("-", "")
    near = difflib.get_close_matches(plain, MAKERS, n=1, cutoff=0.6)
    return f"the nearest name is {near[0]!r}" if near else OUTSIDE_NAMES


def _outside(name: str, num_classes: int, width: float, output_stride: int, drop_path: float | None) -> Backbone:
    from backbones.adapters import from_timm, from_torchvision
    from backbones.own import from_file

    library, _, model = name.rpartition(":")
    if library not in OUTSIDE and not library.endswith(".py"):
        raise BackboneError(f"There is no backbone {name!r}: {OUTSIDE_NAMES}.")
    if width != 1:
        raise BackboneError(f"{name} has no width factor; only our own networks have one, so leave out {width}.")
    if library.endswith(".py"):
        if drop_path is not None:
            raise BackboneError(f"{name} sets its drop path itself: leave out {drop_path}.")
        return from_file(library, model, num_classes, output_stride=output_stride)
    make = from_torchvision if library == "torchvision" else from_timm
    return make(model, num_classes, output_stride=output_stride, drop_path=drop_path)
