"""Parts of a network, each a module of its own for a detector to own: the trunk below a cut, the head above it.

Legend of shape suffixes: N images, R regions, C channels, H W height and width, D length of a vector.

The parts of one cut have no module in common, and together all but the classifier, so that a model made of them trains
every parameter it has. Each names its parameters as the whole network does.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, NamedTuple

import torch
from torch import Tensor, nn

from backbones.chain import Chain, Stage, Step, modules_of
from backbones.norms import Pool

if TYPE_CHECKING:
    from backbones.base import Backbone


class Part(Chain):
    """Some stages of a backbone, and the tail if it is given, with the backbone's own modules, uncopied.

    depths: of the backbone's parameters, by name.
    """

    def __init__(self, backbone: Backbone, chain: Sequence[Stage], tail: Sequence[Step] = ()) -> None:
        super().__init__(chain)
        self.training = backbone.training
        self.depths = backbone.depths
        for name in modules_of([step for stage in chain for step in stage.steps] + list(tail)):
            self._own(name, backbone)

    def _own(self, name: str, backbone: Backbone) -> None:
        """Register the backbone's module of that dotted name under the same name."""
        *parents, last = name.split(".")
        place: nn.Module = self
        for parent in parents:
            if parent not in place._modules:
                place.add_module(parent, nn.Module())
                place.get_submodule(parent).training = backbone.training
            place = place.get_submodule(parent)
        place.add_module(last, backbone.get_submodule(name))


class Trunk(Part):
    """Runs once an image: pixel normalisation and the stages up to the cut.

    out_channels, stride: of the map it ends in.
    """

    def __init__(self, backbone: Backbone, chain: Sequence[Stage]) -> None:
        super().__init__(backbone, chain)
        self.pixel_norm = backbone.pixel_norm
        self.out_channels, self.stride = chain[-1].spec.channels, chain[-1].spec.stride

    def forward(self, pixels_N3HW: Tensor, sizes_hw_N2: Tensor | None = None) -> Tensor:
        """RGB pixels 0..255 to the feature map at the cut, NCHW."""
        return self.run(self.pixel_norm(pixels_N3HW, sizes_hw_N2))[0]


class MapTrunk(Part):
    """Runs once an image where several maps are read (FPN): pixel normalisation and the stages up to the last map.

    specs: channels and stride of each map, in the order of `keys`.
    """

    def __init__(self, backbone: Backbone, chain: Sequence[Stage], keys: Sequence[str]) -> None:
        super().__init__(backbone, chain)
        self.pixel_norm, self.keys = backbone.pixel_norm, tuple(keys)
        self.specs = tuple(backbone.feature_specs[key] for key in keys)

    def forward(self, pixels_N3HW: Tensor, sizes_hw_N2: Tensor | None = None) -> tuple[Tensor, ...]:
        """RGB pixels 0..255 to the maps, NCHW each."""
        _, maps = self.run(self.pixel_norm(pixels_N3HW, sizes_hw_N2), keep=self.keys)
        return tuple(maps[key] for key in self.keys)


class RegionHead(Part):
    """Runs once a region: the network above the cut, without its classifier.

    roi_size: height and width of a pooled region; in_channels: its channels; map_channels: those of the map before
    the tail; out_channels: length of the vector. extra_norm: None, or a norm between the two (MoCo's transfer protocol
    has one, as features that no classifier has trained come in any scale: He et al. 2019, appendix).
    """

    extra_norm: nn.Module | None

    def __init__(self, backbone: Backbone, chain: Sequence[Stage], *, in_channels: int, roi_size: int) -> None:
        super().__init__(backbone, chain, backbone.tail)
        self.tail = backbone.tail
        self.in_channels, self.out_channels, self.roi_size = in_channels, backbone.vector_length, roi_size
        self.map_channels = chain[-1].spec.channels if chain else in_channels
        self.extra_norm = None

    def forward(self, regions_RCHW: Tensor) -> Tensor:
        """Pooled regions to vectors_RD."""
        return self.vectors(self.maps(regions_RCHW))

    def maps(self, x_NCHW: Tensor, pool: Pool | None = None) -> Tensor:
        """Pooled regions RCHW to the last map of each: a mask is read from it.

        pool: where `reads_by_1x1`, what makes the regions of a map, which is given instead; see `conv_norm`.
        """
        if pool is None:
            # RoI pooling gives NCHW; one reorder here, instead of one in each convolution that reads the regions.
            x, _ = self.run(x_NCHW.contiguous(memory_format=torch.channels_last))
        else:
            first, *others = self._first_blocks()
            x = first(x_NCHW, pool)
            for block in others:
                x = block(x)
            x, _ = self.run(x, first=1)
        return x if self.extra_norm is None else self.extra_norm(x)

    @property
    def reads_by_1x1(self) -> bool:
        """Whether a region goes through 1x1 convolutions first."""
        blocks = self._first_blocks()
        return len(blocks) > 0 and getattr(blocks[0], "reads_by_1x1", False)

    def _first_blocks(self) -> nn.Sequential:
        """The first stage's, where it is nothing but blocks."""
        steps = self.chain[0].steps if self.chain else ()
        layer = self.get_submodule(steps[0]) if len(steps) == 1 and isinstance(steps[0], str) else None
        return layer if isinstance(layer, nn.Sequential) else nn.Sequential()

    def vectors(self, maps_RCHW: Tensor) -> Tensor:
        """The last maps to vectors_RD."""
        return self.run_steps(self.tail, maps_RCHW)


class Cut(NamedTuple):
    """A backbone in two: below the cut once an image, above it once a region. Modules are shared with the backbone."""

    trunk: Trunk
    head: RegionHead
