"""Depthwise convolutions that learn in float32 on a CPU, whatever autocast says.

oneDNN's gradients of them take five to ten times as long in bf16 (five maps of EfficientNet-Lite0: 33 ms and 6, where
the forward pass takes 0.5 in either).
"""

from __future__ import annotations

from functools import cache
from typing import Any

import torch
from torch import Tensor, nn


class _Depthwise:
    """Mixed into a convolution's class; names and parameters stay."""

    def forward(self: Any, x_NCHW: Tensor) -> Tensor:
        is_trained = torch.is_grad_enabled() and x_NCHW.device.type == "cpu" and torch.is_autocast_enabled("cpu")
        if not is_trained:
            return super().forward(x_NCHW)  # type: ignore[misc]
        with torch.autocast("cpu", enabled=False):
            y_NCHW: Tensor = super().forward(x_NCHW.float())  # type: ignore[misc]
        return y_NCHW.to(torch.get_autocast_dtype("cpu"))

    def __reduce__(self) -> Any:  # its class has no name to be found by
        return _without_state, (type(self).__mro__[2],), self.__dict__


def learn_in_float32(net: nn.Module) -> None:
    """Let all depthwise convolutions in `net` learn so, in place."""
    for part in net.modules():
        if isinstance(part, nn.Conv2d) and part.groups == part.in_channels > 1 and not isinstance(part, _Depthwise):
            kind: Any = type(part)
            part.__class__ = _class_of(kind)


@cache
def _class_of(kind: Any) -> Any:
    return type(f"Depthwise{kind.__name__}", (_Depthwise, kind), {})


def _without_state(kind: Any) -> Any:
    return nn.Module.__new__(_class_of(kind))
