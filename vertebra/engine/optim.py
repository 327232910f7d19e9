"""Optimisers with their parameter groups, and the learning rate of a step."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator
from typing import Any

import torch
from torch import nn
from torch.optim import SGD, AdamW, Optimizer


def parameter_groups(
    model: nn.Module, *, lr: float, weight_decay: float, decay_norms: bool = True, layer_decay: float = 1.0
) -> list[dict[str, Any]]:
    """Return the trained parameters of `model` in groups of one rate each: those that decay, and those that do not.

    Frozen parameters are left out; a parameter that two modules share comes once. decay_norms: norms and all biases
    too, as He et al. 2015 do; Goyal et al. 2017, §5.1 spare them. layer_decay: factor on the rate of each block of a
    backbone below the one after it (Bao et al. 2022, §3.1); the full rate comes first.
    Raises ValueError where nothing is left to train.
    """
    scales = _depth_scales(model, layer_decay)
    groups: dict[tuple[float, bool], list[nn.Parameter]] = defaultdict(list)
    for parameter, is_norm_or_bias in _parameters_with_kind(model):
        groups[scales.get(id(parameter), 1.0), decay_norms or not is_norm_or_bias].append(parameter)
    if not groups:
        raise ValueError("Nothing is left to train: every parameter is frozen; freeze fewer stages.")
    return [
        {"params": groups[scale, decays], "lr": lr * scale, "weight_decay": weight_decay if decays else 0.0}
        for scale, decays in sorted(groups, reverse=True)
    ]


def _depth_scales(model: nn.Module, layer_decay: float) -> dict[int, float]:
    """Return the factor on the rate of each parameter, by its `id`, that belongs to a backbone or a part of one."""
    scales: dict[int, float] = {}
    for module in model.modules() if layer_decay != 1 else ():
        depths = getattr(module, "depths", None)
        if isinstance(depths, dict):
            deepest = max(depths.values())
            for name, parameter in module.named_parameters():
                if name in depths:
                    scales[id(parameter)] = layer_decay ** (deepest - depths[name])
    return scales


def sgd(
    model: nn.Module,
    *,
    lr: float,
    momentum: float = 0.9,
    nesterov: bool = False,
    weight_decay: float = 1e-4,
    **grouping: Any,
) -> SGD:
    """SGD as He et al. 2015, §3.4 train: momentum 0.9, weight decay 1e-4. grouping: options of `parameter_groups`."""
    groups = parameter_groups(model, lr=lr, weight_decay=weight_decay, **grouping)
    return SGD(groups, lr=lr, momentum=momentum, nesterov=nesterov, fused=_can_fuse(groups))


def adamw(
    model: nn.Module, *, lr: float, weight_decay: float = 0.05, decay_norms: bool = False, **grouping: Any
) -> AdamW:
    """AdamW (Loshchilov and Hutter 2019); norms and biases do not decay, as is usual with it. grouping: as of `sgd`."""
    groups = parameter_groups(model, lr=lr, weight_decay=weight_decay, decay_norms=decay_norms, **grouping)
    return AdamW(groups, lr=lr, fused=_can_fuse(groups))


OPTIMIZERS = {"sgd": sgd, "adamw": adamw}


def set_learning_rate(optimizer: Optimizer, factor: float) -> float:
    """Set every group's learning rate to its base rate times `factor`; return the first's. Host only."""
    for group in optimizer.param_groups:
        group["lr"] = group.setdefault("initial_lr", group["lr"]) * factor
    return float(optimizer.param_groups[0]["lr"])


def fill_momentum(optimizer: Optimizer) -> None:
    """Give SGD its momentum before the first step: zeros, from which the first step comes out the same.

    A fused SGD that is told to skip its first step (fp16's loss scale often begins too high) would otherwise leave
    that buffer uninitialised, and the next step would add whatever lies there.
    """
    if not isinstance(optimizer, SGD):
        return
    for group in optimizer.param_groups:
        if group["momentum"] and not group["dampening"]:
            for parameter in group["params"]:
                if optimizer.state[parameter].get("momentum_buffer") is None:
                    optimizer.state[parameter]["momentum_buffer"] = torch.zeros_like(parameter)


def trained_parameters(optimizer: Optimizer) -> list[nn.Parameter]:
    """Return all parameters that `optimizer` updates, in its order."""
    return [parameter for group in optimizer.param_groups for parameter in group["params"]]


def _parameters_with_kind(model: nn.Module) -> Iterator[tuple[nn.Parameter, bool]]:
    """Yield each trained parameter once, with whether it is a norm's or a bias."""
    seen: set[int] = set()
    for module in model.modules():
        is_norm = "norm" in type(module).__name__.lower()
        for name, parameter in module.named_parameters(recurse=False):
            if parameter.requires_grad and id(parameter) not in seen:
                seen.add(id(parameter))
                yield parameter, is_norm or name == "bias" or name.endswith("_bias")


def _can_fuse(groups: list[dict[str, Any]]) -> bool:
    """Tell whether one kernel can update everything: floating point on the CPU or on CUDA.

    A fused step reads, updates and writes each weight once, and can be called off on the device (see `guard`).
    """
    parameters = [parameter for group in groups for parameter in group["params"]]
    return all(p.device.type in ("cpu", "cuda") and torch.is_floating_point(p) for p in parameters)
