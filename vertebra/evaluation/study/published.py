"""What He et al. 2015 (arXiv 1512.03385) published on depth, each figure under the protocol that it was measured by.

Errors in per cent. A net is told by family ("plain", "residual", "vgg"), depth and shortcut (None: it has none).
"""

from __future__ import annotations

from dataclasses import dataclass

Key = tuple[str, int, str | None]


@dataclass(frozen=True)
class Published:
    """One column of a table of the paper: errors of nets that one protocol made comparable."""

    source: str
    data: str
    view: str
    schedule: str
    top1: dict[Key, float]
    top5: dict[Key, float]
    images_seen: int | None = None  # in the training: steps times batch


_IMAGENET_TRAINING = "up to 600k steps of 256"
_IMAGENET_IMAGES = 600_000 * 256

TEN_CROP = Published(
    source="the paper's tables 2 and 3",
    data="ImageNet, validation",
    view="10 crops",
    schedule=_IMAGENET_TRAINING,
    images_seen=_IMAGENET_IMAGES,
    top1={
        ("plain", 18, None): 27.94,
        ("residual", 18, "A"): 27.88,
        ("vgg", 16, None): 28.07,
        ("plain", 34, None): 28.54,
        ("residual", 34, "A"): 25.03,
        ("residual", 34, "B"): 24.52,
        ("residual", 34, "C"): 24.19,
        ("residual", 50, "B"): 22.85,
        ("residual", 101, "B"): 21.75,
        ("residual", 152, "B"): 21.43,
    },
    top5={
        ("vgg", 16, None): 9.33,
        ("plain", 34, None): 10.02,
        ("residual", 34, "A"): 7.76,
        ("residual", 34, "B"): 7.46,
        ("residual", 34, "C"): 7.40,
        ("residual", 50, "B"): 6.71,
        ("residual", 101, "B"): 6.05,
        ("residual", 152, "B"): 5.71,
    },
)

MULTISCALE = Published(
    source="the paper's table 4",
    data="ImageNet, validation",
    view="fully convolutional at 5 scales",
    schedule=_IMAGENET_TRAINING,
    images_seen=_IMAGENET_IMAGES,
    top1={
        ("residual", 34, "B"): 21.84,
        ("residual", 34, "C"): 21.53,
        ("residual", 50, "B"): 20.74,
        ("residual", 101, "B"): 19.87,
        ("residual", 152, "B"): 19.38,
    },
    top5={
        ("residual", 34, "B"): 5.71,
        ("residual", 34, "C"): 5.60,
        ("residual", 50, "B"): 5.25,
        ("residual", 101, "B"): 4.60,
        ("residual", 152, "B"): 4.49,
    },
)

CIFAR10 = Published(
    source="the paper's table 6",
    data="CIFAR-10, test",
    view="the single 32x32 view",
    schedule="64k steps of 128",
    images_seen=64_000 * 128,
    top1={
        ("residual", 20, "A"): 8.75,
        ("residual", 32, "A"): 7.51,
        ("residual", 44, "A"): 7.17,
        ("residual", 56, "A"): 6.97,
        ("residual", 110, "A"): 6.43,  # the best of five; their mean is 6.61, their standard deviation 0.16
        ("residual", 1202, "A"): 7.93,
    },
    top5={},
)
