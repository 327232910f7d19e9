"""The contract of every backbone: a chain of named stages and a classifier, frozen or cut at a stride.

Legend of shape suffixes: N images, C channels, H W height and width, D length of a vector.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from functools import cached_property
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor, nn

from backbones.chain import PIXEL_MEAN, PIXEL_STD, Chain, PixelNorm, Stage, Step, modules_of
from backbones.cut import Cut, MapTrunk, RegionHead, Trunk
from backbones.norms import freeze_norms


class BackboneError(ValueError):
    """Raised for a network that does not exist or cannot do what is wanted; the message is for the user."""


class Backbone(Chain):
    """A chain of stages, a tail that makes vectors of its last map, and a linear classifier of those.

    modules: all of them by name, in the order in which files and optimisers have their parameters. They become children
    of this module; outside names (torchvision's, timm's) are among them, so its own attributes keep clear of
    `features`, `stages`, `head`, `stem` and the like.
    classifier: the linear layer's dotted name. mean, std: of its pixels, RGB, 0..255.
    native_px: side of the images for which the net was drawn.
    tail_side: side of the map that the tail needs; None: any.
    shortcut, stride_in: see `ResNet`; None for networks that have no such choice.
    """

    def __init__(
        self,
        name: str,
        num_classes: int,
        modules: Mapping[str, nn.Module],
        chain: Sequence[Stage],
        *,
        tail: Sequence[Step],
        classifier: str,
        width: float = 1.0,
        mean: Sequence[float] = PIXEL_MEAN,
        std: Sequence[float] = PIXEL_STD,
        native_px: int = 224,
        tail_side: int | None = None,
        shortcut: str | None = None,
        stride_in: str | None = None,
    ) -> None:
        super().__init__(chain)
        self.name, self.num_classes, self.width = name, num_classes, width
        self.shortcut, self.stride_in = shortcut, stride_in
        self.tail, self.classifier_name = tuple(tail), classifier
        self.native_px, self.tail_side = native_px, tail_side
        self.feature_specs = {stage.key: stage.spec for stage in chain if stage.is_map}
        self.pixel_norm = PixelNorm(mean, std)
        for module_name, module in modules.items():
            self.add_module(module_name, module)
        # NHWC is what convolutions run fastest in, on CPUs with oneDNN and on tensor cores.
        self.to(memory_format=torch.channels_last)

    @property
    def vector_length(self) -> int:
        """Features of an image, or of a region, that the classifier reads."""
        return self.get_submodule(self.classifier_name).in_features  # type: ignore[return-value]

    def forward(self, pixels_N3HW: Tensor) -> Tensor:
        """Raw RGB pixels 0..255 to logits_NC, float32 under autocast too."""
        return self.classify(self.last_map(pixels_N3HW))

    def last_map(self, pixels_N3HW: Tensor) -> Tensor:
        """Raw RGB pixels 0..255 to the map that the tail reads, NCHW."""
        return self.run(self.pixel_norm(pixels_N3HW))[0]

    def classify(self, map_NCHW: Tensor) -> Tensor:
        """The last map, or a part of it, to logits_NC, float32 under autocast too."""
        return self.run_steps((*self.tail, self.classifier_name), map_NCHW).float()

    def feature_maps(self, pixels_N3HW: Tensor, sizes_hw_N2: Tensor | None = None) -> dict[str, Tensor]:
        """Raw RGB pixels 0..255 to the maps named in `feature_specs`, finest first; beyond the images' sizes 0."""
        return self.run(self.pixel_norm(pixels_N3HW, sizes_hw_N2), keep=self.feature_specs)[1]

    def cut(self, stride: int = 16, roi_size: int | None = None) -> Cut:
        """The network in two at the first map of that stride (He et al. 2015, appendix A).

        roi_size: side of a pooled region; by default what the map measures in the image the net was drawn for
        (224 px at stride 16: 14). Raises BackboneError where there is no map of that stride.
        """
        key = next((key for key, spec in self.feature_specs.items() if spec.stride == stride), None)
        if key is None:
            strides = sorted({spec.stride for spec in self.feature_specs.values()})
            raise BackboneError(
                f"{self.name} cannot be cut at stride {stride}; it has maps at strides {', '.join(map(str, strides))}."
            )
        trunk = self.trunk(key)
        above = [stage for stage in self.chain[len(trunk.chain) :] if stage.in_head]
        roi_size = self._roi_size(stride, above, roi_size)
        return Cut(trunk, RegionHead(self, above, in_channels=trunk.out_channels, roi_size=roi_size))

    def trunk(self, key: str) -> Trunk:
        """The network up to that map, without its classifier; modules are shared. BackboneError: there is none."""
        return Trunk(self, self._up_to([key]))

    def maps(self, keys: Sequence[str]) -> MapTrunk:
        """The network up to the last of these maps, giving all of them; as `trunk` otherwise."""
        return MapTrunk(self, self._up_to(keys), keys)

    def _up_to(self, keys: Sequence[str]) -> tuple[Stage, ...]:
        self.check_keys(keys)
        last = max(index for index, stage in enumerate(self.chain) if stage.key in keys)
        return self.chain[: last + 1]

    def check_keys(self, keys: Sequence[str]) -> None:
        """Raises BackboneError unless there are maps of all these names."""
        missing = [key for key in keys if key not in self.feature_specs]
        if missing:
            raise BackboneError(
                f"{self.name} has no map {', '.join(missing)}; it has "
                + ", ".join(f"{key} (stride {spec.stride})" for key, spec in self.feature_specs.items())
                + "."
            )

    def _roi_size(self, stride: int, above: Sequence[Stage], asked: int | None) -> int:
        """The side of a region pooled at `stride`, so that the stages above leave a map that the tail can read."""
        if self.tail_side is None:
            return asked if asked is not None else self.native_px // stride
        fixed = self.tail_side * (above[-1].spec.stride // stride if above else 1)
        if asked not in (None, fixed):
            raise BackboneError(
                f"{self.name} cut at stride {stride} needs roi_size {fixed}, as fc6 reads "
                f"{self.tail_side}x{self.tail_side} maps, not {asked}."
            )
        return fixed

    def freeze(self, stride: int) -> None:
        """Fix every stage up to that stride: parameters stay, norms are constant; 0 fixes nothing.

        ResNet, stride 4: conv1 and conv2_x. VGG, stride 4: conv1_x and conv2_x, as Fast and Faster R-CNN do (Girshick
        2015, §4.5), not conv3_x, although its output has stride 4 as well; stride 32 fixes all convolutions.
        No graph is kept of frozen stages, as neither pixels nor parameters ask for a gradient.
        """
        self.check_stride(stride)
        for stage in self.chain:
            if (stage.frozen_from or stage.spec.stride) <= stride:
                for name in modules_of(stage.steps):
                    module = self.get_submodule(name)
                    module.requires_grad_(False)
                    freeze_norms(module)

    def check_stride(self, stride: int) -> None:
        """Raises BackboneError for a stride up to which nothing can be frozen."""
        if stride not in (0, 1, 2, 4, 8, 16, 32):
            raise BackboneError(f"{self.name} cannot be frozen up to stride {stride}; choose 0, 2, 4, 8, 16 or 32.")

    @cached_property
    def depths(self) -> dict[str, int]:
        """Depth of each parameter by its name, in blocks from the pixels (0) to the classifier, the deepest."""
        depths: dict[str, int] = {}
        depth = -1
        steps = [step for stage in self.chain for step in stage.steps]
        for name in (*modules_of([*steps, *self.tail]), self.classifier_name):
            module = self.get_submodule(name)
            blocks = dict(module.named_children()) if isinstance(module, nn.Sequential) else {"": module}
            for child, block in blocks.items():
                # A norm alone is no block, but a part of the one before.
                depth += any(parameter.ndim > 1 for parameter in block.parameters())
                place = f"{name}.{child}" if child else name
                depths |= {f"{place}.{own}": max(depth, 0) for own, _ in block.named_parameters()}
        return depths

    def identity(self) -> dict[str, Any]:
        """Facts that weights must share to fit this network; JSON-able, goes into their provenance."""
        return {
            "name": self.name,
            "num_classes": self.num_classes,
            "width": self.width,
            "shortcut": self.shortcut,
            "stride_in": self.stride_in,
            "channel_order": "RGB",
            "pixel_mean": list(self.pixel_norm.mean_values),
            "pixel_std": list(self.pixel_norm.std_values),
        }

    def three_by_three(self) -> dict[str, nn.Module]:
        """Name of each 3x3 convolution, in order, to the module that gives the layer's response.

        That is its batch norm, before the ReLU or the addition (He et al. 2015, fig. 7); the convolution itself where
        it has no norm (VGG). Raises BackboneError for an outside network, whose layers are not known by name.
        """
        leaves = [(name, part) for name, part in self.named_modules() if not any(part.children())]
        layers: dict[str, nn.Module] = {}
        for (name, part), (_, after) in pairwise(leaves):
            if isinstance(part, nn.Conv2d) and part.kernel_size == (3, 3):
                layers[name] = after if isinstance(after, nn.BatchNorm2d) else part
        return layers


def scaled(channels: int, width: float) -> int:
    """`channels` times `width`, in multiples of 8 (what vector units and tensor cores like), at least 8."""
    return channels if width == 1 else max(8, 8 * round(channels * width / 8))


def initialise(modules: Mapping[str, nn.Module], classifier: nn.Linear) -> None:
    """He initialisation of every convolution and hidden linear layer, in place (He et al. 2015b, §2.2).

    Convolutions: normal, variance 2 / (outputs fed by one input). Norms: the identity. Biases: 0. The classifier gets
    small weights, so that all classes start about equally likely.
    """
    for part in (part for module in modules.values() for part in module.modules()):
        if isinstance(part, nn.Conv2d):
            nn.init.kaiming_normal_(part.weight, mode="fan_out", nonlinearity="relu")
        elif isinstance(part, nn.Linear):
            nn.init.kaiming_normal_(part.weight, mode="fan_in", nonlinearity="relu")
        if isinstance(part, nn.Conv2d | nn.Linear) and part.bias is not None:
            nn.init.zeros_(part.bias)
    nn.init.normal_(classifier.weight, std=0.01)
    nn.init.zeros_(classifier.bias)


def check_width(name: str, width: float) -> None:
    """Raises BackboneError unless the width factor is a positive number."""
    if not (width > 0 and math.isfinite(width)):
        raise BackboneError(f"{name} cannot have width {width}; choose a factor above 0, such as 0.5.")
