"""The contract of every backbone: a chain of named stages and a classifier, frozen or cut at a stride.

Legend of shape suffixes: N images, C channels, H W height and width, D length of a vector.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import cached_property
from typing import Any

import torch
from torch import Tensor, nn

from backbones.cut import (
    PIXEL_MEAN,
    PIXEL_STD,
    Cut,
    FeatureSpec,
    MapTrunk,
    PixelNorm,
    RegionHead,
    Stage,
    Tail,
    Trunk,
)
from backbones.norms import freeze_norms


class BackboneError(ValueError):
    """A network that was asked for something it cannot do; the message is the sentence for the user."""


class Backbone(nn.Module):
    """A chain of stages and a classifier. Subclasses make the modules, then call `_finish`.

    Outside names of modules (torchvision's, timm's) are children of this module, so its own attributes keep
    clear of `features`, `stages`, `head`, `stem` and the like.
    """

    def __init__(
        self,
        name: str,
        num_classes: int,
        *,
        width: float = 1.0,
        mean: Sequence[float] = PIXEL_MEAN,
        std: Sequence[float] = PIXEL_STD,
    ) -> None:
        super().__init__()
        self.name, self.num_classes, self.width = name, num_classes, width
        self.pixel_norm = PixelNorm(mean, std)

    def _finish(self, chain: Sequence[Stage], tail: Tail, classifier: str, native_px: int = 224) -> None:
        """Says how the modules are chained; `native_px` is the side of the images for which the net was drawn."""
        self._chain, self._tail, self.classifier_name = tuple(chain), tail, classifier
        self.native_px = native_px
        # NHWC is what convolutions run fastest in, on CPUs with oneDNN and on tensor cores.
        self.to(memory_format=torch.channels_last)

    @cached_property
    def feature_specs(self) -> dict[str, FeatureSpec]:
        """Channels and stride of every map in `feature_maps`."""
        return {stage.key: stage.spec for stage in self._chain if self._is_public(stage)}

    def normalise(self, pixels_N3HW: Tensor, sizes_hw_N2: Tensor | None = None) -> Tensor:
        """Raw RGB pixels 0..255 to the network's input, channels_last; beyond the images' sizes 0."""
        return self.pixel_norm(pixels_N3HW, sizes_hw_N2)

    def forward(self, pixels_N3HW: Tensor) -> Tensor:
        """Raw RGB pixels 0..255 to logits_NC, float32 under autocast too."""
        return self.classify(self.last_map(pixels_N3HW))

    def last_map(self, pixels_N3HW: Tensor) -> Tensor:
        """Raw RGB pixels 0..255 to the map that the tail reads, NCHW."""
        x = self.pixel_norm(pixels_N3HW)
        for stage in self._chain:
            x = stage.run(self, x)
        return x

    def classify(self, map_NCHW: Tensor) -> Tensor:
        """The last map, or a part of it, to logits_NC, float32 under autocast too."""
        vectors_ND = self._tail.run(self, map_NCHW)
        return self.get_submodule(self.classifier_name)(vectors_ND).float()

    def feature_maps(self, pixels_N3HW: Tensor, sizes_hw_N2: Tensor | None = None) -> dict[str, Tensor]:
        """Raw RGB pixels 0..255 to the maps named in `feature_specs`, finest first."""
        x = self.pixel_norm(pixels_N3HW, sizes_hw_N2)
        maps: dict[str, Tensor] = {}
        for stage in self._chain:
            x = stage.run(self, x)
            if self._is_public(stage):
                maps[stage.key] = x
        return maps

    def cut(self, stride: int = 16, roi_size: int | None = None) -> Cut:
        """The network in two at the first map of that stride (He et al. 2015, appendix A).

        roi_size: side of a pooled region; by default what the map measures in the image the net was drawn for
        (224 px at stride 16: 14). Raises BackboneError where there is no map of that stride.
        """
        if stride not in self._cut_strides():
            raise BackboneError(
                f"{self.name} cannot be cut at stride {stride}; it has maps at strides "
                f"{', '.join(map(str, self._cut_strides()))}."
            )
        fits = [self._is_public(stage) and stage.spec.stride == stride for stage in self._chain]
        below = fits.index(True) + 1
        trunk = Trunk(self, self.pixel_norm, self._chain[:below])
        roi_size = self._roi_size(stride, roi_size)
        head = RegionHead(self, self._above(below), self._tail, in_channels=trunk.out_channels, roi_size=roi_size)
        return Cut(trunk, head)

    def trunk(self, key: str) -> Trunk:
        """The network up to that map, without its classifier; modules are shared. BackboneError: there is none."""
        return Trunk(self, self.pixel_norm, self._up_to([key]))

    def maps(self, keys: Sequence[str]) -> MapTrunk:
        """The network up to the last of these maps, giving all of them; as `trunk` otherwise."""
        return MapTrunk(self, self.pixel_norm, self._up_to(keys), keys)

    def _up_to(self, keys: Sequence[str]) -> tuple[Stage, ...]:
        missing = [key for key in keys if key not in self.feature_specs]
        if missing:
            raise BackboneError(
                f"{self.name} has no map {', '.join(missing)}; it has "
                + ", ".join(f"{key} (stride {spec.stride})" for key, spec in self.feature_specs.items())
                + "."
            )
        last = max(index for index, stage in enumerate(self._chain) if stage.key in keys)
        return self._chain[: last + 1]

    def freeze(self, stride: int) -> None:
        """Fixes every stage up to that stride: parameters stay, norms are constant; 0 fixes nothing.

        ResNet, stride 4: conv1 and conv2_x. VGG, stride 4: conv1_x and conv2_x (see `VGG.freeze`). No graph
        is kept of frozen stages, as neither pixels nor parameters ask for a gradient.
        """
        if stride not in (0, 1, 2, 4, 8, 16, 32):
            raise BackboneError(f"{self.name} cannot be frozen up to stride {stride}: 0, 2, 4, 8, 16 or 32 is meant.")
        for stage in self._chain:
            if self._freezes(stage, stride):
                for name in stage.modules:
                    module = self.get_submodule(name)
                    module.requires_grad_(False)
                    freeze_norms(module)

    def identity(self) -> dict[str, Any]:
        """What weights must agree with to be used in this network; JSON-able, goes into their provenance."""
        return {
            "name": self.name,
            "num_classes": self.num_classes,
            "width": self.width,
            "shortcut": None,
            "stride_in": None,
            "channel_order": "RGB",
            "pixel_mean": list(self.pixel_norm.mean_values),
            "pixel_std": list(self.pixel_norm.std_values),
        }

    def _is_public(self, stage: Stage) -> bool:
        return stage.spec.stride >= 4

    def _cut_strides(self) -> list[int]:
        return sorted({stage.spec.stride for stage in self._chain if self._is_public(stage)})

    def _above(self, below: int) -> tuple[Stage, ...]:
        """Stages of the head when `below` stages are in the trunk."""
        return self._chain[below:]

    def _roi_size(self, stride: int, asked: int | None) -> int:
        return asked if asked is not None else self.native_px // stride

    def _freezes(self, stage: Stage, stride: int) -> bool:
        return stage.spec.stride <= stride


def scaled(channels: int, width: float) -> int:
    """`channels` times `width`, in multiples of 8 (what vector units and tensor cores like), at least 8."""
    return channels if width == 1 else max(8, 8 * round(channels * width / 8))


def stage_key(stride: int) -> str:
    """The name of a map: "c2" at stride 4 .. "c5" at stride 32."""
    return f"c{int(math.log2(stride))}"


def initialise(module: nn.Module) -> None:
    """He initialisation of every convolution and hidden linear layer, in place (He et al. 2015b, §2.2).

    Convolutions: normal, variance 2 / (outputs fed by one input). Norms: the identity. Biases: 0.
    """
    for part in module.modules():
        if isinstance(part, nn.Conv2d):
            nn.init.kaiming_normal_(part.weight, mode="fan_out", nonlinearity="relu")
        elif isinstance(part, nn.Linear):
            nn.init.kaiming_normal_(part.weight, mode="fan_in", nonlinearity="relu")
        if isinstance(part, nn.Conv2d | nn.Linear) and part.bias is not None:
            nn.init.zeros_(part.bias)


def initialise_classifier(linear: nn.Linear) -> None:
    """Small weights, so that all classes start about equally likely."""
    nn.init.normal_(linear.weight, std=0.01)
    nn.init.zeros_(linear.bias)


def check_width(name: str, width: float) -> None:
    """Raises BackboneError unless the width factor is a positive number."""
    if not (width > 0 and math.isfinite(width)):
        raise BackboneError(f"{name} cannot have width {width}: a factor above 0 is meant, such as 0.5.")
