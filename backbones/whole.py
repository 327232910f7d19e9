"""Networks that are no chain of stages: called whole, they give maps, and so a pyramid or a dilated map, but no cut.

Legend of shape suffixes: N images, C channels, H W height and width.

What a map is made of is measured once, on a copy without storage: its stride, the sizes of images that the network
takes, and the parameters that it depends on. So a detector holds no layer that it does not train, and a part of the
network can be frozen.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any, NoReturn, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from backbones.base import Backbone, BackboneError
from backbones.chain import PIXEL_MEAN, PIXEL_STD, FeatureSpec, PixelNorm
from backbones.cut import Cut, MapTrunk, Part, Trunk
from backbones.norms import freeze_norms

# (network, normalised pixels, which maps of all that it can give) -> those maps, NCHW.
Read = Callable[[nn.Module, Tensor, Sequence[int]], Sequence[Tensor]]


@dataclass(frozen=True)
class Reading:
    """How maps are read from a network, in images of any size.

    places, strides, specs, parameters: of each map by its key. The place is among all that the network can give; the
    parameters are the names of those that the map depends on.
    multiple: of pixels, to which an image is padded. scale: of the image before the network, which makes a patch of
    14 px one of 16. tile: side of the parts of an image that a network sees one by one, as it takes no other size;
    None: it sees an image whole.
    """

    read: Read
    places: Mapping[str, int]
    strides: Mapping[str, int]
    multiple: int
    scale: float
    tile: int | None
    specs: Mapping[str, FeatureSpec] = field(default_factory=dict)
    parameters: Mapping[str, frozenset[str]] = field(default_factory=dict)

    def maps(self, net: nn.Module, x_N3HW: Tensor, keys: Sequence[str]) -> list[Tensor]:
        """Return these maps of normalised pixels, NCHW each."""
        height, width = x_N3HW.shape[2:]
        x_N3HW = F.pad(x_N3HW, (0, -width % self.multiple, 0, -height % self.multiple))
        if self.scale != 1:
            size = [round(side * self.scale) for side in x_N3HW.shape[2:]]
            x_N3HW = F.interpolate(x_N3HW, size=size, mode="bilinear", align_corners=False)
        places = [self.places[key] for key in keys]
        if self.tile is None:
            maps = self.read(net, x_N3HW, places)
        else:
            rows, columns = (side // self.tile for side in x_N3HW.shape[2:])
            # N, 3, rows, y, columns, x
            tiles = x_N3HW.unflatten(3, (columns, self.tile)).unflatten(2, (rows, self.tile))
            maps = self.read(net, tiles.permute(0, 2, 4, 1, 3, 5).flatten(0, 2), places)
            maps = [
                y.unflatten(0, (-1, rows, columns)).permute(0, 3, 1, 4, 2, 5).flatten(4, 5).flatten(2, 3) for y in maps
            ]
        strides = [self.strides[key] for key in keys]
        return [y[:, :, : -(-height // stride), : -(-width // stride)] for y, stride in zip(maps, strides)]


class Whole(nn.Module):
    """Has the parameters, buffers and children of `net` as its own, under their own names, and calls it."""

    net: nn.Module
    pixel_norm: PixelNorm

    def adopt(self, net: nn.Module) -> None:
        """Let the two modules share what they hold."""
        net.add_module("pixel_norm", self.pixel_norm)
        for held in ("_parameters", "_buffers", "_modules", "_non_persistent_buffers_set"):
            self.__dict__[held] = net.__dict__[held]
        self.__dict__["net"] = net  # not as a child, whose name would stand before those of the parameters

    def train(self, mode: bool = True) -> Any:
        self.net.training = mode
        return super().train(mode)


class MapNet(Whole, Backbone):
    """A network of another library that is called whole.

    reading: how it gives maps. classifier: what the names of its classifiers begin with.
    """

    def __init__(
        self,
        name: str,
        net: nn.Module,
        num_classes: int,
        reading: Reading,
        *,
        native_px: int,
        classifier: str,
        mean: Sequence[float] = PIXEL_MEAN,
        std: Sequence[float] = PIXEL_STD,
    ) -> None:
        self.__dict__["net"] = net
        super().__init__(
            name, num_classes, {}, (), tail=(), classifier=classifier, mean=mean, std=std, native_px=native_px
        )
        self.adopt(net)
        self.outside_class = type(net).__name__
        self.reading = reading
        self.feature_specs = dict(reading.specs)
        self.to(memory_format=torch.channels_last)

    def forward(self, pixels_N3HW: Tensor) -> Tensor:
        """Raw RGB pixels 0..255 to logits_NC, float32 under autocast too."""
        try:
            logits = self.net(self.pixel_norm(pixels_N3HW))
        except AssertionError as error:  # timm's way to refuse a size
            height, width = pixels_N3HW.shape[2:]
            raise BackboneError(
                f"{self.name} cannot see images of {width} x {height} px ({one_line(error)})."
            ) from error
        return (logits[0] if isinstance(logits, tuple) else logits).float()

    def last_map(self, pixels_N3HW: Tensor) -> Tensor:
        """Raw RGB pixels 0..255 to the coarsest map, NCHW."""
        return self.trunk(list(self.feature_specs)[-1])(pixels_N3HW)

    def classify(self, map_NCHW: Tensor) -> NoReturn:
        raise BackboneError(f"{self.name} is called whole, and cannot classify a part of its last map.")

    def feature_maps(self, pixels_N3HW: Tensor, sizes_hw_N2: Tensor | None = None) -> dict[str, Tensor]:
        """Raw RGB pixels 0..255 to the maps named in `feature_specs`, finest first."""
        return dict(zip(self.feature_specs, self.maps(list(self.feature_specs))(pixels_N3HW, sizes_hw_N2)))

    def cut(self, stride: int = 16, roi_size: int | None = None) -> Cut:
        raise BackboneError(
            f"{self.name} cannot be cut into a trunk and a head: {self.outside_class} is no chain of stages that is "
            "known here. It gives maps, so choose another body: --model.body fpn."
        )

    def trunk(self, key: str) -> Trunk:
        return cast(Trunk, OneMapTrunk(self, [key]))

    def maps(self, keys: Sequence[str]) -> MapTrunk:
        return cast(MapTrunk, NetTrunk(self, keys))

    def freeze(self, stride: int) -> None:
        """Fix all that the maps up to that stride are made of; 0 fixes nothing."""
        self.check_stride(stride)
        keys = {key for key, spec in self.feature_specs.items() if spec.stride <= stride}
        fixed = self.used_by(keys)
        for module in self.modules():
            own = list(module.parameters(recurse=False))
            for parameter in own:
                parameter.requires_grad_(parameter.requires_grad and id(parameter) not in fixed)
            if own and all(id(parameter) in fixed for parameter in own):
                freeze_norms(module)

    def used_by(self, keys: Iterable[str]) -> set[int]:
        """Return the `id` of each parameter that any of these maps depends on."""
        names = frozenset().union(*(self.reading.parameters[key] for key in keys))
        return {id(parameter) for name, parameter in self.named_parameters() if name in names}

    @cached_property
    def depths(self) -> dict[str, int]:
        """Depth of each parameter by its name: the place of the first map that depends on it."""
        made_of = self.reading.parameters
        return {
            name: next((place for place, key in enumerate(made_of) if name in made_of[key]), len(made_of))
            for name, _ in self.net.named_parameters()
        }

    def three_by_three(self) -> dict[str, nn.Module]:
        raise BackboneError(f"{self.name} comes from outside: which module gives a layer's response is not known.")


class NetTrunk(Whole, Part):
    """Runs once an image: pixel normalisation and the network, of which it gives the maps named by `keys`.

    It holds what these maps are made of, and no more. specs: channels and stride of each map.
    Raises BackboneError where there is no such map.
    """

    def __init__(self, backbone: MapNet, keys: Sequence[str]) -> None:
        backbone.check_keys(keys)
        self.__dict__["net"] = backbone.net
        super().__init__(backbone, ())
        self.pixel_norm = backbone.pixel_norm
        self.adopt(without_unused(backbone.net, backbone.used_by(keys)))
        self.reading, self.keys = backbone.reading, tuple(keys)
        self.specs = tuple(backbone.feature_specs[key] for key in keys)
        self.out_channels, self.stride = self.specs[-1].channels, self.specs[-1].stride

    def forward(self, pixels_N3HW: Tensor, sizes_hw_N2: Tensor | None = None) -> tuple[Tensor, ...]:
        """RGB pixels 0..255 to the maps, NCHW each."""
        return tuple(self.reading.maps(self.net, self.pixel_norm(pixels_N3HW, sizes_hw_N2), self.keys))


class OneMapTrunk(NetTrunk):
    """A trunk that ends in one map, as those of chains do."""

    def forward(self, *inputs: Any) -> Tensor:  # type: ignore[override]
        """RGB pixels 0..255 to the feature map, NCHW."""
        return super().forward(*inputs)[0]


class Unused(nn.Module):
    """In the place of a module that no map depends on; whoever calls it gets back what it gave."""

    def forward(self, x: Any, *_: Any, **__: Any) -> Any:
        return x


def without_unused(net: nn.Module, used: Collection[int], is_root: bool = True) -> nn.Module:
    """Return the network without the parameters whose `id` is not in `used`.

    What is left is shared; a module that loses something is copied, without what it holds.
    """
    own = {id(parameter) for parameter in net.parameters()}
    if own.issubset(used):
        return net
    is_container = isinstance(net, nn.ModuleList | nn.ModuleDict | nn.Sequential)
    if own.isdisjoint(used) and not is_root and not is_container:
        return Unused()
    net = copy.copy(net)
    net._parameters = {name: one if id(one) in used else None for name, one in net._parameters.items()}
    net._modules = {name: one and without_unused(one, used, False) for name, one in net._modules.items()}
    return net


def measure(name: str, net: nn.Module, read: Read, reductions: Sequence[int], native_px: int) -> Reading:
    """Return how the maps of `net`, a copy on the meta device, are read; reductions: pixels a step on each of them.

    Whole images are tried, of sides that are multiples of 32, of the coarsest stride, or of what the network was drawn
    for, and then tiles. Raises BackboneError with a sentence where no pyramid can be made of the maps.
    """
    scale = _scale(name, reductions)
    found = [round(reduction / scale) for reduction in reductions]
    places = {stage_key(stride): place for place, stride in enumerate(found) if stride >= 4}  # the last of each
    strides = {key: found[place] for key, place in places.items()}
    net.eval().requires_grad_(True)
    outer_px = round(native_px / scale)
    coarsest = max(strides.values())
    for multiple, tile in ((32, None), (coarsest, None), (outer_px, None), (outer_px, native_px)):
        reading = Reading(read, places, strides, multiple, scale, tile)
        height, width = (multiple * (outer_px // multiple + more) for more in (1, 2))
        pixels = torch.zeros(1, 3, height, width, device="meta").to(memory_format=torch.channels_last)
        try:
            maps = dict(zip(places, reading.maps(net, pixels, list(places))))
        except (AssertionError, RuntimeError, ValueError, TypeError, IndexError) as error:
            reason = one_line(error)
            continue
        wrong = [
            f"{height / y.shape[2]:.1f} px a step where {strides[key]} are stated"
            for key, y in maps.items()
            if y.shape[2:] != (-(-height // strides[key]), -(-width // strides[key]))
        ]
        if not wrong:
            names = {id(one): name for name, one in net.named_parameters()}
            made_of = {
                key: frozenset(names[id(one)] for one in leaves(y) if id(one) in names) for key, y in maps.items()
            }
            specs = {key: FeatureSpec(y.shape[1], strides[key]) for key, y in maps.items()}
            return replace(reading, specs=specs, parameters=made_of)
        reason = wrong[0]
    raise BackboneError(f"{name} gives no maps that a pyramid can be made of ({reason}); choose another backbone.")


def _scale(name: str, reductions: Sequence[int]) -> float:
    """Return the scale of the image at which all strides are powers of two."""
    found = sorted({reduction for reduction in reductions if reduction >= 4})
    scales = {reduction / 2 ** round(math.log2(reduction)) for reduction in found}
    if len(scales) != 1:
        raise BackboneError(
            f"{name} has maps at strides {', '.join(map(str, found)) or 'below 4'}: they are no powers of two at any "
            "scale of the image, so no pyramid can be made of them; choose another backbone."
        )
    return scales.pop()


def leaves(tensor: Tensor) -> Iterator[Tensor]:
    """Yield the tensors that want a gradient from this one, by its graph."""
    todo, seen = [tensor.grad_fn], set()
    while todo:
        node = todo.pop()
        if node is not None and node not in seen:
            seen.add(node)
            todo += [before for before, _ in node.next_functions]
            if hasattr(node, "variable"):
                yield node.variable


def stage_key(stride: int) -> str:
    """The name of a map: "c2" at stride 4 .. "c5" at stride 32."""
    return f"c{int(math.log2(stride))}"


def one_line(error: BaseException) -> str:
    """An error's message on one line."""
    return " ".join(str(error).split()).rstrip(".")
