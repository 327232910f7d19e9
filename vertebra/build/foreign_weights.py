"""Weights that others trained, under the names that they gave them: told apart, renamed, and asked about.

`FORMATS` is the one table. What a file does not say (the order of its channels, the statistics of its pixels, where a
bottleneck has its stride) is known of some formats, and of the others asked for, never guessed: a wrong answer costs
accuracy without an error. Statistics are not folded into a layer: a network takes them from its weights' provenance
(`weights.adopt_identity`). Convolutions of BGR files have their input channels turned round.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from backbones import Backbone
from backbones.chain import PIXEL_MEAN, PIXEL_STD
from vertebra.engine.weights import check_fit
from vertebra.ground.errors import UserError
from vertebra.ground.formats import first_few, joined

Facts = Mapping[str, Any]  # channels (rgb, bgr), stride_in (1x1, 3x3), mean and std (RGB, 0..255), as far as known

IMAGENET: Facts = {"channels": "rgb", "stride_in": "3x3", "mean": PIXEL_MEAN, "std": PIXEL_STD}
MSRA: Facts = {"channels": "bgr", "stride_in": "1x1", "mean": PIXEL_MEAN, "std": (1.0, 1.0, 1.0)}
# What a name cannot tell, and the flags that do.
QUESTIONS = {
    "channels": ("the order of its channels", "--channels rgb|bgr"),
    "stride_in": ("where its bottlenecks have their stride", "--stride-in 3x3|1x1"),
    "mean": ("the mean of its pixels", "--mean M M M"),
    "std": ("their deviation", "--std S S S"),
}


@dataclass(frozen=True)
class Format:
    """How somebody's files are told from others, and what they mean.

    mark: pattern of a name that they alone have. names: pattern of the names that are the backbone's, see `_our_name`;
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


def _add_constant_norms(state: dict[str, Tensor], network: Backbone) -> dict[str, Tensor]:
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


def _our_name(found: re.Match[str]) -> str:
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


def convert(
    state: Mapping[str, Tensor],
    network: Backbone,
    path: Path,
    *,
    form: str | None = None,
    by_order: bool = False,
    given: Facts | None = None,
) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Return the tensors of `path` as `network` has them, for RGB pixels, and their provenance, as of others.

    network: the one that they are for, with any number of classes; on any device, and not changed. form: the row of
    FORMATS whose owner the user vouches for; None: what the names tell. by_order: each tensor is the network's at the
    same place, whatever its name. given: what the user says, mean and std in the order of the file's channels.
    Raises UserError for names of no format, for weights of another network, and, with the flags that answer it, for
    what remains open.
    """
    chosen = FORMATS[form] if form else None if by_order else _recognised(state, network)
    left_out: list[str] = []
    if chosen is None:
        chosen = replace(_library(network), owner="unknown, so that tensors were taken by their order")
        ours = _by_order(state, network, path, is_asked=by_order)
    else:
        left_out = [name for name in state if not re.fullmatch(chosen.names, name)]
        ours = _renamed({name: state[name] for name in state if name not in left_out}, chosen.names, path)
        ours = _add_constant_norms(ours, network) if chosen.folded else ours
    classifier = network.classifier_name
    check_fit(network, ours, path, allow_missing=(classifier,), ignore=(classifier,))
    rows = ours.get(f"{classifier}.weight")
    wanted = network.state_dict()[f"{classifier}.weight"].shape
    if rows is not None and rows.shape[1:] != wanted[1:]:
        raise UserError(path, f"its classifier is {_shape(rows.shape)}, and {network.name}'s has {wanted[1]} inputs")
    if chosen.adjust is not None:
        ours = chosen.adjust(ours)
    ours = {name: tensor.float() if tensor.is_floating_point() else tensor for name, tensor in ours.items()}
    facts = {**(chosen.usual if form else {}), **chosen.known, **(given or {})}
    _ask(facts, chosen, network, path)
    if facts["channels"] == "bgr":
        first = next(name for name, tensor in network.state_dict().items() if tensor.ndim == 4)
        ours[first] = ours[first].flip(1)
        facts |= {name: given[name][::-1] for name in ("mean", "std") if given and name in given}
    identity = {
        **network.identity(),
        "num_classes": network.num_classes if rows is None else len(rows),
        "stride_in": facts["stride_in"] if network.stride_in else None,
        "pixel_mean": list(facts["mean"]),
        "pixel_std": list(facts["std"]),
    }
    others = {
        "file": path.name,
        "names": chosen.owner,
        "channels": facts["channels"],
        "classifier": "no classifier" if rows is None else f"{len(rows):,} classes",
        "left_out": left_out,
    }
    return ours, {"backbone": identity, "by_others": others}


def _library(network: Backbone) -> Format:
    """An outside network's own names: what its library says of its pixels holds; of our networks nothing is known."""
    norm = network.pixel_norm
    known = {"channels": "rgb", "mean": norm.mean_values, "std": norm.std_values} if ":" in network.name else {}
    return Format(network.name, mark="", names=r"(?P<name>.*)", known=known)


