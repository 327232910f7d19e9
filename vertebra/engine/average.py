"""A moving average of the weights: what they were over the last steps, which is often better than what they are."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn


class WeightAverage:
    """The exponential moving average of a model's parameters and of its norms' running statistics.

    decay: share of the old average that each step keeps (0 < decay < 1): the average reaches back about
        1 / (1 - decay) steps. Early on it is (1 + n) / (10 + n) at step n where that is less, so that the random
        weights of the beginning are soon forgotten.
    model: on its device, where it stays; its tensors keep their places when the average is `lent` to it.
    """

    def __init__(self, model: nn.Module, decay: float):
        if not 0 < decay < 1:
            raise ValueError(f"An average's decay lies between 0 and 1, not {decay}.")
        self.decay = decay
        buffers = dict(model.named_buffers())
        tensors = {**dict(model.named_parameters()), **buffers}
        saved = model.state_dict().keys()  # constants, such as the pixels' mean, are not
        self._names = [name for name, tensor in tensors.items() if tensor.is_floating_point() and name in saved]
        self._live = [tensors[name].detach() for name in self._names]  # the model's own storage
        self._averages = [tensor.clone() for tensor in self._live]
        # Of the running statistics alone: a step that is called off leaves weights as they were, but not these.
        self.buffers = [tensor for name, tensor in zip(self._names, self._averages) if name in buffers]

    def update(self, step: int) -> None:
        """Draw the average towards the weights after step `step` (1, 2, ...). No host wait."""
        decay = min(self.decay, (1 + step) / (10 + step))
        torch._foreach_lerp_(self._averages, self._live, 1 - decay)

    @contextmanager
    def lent(self) -> Iterator[None]:
        """Give the model the average's values, and afterwards its own again, to the bit."""
        own = [tensor.clone() for tensor in self._live]
        torch._foreach_copy_(self._live, self._averages)
        try:
            yield
        finally:
            torch._foreach_copy_(self._live, own)

    def state_dict(self) -> dict[str, Tensor]:
        """Return the averages under the model's names: the floating-point part of a state dict."""
        return dict(zip(self._names, self._averages))

    def load_state_dict(self, state: dict[str, Tensor]) -> None:
        """Put `state_dict` back. Raises KeyError where it is another model's."""
        torch._foreach_copy_(self._averages, [state[name].to(a.device) for name, a in zip(self._names, self._averages)])
