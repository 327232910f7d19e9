"""What mixup and CutMix draw for a batch. The mixing itself is done on the device, by the classifier."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import torch

from vertebra.data.loading.sampling import draw_seed

_BATCH = -1  # in the place of the image's number in the key: drawn once for all images


@dataclass(frozen=True)
class Mixing:
    """Each picture mixed with its partner, the one before it in the share of the batch that a process has.

    mixup, cutmix: alphas of the Beta distributions of the own share (Zhang et al. 2017; Yun et al. 2019); 0: never.
    Where both are above 0 each batch is mixed in one of the two ways, with even chances.
    """

    mixup: float = 0.0
    cutmix: float = 0.0

    def __bool__(self) -> bool:
        return self.mixup > 0 or self.cutmix > 0

    def draw(self, seed: int, iteration: int, *, height: int, width: int) -> torch.Tensor:
        """mixing_5, float32: the own share 0..1 of each pixel, and x0 y0 x1 y1 of the box that is wholly the
        partner's. With mixup the box is empty, with CutMix the own share outside of it is 1. The same for all
        processes."""
        rng = np.random.default_rng(draw_seed(seed, iteration, _BATCH))
        cuts = self.cutmix > 0 and (self.mixup == 0 or rng.random() < 0.5)
        alpha = self.cutmix if cuts else self.mixup
        own = rng.beta(alpha, alpha)
        if not cuts:
            return torch.tensor([own, 0, 0, 0, 0], dtype=torch.float32)
        x, y = int(rng.integers(width)), int(rng.integers(height))
        half = math.sqrt(1 - own) / 2
        half_w, half_h = int(half * width), int(half * height)
        box = [max(x - half_w, 0), max(y - half_h, 0), min(x + half_w, width), min(y + half_h, height)]
        return torch.tensor([1, *box], dtype=torch.float32)
