"""Residual nets and the plain nets beside them (He et al. 2015, §3.3, table 1), with torchvision's names."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn

from backbones.base import Backbone, BackboneError, check_width, initialise, scaled
from backbones.blocks import BasicBlock, Bottleneck, conv, global_average, make_layer, set_last_norms_to_zero
from backbones.chain import ConvNorm, FeatureSpec, Stage, Step

DEPTHS = {
    18: (2, 2, 2, 2),
    34: (3, 4, 6, 3),
    50: (3, 4, 6, 3),
    101: (3, 4, 23, 3),
    152: (3, 8, 36, 3),
}
BOTTLENECK_DEPTHS = (50, 101, 152)
SHORTCUTS = ("A", "B", "C")
STRIDE_PLACES = ("1x1", "3x3")


def max_pool(x_NCHW: Tensor) -> Tensor:
    """The 3x3 max pooling at stride 2 with which conv2_x begins."""
    return F.max_pool2d(x_NCHW, kernel_size=3, stride=2, padding=1)


class ResNet(Backbone):
    """ResNet-18..152, and the plain nets of 18 and 34 layers.

    depth: 18, 34, 50, 101 or 152. residual: False for a plain net (18 and 34 only).
    shortcut: "A", "B" or "C" (§3.3, p. 6). stride_in: "1x1" (paper) or "3x3" (torchvision); bottlenecks only.
    dilate_last: conv5_x at stride 16 with dilated convolutions instead of stride 32 (DC5; all blocks alike, as in
        detectron2).
    output_stride: 32, 16 or 8: stages that would go beyond are dilated instead (segmentation; a stage's first block
        as the stage before it, as in torchvision).
    zero_init_last: the last norm of each block starts at zero.
    """

    def __init__(
        self,
        depth: int,
        num_classes: int = 1000,
        *,
        residual: bool = True,
        width: float = 1.0,
        shortcut: str = "B",
        stride_in: str = "3x3",
        dilate_last: bool = False,
        output_stride: int = 32,
        zero_init_last: bool = False,
    ) -> None:
        name = f"r{depth}" if residual else f"plain{depth}"
        check_width(name, width)
        _check(name, depth, residual, shortcut, stride_in)
        block = Bottleneck if depth in BOTTLENECK_DEPTHS else BasicBlock
        own_shortcut = shortcut if residual else None
        inputs, stride, dilation = scaled(64, width), 4, 1
        modules: dict[str, nn.Module] = {"conv1": conv(7, 3, inputs, stride=2), "bn1": nn.BatchNorm2d(inputs)}
        chain = [Stage("c1", FeatureSpec(inputs, 2), (ConvNorm("conv1", "bn1"),), is_map=False)]
        for index, (count, base) in enumerate(zip(DEPTHS[depth], (64, 128, 256, 512)), start=1):
            before, step = dilation, 1 if index == 1 else 2
            if stride * step > output_stride or (index == 4 and dilate_last):
                step, dilation = 1, 2 * dilation
            stride *= step
            planes = scaled(base, width)
            modules[f"layer{index}"] = make_layer(
                block, count, inputs, planes, step, shortcut=own_shortcut, stride_in=stride_in,
                dilation=dilation, first_dilation=dilation if dilate_last else before,
            )  # fmt: skip
            inputs = planes * block.expansion
            steps: tuple[Step, ...] = (max_pool, "layer1") if index == 1 else (f"layer{index}",)
            # A dilated stage is frozen as it would be undilated.
            chain.append(Stage(f"c{index + 1}", FeatureSpec(inputs, stride), steps, frozen_from=2 ** (index + 1)))
        modules["fc"] = classifier = nn.Linear(inputs, num_classes)
        initialise(modules, classifier)
        super().__init__(
            name,
            num_classes,
            modules,
            chain,
            tail=(global_average,),
            classifier="fc",
            width=width,
            shortcut=own_shortcut,
            stride_in=stride_in if block is Bottleneck else None,
        )
        if zero_init_last:
            set_last_norms_to_zero(self)


def _check(name: str, depth: int, residual: bool, shortcut: str, stride_in: str) -> None:
    if depth not in DEPTHS or (not residual and depth in BOTTLENECK_DEPTHS):
        raise BackboneError(
            f"There is no {name}: residual nets have {', '.join(map(str, DEPTHS))} layers, plain 18, 34."
        )
    if shortcut not in SHORTCUTS:
        raise BackboneError(f"{name} has no shortcut {shortcut!r}; choose A, B or C.")
    if stride_in not in STRIDE_PLACES:
        raise BackboneError(f"{name} cannot have its stride in {stride_in!r}; choose 1x1 (paper) or 3x3 (torchvision).")
