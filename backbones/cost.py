"""Cost of a network: parameters, and multiply-adds as He et al. 2015 (table 1) count FLOPs."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode


def count_parameters(module: nn.Module, *, trained_only: bool = False) -> int:
    """Number of parameters, shared ones once; `trained_only`: of those that ask for a gradient."""
    return sum(p.numel() for p in module.parameters() if p.requires_grad or not trained_only)


def count_flops(module: nn.Module, *inputs: Any, method: str = "forward", **named_inputs: Any) -> int:
    """Multiply-adds of all convolutions and linear layers in one call of `module`.

    Norms, activations, pooling (RoI pooling too, however it is computed) and additions are not counted, as in
    the paper. Counted is what is computed, not what the layers are, so branches, heads run on many regions and
    meta tensors (for the cost alone, without the work) are all right; `method` names another method than
    forward, such as "detect". The mode (training or not) is left as is.
    """
    counter = FlopCounterMode(display=False)
    trained = [parameter for parameter in module.parameters() if parameter.requires_grad]
    try:
        for parameter in trained:  # the counter takes no input of a module that wants a gradient without a graph
            parameter.requires_grad_(False)
        with torch.no_grad(), counter:
            getattr(module, method)(*inputs, **named_inputs)
    finally:
        for parameter in trained:
            parameter.requires_grad_(True)
    counts = counter.get_flop_counts()["Global"]
    # Products of two batches of matrices have no weights, so no layer's: RoIAlign is made of them.
    return sum(flops for kind, flops in counts.items() if kind != torch.ops.aten.bmm) // 2  # torch counts 2 each


def image_flops(module: nn.Module, height: int = 224, width: int = 224) -> int:
    """Multiply-adds for one image of that size in pixels; works on the meta device."""
    device = next(module.parameters()).device
    return count_flops(module, torch.zeros(1, 3, height, width, dtype=torch.uint8, device=device))
