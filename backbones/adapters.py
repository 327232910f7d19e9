"""Networks from torchvision and timm under our contract: logits, feature maps, and the cut at a stride.

A network can be cut when it is a chain: one map goes in at one end and out at the other. How each family is chained
is a table; strides and channels are measured, on tensors without storage. What is no chain is called whole, and gives
maps. Names in files are the outside ones.
"""

from __future__ import annotations

import copy
import difflib
import importlib
import inspect
from collections.abc import Callable, Sequence
from functools import partial
from os.path import commonprefix
from typing import Any

import torch
from torch import Tensor, nn

from backbones.base import Backbone, BackboneError
from backbones.chain import PIXEL_MEAN, PIXEL_STD, FeatureSpec, Stage, Step, modules_of
from backbones.families import FUNCTIONS, TIMM, TORCHVISION, Family
from backbones.norms import evaluating
from backbones.whole import MapNet, measure, one_line, stage_key

PROBE_PX = 224  # side of the image on which strides are measured
# Options of timm's networks that let them see images of any size.
ANY_SIZE = {"dynamic_img_size": True, "dynamic_img_pad": True, "strict_img_size": False}
# What else can be asked of a network, by either library's name.
OPTIONS = {
    "output_stride": "a dilated last stage",
    "replace_stride_with_dilation": "a dilated last stage",
    "drop_path_rate": "drop path",
    "stochastic_depth_prob": "drop path",
}


class OutsideNet(Backbone):
    """A chain of another library. Its modules become children of this one, under their own names.

    name: as a user types it. net: the network. family: its steps. chain: as `_chain` finds it; None: it is looked for.
    mean, std: of its pixels, RGB, 0..255. Raises BackboneError where the steps do not chain the whole of it.
    """

    def __init__(
        self,
        name: str,
        net: nn.Module,
        family: Family,
        num_classes: int,
        *,
        chain: Sequence[Stage] | None = None,
        mean: Sequence[float] = PIXEL_MEAN,
        std: Sequence[float] = PIXEL_STD,
    ) -> None:
        self.outside_class = type(net).__name__
        chain = _chain(copy.deepcopy(net).to("meta"), family) if chain is None else chain
        if chain is None:
            steps = ", ".join(map(repr, (family.steps, family.tail, family.classifier)))
            raise BackboneError(
                f"{name} is no chain of the steps {steps}: together they run every module that has weights, in order, "
                "from pixels to a linear layer, at strides that are powers of two."
            )
        modules, tail = dict(net.named_children()), _expand(net, family.tail)
        super().__init__(name, num_classes, modules, chain, tail=tail, classifier=family.classifier, mean=mean, std=std)

    def three_by_three(self) -> dict[str, nn.Module]:
        raise BackboneError(f"{self.name} comes from outside: which module gives a layer's response is not known.")


# torchvision's stages from stride 8 on that are dilated instead, by the output stride.
DILATED = {16: [False, False, True], 8: [False, True, True]}


