"""The residual blocks of He et al. 2015 (fig. 5), their plain counterparts, and memory for time: recomputed blocks.

Legend of shape suffixes: N images, C channels, H W height and width.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, nullcontext

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.utils.checkpoint import checkpoint

from backbones.base import Backbone, BackboneError
from backbones.norms import Pool, conv_norm


def conv(size: int, inputs: int, outputs: int, stride: int = 1, dilation: int = 1) -> nn.Conv2d:
    """A convolution without bias that keeps the map's size at stride 1."""
    padding = dilation * (size // 2)
    return nn.Conv2d(inputs, outputs, size, stride, padding, dilation, bias=False)


class Block(nn.Module):
    """The shortcut, which both kinds of block share. `inputs` and `outputs` are channels.

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

    @property
    def reads_by_1x1(self) -> bool:
        """Whether 1x1 convolutions alone read its input, so that it may be a map to pool regions from."""
        return False

    def residual(self, x_NCHW: Tensor, pool: Pool | None = None) -> Tensor:
        """F(x), before the addition and the last ReLU."""
        raise NotImplementedError

    def forward(self, x_NCHW: Tensor, pool: Pool | None = None) -> Tensor:
        """pool: where `reads_by_1x1`, what makes the regions of x that the block runs on; see `conv_norm`."""
        if self.recomputes and torch.is_grad_enabled():
            # Chen et al. 2016. No block draws random numbers, and the norms' running statistics move once.
            contexts = lambda: (nullcontext(), _statistics_kept(self))  # noqa: E731
            return checkpoint(
                self.run, x_NCHW, pool, use_reentrant=False, preserve_rng_state=False, context_fn=contexts
            )
        return self.run(x_NCHW, pool)

    def run(self, x_NCHW: Tensor, pool: Pool | None) -> Tensor:
        y = self.residual(x_NCHW, pool)
        if self.shortcut is not None:
            y += self._shortcut(x_NCHW, pool)
        return F.relu(y, inplace=True)

    def _shortcut(self, x_NCHW: Tensor, pool: Pool | None) -> Tensor:
        if self.downsample is not None:
            return conv_norm(x_NCHW, self.downsample[0], self.downsample[1], pool=pool)  # type: ignore[arg-type]
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

    def residual(self, x_NCHW: Tensor, pool: Pool | None = None) -> Tensor:
        assert pool is None, "a 3x3 layer reads regions that are pooled already"
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

    @property
    def reads_by_1x1(self) -> bool:
        return self.projects

    def residual(self, x_NCHW: Tensor, pool: Pool | None = None) -> Tensor:
        x_NCHW = conv_norm(x_NCHW, self.conv1, self.bn1, relu=True, pool=pool)
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
    first_dilation: int | None = None,
) -> nn.Sequential:
    """`count` blocks at one resolution; the first of them strides, and may have a dilation of its own."""
    outputs = planes * block.expansion
    blocks = [block(inputs, planes, stride, shortcut, stride_in, first_dilation or dilation)]
    blocks += [block(outputs, planes, 1, shortcut, stride_in, dilation) for _ in range(count - 1)]
    return nn.Sequential(*blocks)


def global_average(x_NCHW: Tensor) -> Tensor:
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


@contextmanager
def _statistics_kept(part: nn.Module) -> Iterator[None]:
    """Batch norms normalise as in training and do not move their running statistics."""
    # Not by track_running_stats: autograd counts that the second pass saves just what the first did.
    norms = [norm for norm in part.modules() if isinstance(norm, _BatchNorm)]
    before = [(norm.momentum, norm.num_batches_tracked) for norm in norms]
    try:
        for norm in norms:
            norm.momentum, norm.num_batches_tracked = 0.0, None
        yield
    finally:
        for norm, (momentum, count) in zip(norms, before):
            norm.momentum, norm.num_batches_tracked = momentum, count
