"""What He et al. 2015 (arXiv 1512.03385) published on depth, each figure under the protocol that it was measured by.

Errors in per cent. A net's key is its family ("plain", "residual", "vgg"), its depth and its shortcut, None without.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

Key = tuple[str, int, str | None]


@dataclass(frozen=True)
class Published:
    """Errors of nets that one protocol made comparable. images_seen: in the training, steps times batch."""

    data: str
    view: str
    schedule: str
    images_seen: int
    top1_top5: Mapping[Key, tuple[float | None, float | None]]

    def error(self, key: Key, k: int) -> float | None:
        """Return the net's top-k error, k 1 or 5; None where the paper gives none."""
        top1, top5 = self.top1_top5.get(key, (None, None))
        return top1 if k == 1 else top5


TEN_CROP = Published(  # tables 2 and 3
    data="ImageNet, validation",
    view="10 crops",
    schedule="up to 600k steps of 256",
    images_seen=600_000 * 256,
    top1_top5={
        ("vgg", 16, None): (28.07, 9.33),
        ("plain", 18, None): (27.94, None),
        ("plain", 34, None): (28.54, 10.02),
        ("residual", 18, "A"): (27.88, None),
        ("residual", 34, "A"): (25.03, 7.76),
        ("residual", 34, "B"): (24.52, 7.46),
        ("residual", 34, "C"): (24.19, 7.40),
        ("residual", 50, "B"): (22.85, 6.71),
        ("residual", 101, "B"): (21.75, 6.05),
        ("residual", 152, "B"): (21.43, 5.71),
    },
)

MULTISCALE = Published(  # table 4
    data="ImageNet, validation",
    view="fully convolutional at 5 scales",
    schedule="up to 600k steps of 256",
    images_seen=600_000 * 256,
    top1_top5={
        ("residual", 34, "B"): (21.84, 5.71),
        ("residual", 34, "C"): (21.53, 5.60),
        ("residual", 50, "B"): (20.74, 5.25),
        ("residual", 101, "B"): (19.87, 4.60),
        ("residual", 152, "B"): (19.38, 4.49),
    },
)

CIFAR10 = Published(  # table 6
    data="CIFAR-10, test",
    view="the single 32x32 view",
    schedule="64k steps of 128",
    images_seen=64_000 * 128,
    top1_top5={
        ("residual", 20, "A"): (8.75, None),
        ("residual", 32, "A"): (7.51, None),
        ("residual", 44, "A"): (7.17, None),
        ("residual", 56, "A"): (6.97, None),
        ("residual", 110, "A"): (6.43, None),  # the best of five; their mean is 6.61, their standard deviation 0.16
        ("residual", 1202, "A"): (7.93, None),
    },
)
