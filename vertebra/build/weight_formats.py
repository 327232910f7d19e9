"""How others name the tensors of networks that we have too, and what their names do not say: one table, `FORMATS`."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from backbones import Backbone
from backbones.chain import PIXEL_MEAN, PIXEL_STD

Facts = Mapping[str, Any]  # channels (rgb, bgr), stride_in (1x1, 3x3), mean and std (RGB, 0..255), as far as known

IMAGENET: Facts = {"channels": "rgb", "stride_in": "3x3", "mean": PIXEL_MEAN, "std": PIXEL_STD}
MSRA: Facts = {"channels": "bgr", "stride_in": "1x1", "mean": PIXEL_MEAN, "std": (1.0, 1.0, 1.0)}


@dataclass(frozen=True)
class Format:
    """How somebody's files are told from others, and what they mean.

    mark: pattern of a name that they alone have. names: pattern of the names that are the backbone's, see `our_name`;
    others are left out. known: of all files of such names. usual: of their owner's own, which a user vouches for
    (`--format`). folded: its norms are scales and offsets alone, their statistics in them. adjust: makes the tensors
    ours, where more than names differs.
    """

    owner: str
    mark: str
    names: str
    known: Facts = field(default_factory=dict)
    usual: Facts = field(default_factory=dict)
    folded: bool = False
    adjust: Callable[[dict[str, Tensor]], dict[str, Tensor]] | None = None


def add_constant_norms(state: dict[str, Tensor], network: Backbone) -> dict[str, Tensor]:
    """Add the statistics that leave such norms' scales and offsets as they are: mean 0, variance 1 with epsilon."""
    filled = dict(state)
    for name, module in network.named_modules():
        if isinstance(module, nn.BatchNorm2d) and f"{name}.weight" in state:
            weight = state[f"{name}.weight"]
            filled.setdefault(f"{name}.running_mean", torch.zeros_like(weight))
            filled.setdefault(f"{name}.running_var", torch.full_like(weight, 1 - module.eps))
    return filled


def _move_shortcuts(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """Its shortcuts (option A) put half of their zero channels before x, ours all after it: the channels, reordered.

    What a layer's blocks add up is permuted as a whole: the outputs of their last convolutions, and what reads them.
    """
    moved, before = dict(state), torch.arange(len(state["conv1.weight"]))
    for layer in ("layer2", "layer3"):
        channels = torch.arange(len(state[f"{layer}.0.conv2.weight"]))
        pad = (len(channels) - len(before)) // 2
        after = torch.cat([pad + before, channels[:pad], channels[pad + len(before) :]])
        for name in state:
            block, _, rest = name.removeprefix(f"{layer}.").partition(".")
            if not name.startswith(layer) or state[name].ndim == 0:
                continue
            if rest == "conv1.weight":
                moved[name] = state[name][:, before if block == "0" else after]
            elif rest.startswith(("conv2.", "bn2.")):
                moved[name] = state[name][after]
        before = after
    if "fc.weight" in state:
        moved["fc.weight"] = state["fc.weight"][:, before]
    return moved


# The first whose mark is there; plain names come last.
FORMATS = {
    "caffe2": Format(
        "Detectron and its MSRA models (Caffe2)",
        r"res2_0_branch2a_w",
        r"(?:res_)?(?:conv1|res(?P<stage>\d)_(?P<block>\d+)_(?P<part>branch1|branch2[abc]))"
        r"(?:_w|(?P<norm>_bn)_(?P<kind>s|b|rm|riv))|(?:pred|fc1000)_(?P<fc>[wb])",
        known=MSRA,
        folded=True,
    ),
    "detectron2": Format(
        "detectron2",
        r"(.+\.)?stem\.conv1\.weight",
        r"(?:.+\.)?(?:stem\.conv1|res(?P<stage>\d)\.(?P<block>\d+)\.(?P<part>conv\d|shortcut))"
        r"(?P<norm>\.norm)?\.(?P<kind>\w+)|(?:.+\.)?stem\.fc\.(?P<fc>\w+)",
        usual=MSRA,
    ),
    "transformers": Format(
        "Hugging Face's transformers",
        r"(resnet\.)?embedder\.embedder\.convolution\.weight",
        r"(?:resnet\.)?(?:embedder\.embedder"
        r"|encoder\.stages\.(?P<stage0>\d)\.layers\.(?P<block>\d+)\.(?P<part>layer\.\d|shortcut))"
        r"\.(?:convolution|(?P<norm>normalization))\.(?P<kind>\w+)|classifier\.1\.(?P<fc>\w+)",
        known={"channels": "rgb"},
        usual=IMAGENET,
    ),
    "moco": Format(
        "MoCo", r"(encoder_q|base_encoder)\..*", r"(?:encoder_q|base_encoder)\.(?P<name>(?!fc\.).*)", IMAGENET
    ),
    "swav": Format(
        "SwAV", r"(projection_head|prototypes)\..*", r"(?P<name>(?!projection_head|prototypes).*)", IMAGENET
    ),
    "dino": Format("DINO", r"head\.(mlp|last_layer)\..*", r"backbone\.(?P<name>.*)", IMAGENET),
    "mmpretrain": Format(
        "mmpretrain", r"backbone\..*", r"backbone\.(?P<name>.*)|head\.fc\.(?P<fc>\w+)", usual=IMAGENET
    ),
    "akamaster": Format(
        "akamaster's pytorch_resnet_cifar10",
        r"linear\.weight",
        r"linear\.(?P<fc>\w+)|(?P<name>.*)",
        usual=IMAGENET,
        adjust=_move_shortcuts,
    ),
    "torchvision": Format("torchvision and timm", r"(layer1|features)\..*", r"(?P<name>.*)", usual=IMAGENET),
}
_PARTS = {
    "branch1": "shortcut",
    "branch2a": "conv1",
    "branch2b": "conv2",
    "branch2c": "conv3",
    **{f"layer.{place}": f"conv{place + 1}" for place in range(3)},
}
_KINDS = {"w": "weight", "s": "weight", "b": "bias", "rm": "running_mean", "riv": "running_var"}


_SAYS = ("name", "fc", "stage", "stage0", "block", "part", "norm", "kind")


def our_name(found: re.Match[str]) -> str:
    """The name here of what a pattern found: outright (`name`), of the classifier (`fc`), or of a part of a block."""
    said: dict[str, Any] = {**dict.fromkeys(_SAYS), **found.groupdict()}
    if said["name"] is not None:
        return str(said["name"])
    kind = said["fc"] or said["kind"] or "weight"
    kind = _KINDS.get(kind, kind)
    if said["fc"] is not None:
        return f"fc.{kind}"
    norm = said["norm"] is not None
    if said["part"] is None:
        return f"{'bn1' if norm else 'conv1'}.{kind}"
    part = _PARTS.get(said["part"], said["part"])
    part = f"downsample.{int(norm)}" if part == "shortcut" else part.replace("conv", "bn") if norm else part
    layer = int(said["stage0"]) + 1 if said["stage0"] else int(said["stage"]) - 1
    return f"layer{layer}.{said['block']}.{part}.{kind}"
