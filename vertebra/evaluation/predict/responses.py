"""The strength of layers' responses: the standard deviation of outputs over images (He et al. 2015, §4.2 and fig. 7).

Legend of shape suffixes: N images, C channels, H W height and width.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from backbones.norms import evaluating
from vertebra.ground.errors import UserError


def response_deviations(
    model: nn.Module, layers: Mapping[str, nn.Module], loader: Iterable[Any], *, device: torch.device | str = "cpu"
) -> tuple[dict[str, float], int]:
    """The standard deviation of all that each of `layers` gives, over images, channels and places; and the images seen.

    layers: modules inside `model` by name; each is read by a hook, when it is called. loader: batches whose `inputs`
    begin with the pixels_N3HW. The model is evaluated (norms by their running statistics) and its mode restored. Sums
    are in float64 on the device. Raises UserError without images, where a layer never ran, and where one gives
    numbers that are not finite.
    """
    sums_3 = {name: torch.zeros(3, dtype=torch.float64, device=device) for name in layers}
    hooks = [module.register_forward_hook(partial(_add, sums_3[name])) for name, module in layers.items()]
    images = 0
    try:
        with evaluating(model):
            for batch in loader:
                pixels_N3HW = batch.to(device).inputs[0]
                model(pixels_N3HW)
                images += len(pixels_N3HW)
    finally:
        for hook in hooks:
            hook.remove()
    if not images:
        raise UserError("there are no images to measure the layers' responses on; is the split empty?")
    return {name: _deviation(name, sum_3) for name, sum_3 in sums_3.items()}, images


def _add(sums_3: Tensor, module: nn.Module, inputs: Any, output_NCHW: Tensor) -> None:
    """Add count, sum and sum of squares of a layer's output; the output may change in place after it."""
    # A layer gives tens of millions of values: float32 would lose the small ones' squares.
    values = output_NCHW.detach().double()
    sums_3.add_(torch.stack([sums_3.new_tensor(values.numel()), values.sum(), values.square().sum()]))


def _deviation(name: str, sums_3: Tensor) -> float:
    count, total, square_total = sums_3.tolist()
    if not count:
        raise UserError(f"the layer {name} gave nothing: the model does not call it")
    if not math.isfinite(square_total):
        raise UserError(f"the layer {name} gives numbers that are not finite: the weights have diverged")
    return max(0.0, square_total / count - (total / count) ** 2) ** 0.5
