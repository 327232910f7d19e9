"""Weights that others trained, made those of a network here: renamed, checked, and asked about.

What a file does not say (the order of its channels, the statistics of its pixels, where a bottleneck has its stride)
is known of some formats, and of the others asked for, never guessed: a wrong answer costs accuracy without an error.
Statistics are not folded into a layer: a network takes them from its weights' provenance (`weights.adopt_identity`).
The first convolution of a BGR file has its input channels turned round.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from backbones import Backbone
from vertebra.build.weight_formats import FORMATS, Facts, Format, add_constant_norms, our_name
from vertebra.engine.weights import check_fit
from vertebra.ground.errors import UserError
from vertebra.ground.formats import first_few, joined

# What a name cannot tell, and the flags that do.
QUESTIONS = {
    "channels": ("the order of its channels", "--channels rgb|bgr"),
    "stride_in": ("where its bottlenecks have their stride", "--stride-in 3x3|1x1"),
    "mean": ("the mean of its pixels", "--mean M M M"),
    "std": ("their deviation", "--std S S S"),
}


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
        ours = add_constant_norms(ours, network) if chosen.folded else ours
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
        if (here := our_name(found)) in ours:
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