def from_torchvision(
    model: str, num_classes: int, *, output_stride: int = 32, drop_path: float | None = None
) -> Backbone:
    """`torchvision:MODEL` with random weights. output_stride: of its last stages, 16 or 8, if it can dilate them."""
    from torchvision import models

    name = f"torchvision:{model}"
    _known(name, model, models.list_models(module=models))
    mean, std = PIXEL_MEAN, PIXEL_STD
    try:
        preset: Any = models.get_model_weights(model)["DEFAULT"].transforms()
        mean, std = (tuple(255 * value for value in values) for values in (preset.mean, preset.std))
    except (KeyError, AttributeError, ValueError):
        pass  # no published weights: ImageNet's pixels
    make: Callable[..., nn.Module] = partial(models.get_model, model, weights=None, num_classes=num_classes)
    if model in ("googlenet", "inception_v3"):
        make = partial(make, init_weights=False, aux_logits=False)
    options: dict[str, Any] = {"replace_stride_with_dilation": DILATED[output_stride]} if output_stride < 32 else {}
    if drop_path is not None:
        options["stochastic_depth_prob"] = drop_path
    make, twin = _made(name, make, options)
    family = TORCHVISION.get(type(twin).__name__)
    if family is not None and (chain := _chain(twin, family)):
        return OutsideNet(name, _build(make), family, num_classes, chain=chain, mean=mean, std=std)
    if type(twin).__name__ != "SwinTransformer":
        raise BackboneError(
            f"{name} gives no maps that are known here ({type(twin).__name__}); of torchvision these do: "
            f"{', '.join((*TORCHVISION, 'SwinTransformer'))}; nearly all of timm's do."
        )
    with evaluating(twin):
        maps = swin_maps(twin, torch.zeros(1, 3, PROBE_PX, PROBE_PX, device="meta"), range(len(twin.features)))
    reading = measure(name, twin, swin_maps, [PROBE_PX // y.shape[2] for y in maps], PROBE_PX)
    return MapNet(name, _build(make), num_classes, reading, native_px=PROBE_PX, classifier="head", mean=mean, std=std)


def swin_maps(net: nn.Module, x_N3HW: Tensor, places: Sequence[int]) -> list[Tensor]:
    """The outputs of torchvision's Swin stages, which are NHWC, as NCHW."""
    maps = {}
    for place, stage in enumerate(net.features):  # type: ignore[arg-type]
        maps[place] = x_N3HW = stage(x_N3HW)
    return [maps[place].permute(0, 3, 1, 2) for place in places]


def from_timm(model: str, num_classes: int, *, output_stride: int = 32, drop_path: float | None = None) -> Backbone:
    """`timm:MODEL` with random weights. output_stride: of its last stages. Raises BackboneError without timm."""
    name = f"timm:{model}"
    try:
        timm: Any = importlib.import_module("timm")
    except ImportError:
        raise BackboneError(f"{name} needs timm, which is not installed; run: pip install timm") from None
    _known(name, model.partition(".")[0], timm.list_models())
    make: Callable[..., nn.Module] = partial(timm.create_model, model, pretrained=False, num_classes=num_classes)
    twin: Any = _build(make, "meta")
    options: dict[str, Any] = {option: value for option, value in ANY_SIZE.items() if _takes(twin, option)}
    if twin.feature_info[-1]["reduction"] > output_stride and output_stride < 32:
        options["output_stride"] = output_stride
    if drop_path is not None:
        options["drop_path_rate"] = drop_path
    if options:
        make, twin = _made(name, make, options)
    if any(parameter.ndim == 5 for parameter in twin.parameters()):
        raise BackboneError(
            f"{name} has convolutions of three dimensions, which nothing here runs; choose another backbone."
        )
    config = getattr(twin, "pretrained_cfg", None) or {}
    mean = tuple(255 * value for value in config.get("mean", ())) or PIXEL_MEAN
    std = tuple(255 * value for value in config.get("std", ())) or PIXEL_STD
    classifier = config["classifier"]
    if not isinstance(classifier, str):  # of several, as distilled networks have, the beginning that the names share
        classifier = commonprefix(classifier or ["no classifier"])  # noqa: RUF071 - no paths
    net: Backbone
    family = TIMM.get(type(twin).__name__)
    if family is not None and (chain := _chain(twin, family)):
        net = OutsideNet(name, _build(make), family, num_classes, chain=chain, mean=mean, std=std)
    else:
        native_px = config["input_size"][1]
        reading = measure(name, twin, timm_maps, [info["reduction"] for info in twin.feature_info], native_px)
        net = MapNet(
            name, _build(make), num_classes, reading, native_px=native_px, classifier=classifier, mean=mean, std=std
        )
    if hasattr(twin, "group_matcher"):
        net.depths = timm.models.group_parameters(twin, twin.group_matcher(coarse=False), reverse=True)
    return net


def timm_maps(net: Any, x_N3HW: Tensor, places: Sequence[int]) -> list[Tensor]:
    """Some of the maps that a network of timm can give, NCHW."""
    maps = net.forward_intermediates(x_N3HW, indices=list(places), stop_early=True, intermediates_only=True)
    return list(maps)


def _made(name: str, make: Callable[..., nn.Module], options: dict[str, Any]) -> tuple[Callable[[], nn.Module], Any]:
    """Return the maker with these options, and what it makes, without storage."""
    make = partial(make, **options)
    try:
        return make, _build(make, "meta")
    except (TypeError, ValueError, NotImplementedError, AssertionError, RuntimeError) as error:
        wanted = [what for option, what in OPTIONS.items() if option in options]
        if not wanted:
            raise
        reason = "" if "unexpected keyword" in str(error) or not str(error) else f" ({one_line(error)})"
        raise BackboneError(f"{name} cannot be built with {' and '.join(wanted)}{reason}.") from None


def _build(make: Callable[[], nn.Module], device: str = "") -> nn.Module:
    """The network on the default device, or on that one; some constructors compute with tensors, which meta cannot."""
    if (device or torch.get_default_device().type) != "meta":
        return make()
    try:
        with torch.device("meta"):
            return make()
    except (NotImplementedError, RuntimeError):
        with torch.device("cpu"):
            return make().to("meta")


def _takes(net: nn.Module, option: str) -> bool:
    return any(option in inspect.signature(kind).parameters for kind in type(net).__mro__[:-1])


def _known(name: str, model: str, models: list[str]) -> None:
    if model not in models:
        nearest = difflib.get_close_matches(model, models, n=1, cutoff=0.0)[0]
        library = name.partition(":")[0]
        raise BackboneError(f"There is no backbone {name!r}; the nearest name is '{library}:{nearest}'.")


def _expand(net: nn.Module, steps: str) -> tuple[Step, ...]:
    """The steps in a line of the table, "x.*" as all children of x. Raises AttributeError for a missing module."""
    expanded: list[Step] = []
    for step in steps.split():
        if step in FUNCTIONS:
            expanded.append(FUNCTIONS[step])
        elif step.endswith(".*"):
            expanded += [f"{step[:-2]}.{child}" for child, _ in net.get_submodule(step[:-2]).named_children()]
        else:
            net.get_submodule(step)
            expanded.append(step)
    return tuple(expanded)


def _chain(net: nn.Module, family: Family) -> list[Stage] | None:
    """The network's stages, one for each stride; None where this variant of the family is no chain.

    Channels and strides are measured after each step. net: on the meta device. A stage has all the steps whose output
    has its stride; its map is the last of them.
    """
    specs = []
    x = torch.zeros(1, 3, PROBE_PX, PROBE_PX + 96, device="meta")
    try:
        steps, tail = _expand(net, family.steps), _expand(net, family.tail)
        is_linear = isinstance(net.get_submodule(family.classifier), nn.Linear)
        with evaluating(net):
            for step in steps:
                x = net.get_submodule(step)(x) if isinstance(step, str) else step(x)  # type: ignore[operator]
                specs.append(FeatureSpec(x.shape[1], round(PROBE_PX / x.shape[2])))
    except (AttributeError, RuntimeError, TypeError, AssertionError):
        return None
    strides = sorted({spec.stride for spec in specs})
    run = tuple(f"{name}." for name in modules_of((*steps, *tail, family.classifier)))
    is_whole = all(name.startswith(run) for name, _ in net.named_parameters())  # nothing is left out, a second head say
    if not is_linear or not is_whole or any(stride.bit_count() != 1 for stride in strides):
        return None
    stages = []
    for stride in strides:
        own = tuple(step for step, spec in zip(steps, specs) if spec.stride == stride)
        last = max(place for place, spec in enumerate(specs) if spec.stride == stride)
        stages.append(Stage(stage_key(stride), specs[last], own, is_map=stride >= 4))
    return stages
