"""What a loader yields: the model's inputs, and what the loop wants to know about them."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import torch


@dataclass(frozen=True)
class Batch:
    """inputs: what `model(*batch.inputs)` takes. image_ids: of the images in it, in order.

    skipped: "path: reason" for each image that could not be used and was replaced by another of those in it.
    iteration: the number of the global batch.
    """

    inputs: tuple[Any, ...]
    image_ids: tuple[int, ...]
    skipped: tuple[str, ...] = ()
    iteration: int = 0

    def __len__(self) -> int:
        return len(self.image_ids)

    def to(self, device: torch.device | str) -> Batch:
        """The inputs on `device`; copies from pinned memory do not wait."""
        return replace(
            self,
            inputs=tuple(
                one.to(device, non_blocking=True) if isinstance(one, torch.Tensor) else one.to(device)
                for one in self.inputs
            ),
        )

    def pin_memory(self) -> Batch:
        return replace(self, inputs=tuple(one.pin_memory() for one in self.inputs))
