"""Residual nets and the plain nets beside them (He et al. 2015, §3.3, table 1), with torchvision's names.

Legend of shape suffixes: N images, C channels, H W height and width.
"""

from __future__ import annotations

from functools import partial
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from backbones.base import (
    Backbone,
    BackboneError,
    FeatureSpec,
    Stage,
    Tail,
    check_width,
    initialise,
    initialise_classifier,
    scaled,
)
from backbones.norms import conv_norm
from backbones.recompute import run_recomputed

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


def conv(size: int, inputs: int, outputs: int, stride: int = 1, dilation: int = 1) -> nn.Conv2d:
    """A convolution without bias that keeps the map's size at stride 1."""
    padding = dilation * (size // 2)
    return nn.Conv2d(inputs, outputs, size, stride, padding, dilation, bias=False)


class Block(nn.Module):
    """What both blocks share: the shortcut. `inputs` and `outputs` are channels.

    shortcut: "A" identity, zero-padded where channels grow; "B" a 1x1 projection there; "C" a projection in
    every block; None: no shortcut at all (plain nets).
    """

    downsample: nn.Sequential | None
    last_norm: str
    recomputes = False  # its maps in the backward pass, see `recompute_blocks`

    def __init__(self, inputs: int, outputs: int, stride: int, shortcut: str | None) -> None:
        super().__init__()
        self.stride, self.shortcut, self.added_channels = stride, shortcut, outputs - inputs
        changes = stride != 1 or inputs != outputs
        self.projects = shortcut == "C" or (shortcut == "B" and changes)

    def _make_shortcut(self, inputs: int, outputs: int) -> None:
        """Made last, as the order of construction is the order of parameters in files."""
        self.downsample = None
        if self.projects:
            self.downsample = nn.Sequential(conv(1, inputs, outputs, self.stride), nn.BatchNorm2d(outputs))

    def residual(self, x_NCHW: Tensor) -> Tensor:
        """F(x), before the addition and the last ReLU."""
        raise NotImplementedError

    def forward(self, x_NCHW: Tensor) -> Tensor:
        if self.recomputes and torch.is_grad_enabled():
            return run_recomputed(self, self.run, x_NCHW)
        return self.run(x_NCHW)

    def run(self, x_NCHW: Tensor) -> Tensor:
        y = self.residual(x_NCHW)
        if self.shortcut is not None:
            y += self._shortcut(x_NCHW)
        return F.relu(y, inplace=True)

    def _shortcut(self, x_NCHW: Tensor) -> Tensor:
        if self.downsample is not None:
            return conv_norm(x_NCHW, self.downsample[0], self.downsample[1])  # type: ignore[arg-type]
        if self.stride == 1 and not self.added_channels:
            return x_NCHW
        # In the order of memory, or the gradient comes back in the order of NCHW, and keeps it through all the
        # identity shortcuts below, whose additions and ReLUs then run at a fifth of the speed.
        x_NHWC = x_NCHW.permute(0, 2, 3, 1)[:, :: self.stride, :: self.stride]
        return F.pad(x_NHWC, (0, self.added_channels)).permute(0, 3, 1, 2)


class BasicBlock(Block):
    """Two 3x3 layers (fig. 5, left)."""

    expansion = 1
    last_norm = "bn2"

    def __init__(
        self, inputs: int, planes: int, stride: int, shortcut: str | None, stride_in: str, dilation: int = 1
    ) -> None:
        super().__init__(inputs, planes, stride, shortcut)
        self.conv1 = conv(3, inputs, planes, stride, dilation)
        self.bn1 = nn.BatchNorm2d(planes)
        self.conv2 = conv(3, planes, planes, 1, dilation)
        self.bn2 = nn.BatchNorm2d(planes)
        self._make_shortcut(inputs, planes)

    def residual(self, x_NCHW: Tensor) -> Tensor:
        x_NCHW = conv_norm(x_NCHW, self.conv1, self.bn1, relu=True)
        return conv_norm(x_NCHW, self.conv2, self.bn2)


class Bottleneck(Block):
    """1x1, 3x3, 1x1 (fig. 5, right). The stride is in the first 1x1 (paper) or in the 3x3 (torchvision)."""

    expansion = 4
    last_norm = "bn3"

    def __init__(
        self, inputs: int, planes: int, stride: int, shortcut: str | None, stride_in: str, dilation: int = 1
    ) -> None:
        outputs = planes * self.expansion
        super().__init__(inputs, outputs, stride, shortcut)
        first, second = (stride, 1) if stride_in == "1x1" else (1, stride)
        self.conv1 = conv(1, inputs, planes, first)
        self.bn1 = nn.BatchNorm2d(planes)
        self.conv2 = conv(3, planes, planes, second, dilation)
        self.bn2 = nn.BatchNorm2d(planes)
        self.conv3 = conv(1, planes, outputs)
        self.bn3 = nn.BatchNorm2d(outputs)
        self._make_shortcut(inputs, outputs)

    def residual(self, x_NCHW: Tensor) -> Tensor:
        x_NCHW = conv_norm(x_NCHW, self.conv1, self.bn1, relu=True)
        x_NCHW = conv_norm(x_NCHW, self.conv2, self.bn2, relu=True)
        return conv_norm(x_NCHW, self.conv3, self.bn3)


def make_layer(
    block: type[BasicBlock | Bottleneck],
    count: int,
    inputs: int,
    planes: int,
    stride: int,
    *,
    shortcut: str | None,
    stride_in: str,
    dilation: int = 1,
) -> nn.Sequential:
    """`count` blocks at one resolution; the first of them strides."""
    outputs = planes * block.expansion
    blocks = [block(inputs, planes, stride, shortcut, stride_in, dilation)]
    blocks += [block(outputs, planes, 1, shortcut, stride_in, dilation) for _ in range(count - 1)]
    return nn.Sequential(*blocks)


def run_stem(owner: Any, x_NCHW: Tensor) -> Tensor:
    """conv1, its norm and ReLU."""
    return conv_norm(x_NCHW, owner.conv1, owner.bn1, relu=True)


def run_layer(owner: nn.Module, x_NCHW: Tensor, *, name: str, pool: bool = False) -> Tensor:
    """One group of blocks; `pool`: the 3x3 max pooling before the first of them."""
    if pool:
        x_NCHW = F.max_pool2d(x_NCHW, kernel_size=3, stride=2, padding=1)
    return owner.get_submodule(name)(x_NCHW)


def run_global_pool(owner: nn.Module, x_NCHW: Tensor) -> Tensor:
    """Global average pooling to vectors_NC."""
    return x_NCHW.permute(0, 2, 3, 1).flatten(1, 2).mean(dim=1)  # so that the gradient is channels_last too


def set_last_norms_to_zero(module: nn.Module) -> None:
    """Each residual block starts as the identity (Goyal et al. 2017, §5.1)."""
    for block in module.modules():
        if isinstance(block, Block) and block.shortcut is not None:
            nn.init.zeros_(block.get_submodule(block.last_norm).weight)  # type: ignore[arg-type]


def recompute_blocks(net: Backbone) -> None:
    """In training each block keeps its input alone, and computes its other maps again in the backward pass.

    A third of the memory for a quarter more time (1202 layers, batches of 128 in bf16 on a CPU: 3.3 GB instead of 8.6).
    Raises BackboneError where there are no blocks (VGG, outside networks).
    """
    blocks = [block for block in net.modules() if isinstance(block, Block)]
    if not blocks:
        raise BackboneError(
            f"{net.name} cannot compute its activations again: that is done block by block, and our ResNets, "
            "plain nets and CIFAR nets alone have such blocks. Lower the batch size, or accumulate."
        )
    for block in blocks:
        block.recomputes = True


class ResNet(Backbone):
    """ResNet-18..152, and the plain nets of 18 and 34 layers.

    depth: 18, 34, 50, 101 or 152. residual: False for a plain net (18 and 34 only).
    shortcut: "A", "B" or "C" (§3.3, p. 6). stride_in: "1x1" (paper) or "3x3" (torchvision); bottlenecks only.
    dilate_last: conv5_x at stride 16 with dilated convolutions instead of stride 32 (DC5).
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
        zero_init_last: bool = False,
    ) -> None:
        name = f"r{depth}" if residual else f"plain{depth}"
        check_width(name, width)
        _check(name, depth, residual, shortcut, stride_in)
        super().__init__(name, num_classes, width=width)
        block = Bottleneck if depth in BOTTLENECK_DEPTHS else BasicBlock
        self.shortcut = shortcut if residual else None
        self.stride_in = stride_in if block is Bottleneck else None
        channels = scaled(64, width)
        self.conv1 = conv(7, 3, channels, stride=2)
        self.bn1 = nn.BatchNorm2d(channels)
        chain = [Stage("c1", FeatureSpec(channels, 2), ("conv1", "bn1"), run_stem)]
        inputs, stride = channels, 4
        for index, (count, base) in enumerate(zip(DEPTHS[depth], (64, 128, 256, 512)), start=1):
            dilated = index == 4 and dilate_last
            step = 1 if index == 1 or dilated else 2
            stride *= step
            planes = scaled(base, width)
            layer = make_layer(
                block, count, inputs, planes, step,
                shortcut=self.shortcut, stride_in=stride_in, dilation=2 if dilated else 1,
            )  # fmt: skip
            name = f"layer{index}"
            self.add_module(name, layer)
            inputs = planes * block.expansion
            run = partial(run_layer, name=name, pool=index == 1)
            chain.append(Stage(f"c{index + 1}", FeatureSpec(inputs, stride), (name,), run))
        self.fc = nn.Linear(inputs, num_classes)
        initialise(self)
        initialise_classifier(self.fc)
        if zero_init_last:
            set_last_norms_to_zero(self)
        self._finish(chain, Tail((), run_global_pool, inputs), "fc")

    def _freezes(self, stage: Stage, stride: int) -> bool:
        return 2 ** int(stage.key[1:]) <= stride  # conv5_x counts as stride 32 when dilated too

    def identity(self) -> dict[str, Any]:
        return {**super().identity(), "shortcut": self.shortcut, "stride_in": self.stride_in}


def _check(name: str, depth: int, residual: bool, shortcut: str, stride_in: str) -> None:
    if depth not in DEPTHS or (not residual and depth in BOTTLENECK_DEPTHS):
        raise BackboneError(
            f"There is no {name}: residual nets have {', '.join(map(str, DEPTHS))} layers, plain 18, 34."
        )
    if shortcut not in SHORTCUTS:
        raise BackboneError(f"{name} has no shortcut {shortcut!r}: A, B or C is meant.")
    if stride_in not in STRIDE_PLACES:
        raise BackboneError(
            f"{name} cannot have its stride in {stride_in!r}: 1x1 (paper) or 3x3 (torchvision) is meant."
        )