def _recognised(state: Mapping[str, Tensor], network: Backbone) -> Format | None:
    if ":" in network.name and state.keys() & network.state_dict().keys():
        return _library(network)
    return next((one for one in FORMATS.values() if any(re.fullmatch(one.mark, name) for name in state)), None)


def _renamed(state: Mapping[str, Tensor], names: str, path: Path) -> dict[str, Tensor]:
    """Return the tensors under our names. Raises UserError where two of them would have one."""
    ours: dict[str, Tensor] = {}
    for name, tensor in state.items():
        found = re.fullmatch(names, name)
        assert found is not None
        if (here := _our_name(found)) in ours:
            raise UserError(path, f"two of its tensors would be {here}, {name} too", "save one network alone")
        ours[here] = tensor
    return ours


def _by_order(state: Mapping[str, Tensor], network: Backbone, path: Path, *, is_asked: bool) -> dict[str, Tensor]:
    """Return the tensors under the network's names, place by place; norms' counters are left out.

    Raises UserError unless there are as many, each of the same shape (the classifier may have other classes), and,
    where it is not asked for, of the same kind (weight, bias, running_mean, running_var).
    """
    theirs = [(name, tensor.shape) for name, tensor in state.items() if tensor.ndim]
    ours = [(name, tensor.shape) for name, tensor in network.state_dict().items() if tensor.ndim]
    fault = "" if len(theirs) == len(ours) else f"there are {len(theirs)} of them, and {len(ours)} in {network.name}"
    for (there, found), (here, wanted) in zip(theirs, ours):
        rows = here.startswith(network.classifier_name)
        if not fault and found[rows:] != wanted[rows:]:
            fault = f"{there} is {_shape(found)} where {network.name} has {here}, {_shape(wanted)}"
        if not fault and not is_asked and there.rpartition(".")[2] != here.rpartition(".")[2]:
            fault = f"{there} would be {here}, which --by-order would take it for"
    if fault:
        known = ", ".join(one.owner for one in FORMATS.values())
        raise UserError(
            path,
            f"its names ({first_few(list(state))}) are of no format that is known ({known}), and its tensors are not "
            f"those of {network.name} in their order: {fault}",
            "choose the backbone that the weights were made for, or rename them",
        )
    return {here: state[there] for (there, _), (here, _) in zip(theirs, ours)}


def _shape(shape: torch.Size) -> str:
    return "x".join(map(str, shape))


def _ask(facts: Facts, chosen: Format, network: Backbone, path: Path) -> None:
    """Raise UserError with the flags that answer what `facts` lacks."""
    asked = [fact for fact in QUESTIONS if fact not in facts and (fact != "stride_in" or network.stride_in)]
    if not asked:
        return
    what, flags = zip(*(QUESTIONS[fact] for fact in asked))
    name = next((name for name, one in FORMATS.items() if one is chosen and one.usual), None)
    vouch = f"; for those of {chosen.owner}, or trained as they are, --format {name} answers all" if name else ""
    raise UserError(
        path,
        f"its names do not tell {joined(what)}",
        f"run: vertebra import-weights {path} --as {network.name} {' '.join(flags)} (pixels 0..255){vouch}",
    )
