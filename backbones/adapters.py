"""Networks from torchvision and timm under our contract: logits, feature maps, and the cut at a stride.

A network can be cut when it is a chain: one map goes in at one end and out at the other. How each family is chained
is a table; strides and channels are measured, on tensors without storage. Names in files are the outside ones.
"""

from __future__ import annotations

import difflib
import importlib
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.func import functional_call

from backbones.base import Backbone, BackboneError
from backbones.chain import PIXEL_MEAN, PIXEL_STD, FeatureSpec, Stage, Step
from backbones.norms import evaluating

PROBE_PX = 224  # side of the image on which strides are measured


@dataclass(frozen=True)
class Family:
    """A network's chain. Steps are names of modules ("x.*": all children of x) or of `FUNCTIONS`.

    steps: pixels to the last map. tail: the last map to vectors. classifier: the linear layer after them.
    """

    steps: str
    tail: str
    classifier: str


def average(x_NCHW: Tensor) -> Tensor:
    """Global average pooling to vectors_NC."""
    return F.adaptive_avg_pool2d(x_NCHW, 1).flatten(1)


def flatten(x_NCHW: Tensor) -> Tensor:
    """Pooled maps to vectors_NC."""
    return x_NCHW.flatten(1)


FUNCTIONS: dict[str, Callable[[Tensor], Tensor]] = {":relu": F.relu, ":pool": average, ":flatten": flatten}

# By the class of the network.
TORCHVISION = {
    "ConvNeXt": Family("features.*", "avgpool classifier.0 classifier.1", "classifier.2"),
    "DenseNet": Family("features.* :relu", ":pool", "classifier"),
    "EfficientNet": Family("features.*", "avgpool :flatten classifier.0", "classifier.1"),
    "MNASNet": Family("layers.*", ":pool classifier.0", "classifier.1"),
    "MobileNetV2": Family("features.*", ":pool classifier.0", "classifier.1"),
    "MobileNetV3": Family("features.*", "avgpool :flatten classifier.0 classifier.1 classifier.2", "classifier.3"),
    "RegNet": Family("stem trunk_output.*", "avgpool :flatten", "fc"),
    "ResNet": Family("conv1 bn1 relu maxpool layer1 layer2 layer3 layer4", "avgpool :flatten", "fc"),
    "ShuffleNetV2": Family("conv1 maxpool stage2 stage3 stage4 conv5", ":pool", "fc"),
}
TIMM = {
    "ConvNeXt": Family(
        "stem stages.* norm_pre", "head.global_pool head.norm head.flatten head.pre_logits head.drop", "head.fc"
    ),
    "CspNet": Family("stem stages.*", "head.global_pool head.drop", "head.fc"),
    "DenseNet": Family("features.*", "global_pool head_drop", "classifier"),
    "EfficientNet": Family("conv_stem bn1 blocks.* conv_head bn2", "global_pool", "classifier"),
    "MobileNetV3": Family("conv_stem bn1 blocks.*", "global_pool conv_head norm_head act2 flatten", "classifier"),
    "RegNet": Family("stem s1 s2 s3 s4 final_conv", "head.global_pool head.drop", "head.fc"),
    "ResNet": Family("conv1 bn1 act1 maxpool layer1 layer2 layer3 layer4", "global_pool", "fc"),
}


class OutsideNet(Backbone):
    """A network of another library. Its modules become children of this one, under their own names.

    name: as a user types it. net: the network. family: its chain; None: it has none.
    mean, std: of its pixels, RGB, 0..255. Raises BackboneError if it cannot be cut.
    """

    def __init__(
        self,
        name: str,
        net: nn.Module,
        family: Family | None,
        num_classes: int,
        *,
        mean: Sequence[float] = PIXEL_MEAN,
        std: Sequence[float] = PIXEL_STD,
    ) -> None:
        if family is None:
            raise _uncuttable(name, type(net).__name__)
        try:
            steps, tail = _expand(net, family.steps), _expand(net, family.tail)
            classifier = net.get_submodule(family.classifier)
            specs = _measure(net, steps)
        except (AttributeError, RuntimeError, TypeError) as error:
            raise _uncuttable(name, f"{type(net).__name__} of this variant ({error})") from error
        if not isinstance(classifier, nn.Linear):
            raise _uncuttable(name, f"{type(net).__name__} without a linear classifier")
        modules = dict(net.named_children())
        chain = _stages(steps, specs)
        super().__init__(name, num_classes, modules, chain, tail=tail, classifier=family.classifier, mean=mean, std=std)

    def three_by_three(self) -> dict[str, nn.Module]:
        raise BackboneError(f"{self.name} comes from outside: which module gives a layer's response is not known.")


def from_torchvision(model: str, num_classes: int, *, dilate_last: bool = False) -> OutsideNet:
    """`torchvision:MODEL` with random weights. dilate_last: its last stage at stride 16, if it has that option."""
    from torchvision import models

    name = f"torchvision:{model}"
    _known(name, model, models.list_models(module=models))
    mean, std = PIXEL_MEAN, PIXEL_STD
    try:
        preset: Any = models.get_model_weights(model)["DEFAULT"].transforms()
        mean, std = (tuple(255 * value for value in values) for values in (preset.mean, preset.std))
    except (KeyError, AttributeError, ValueError):
        pass  # no published weights: ImageNet's pixels
    options: dict[str, Any] = {"init_weights": False} if model in ("googlenet", "inception_v3") else {}
    if dilate_last:
        options["replace_stride_with_dilation"] = [False, False, True]
    make = partial(models.get_model, model, weights=None, num_classes=num_classes, **options)
    net = _build(partial(_dilated, name, make) if dilate_last else make)
    return OutsideNet(name, net, TORCHVISION.get(type(net).__name__), num_classes, mean=mean, std=std)


def from_timm(model: str, num_classes: int, *, dilate_last: bool = False) -> OutsideNet:
    """`timm:MODEL` with random weights. dilate_last: at stride 16 to its end. Raises BackboneError without timm."""
    name = f"timm:{model}"
    try:
        timm: Any = importlib.import_module("timm")
    except ImportError:
        raise BackboneError(f"{name} needs timm, which is not installed; run: pip install timm") from None
    _known(name, model.partition(".")[0], timm.list_models())
    options = {"output_stride": 16} if dilate_last else {}
    make = partial(timm.create_model, model, pretrained=False, num_classes=num_classes, **options)
    net = _build(partial(_dilated, name, make) if dilate_last else make)
    config = getattr(net, "pretrained_cfg", None) or {}
    mean = tuple(255 * value for value in config.get("mean", ())) or PIXEL_MEAN
    std = tuple(255 * value for value in config.get("std", ())) or PIXEL_STD
    return OutsideNet(name, net, TIMM.get(type(net).__name__), num_classes, mean=mean, std=std)


def _dilated(name: str, make: Callable[[], nn.Module]) -> nn.Module:
    try:
        return make()
    except (TypeError, ValueError, NotImplementedError, AssertionError, RuntimeError) as error:
        reason = " ".join(str(error).split())
        raise BackboneError(
            f"{name} cannot be built with a dilated last stage ({reason}); choose another body."
        ) from None


def _build(make: Callable[[], nn.Module]) -> nn.Module:
    """The network on the default device; some constructors compute with tensors, which the meta device cannot."""
    if torch.get_default_device().type != "meta":
        return make()
    with torch.device("cpu"):
        return make().to("meta")


def _known(name: str, model: str, models: list[str]) -> None:
    if model not in models:
        nearest = difflib.get_close_matches(model, models, n=1, cutoff=0.0)[0]
        library = name.partition(":")[0]
        raise BackboneError(f"There is no backbone {name!r}; the nearest name is '{library}:{nearest}'.")


def _uncuttable(name: str, what: str) -> BackboneError:
    library = name.partition(":")[0]
    table = TORCHVISION if library == "torchvision" else TIMM
    return BackboneError(
        f"{name} cannot be cut into a trunk and a head ({what} is not a chain that is known here); from {library} "
        f"these can: {', '.join(table)}."
    )


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


def _measure(net: nn.Module, steps: Sequence[Step]) -> list[FeatureSpec]:
    """Channels and stride after each step, found with tensors that have a shape and no storage."""
    specs = []
    x = torch.zeros(1, 3, PROBE_PX, PROBE_PX, device="meta")
    with evaluating(net):
        for step in steps:
            if isinstance(step, str):
                module = net.get_submodule(step)
                state = {name: tensor.to("meta") for name, tensor in module.state_dict().items()}
                x = functional_call(module, state, x)
            elif callable(step):
                x = step(x)
            specs.append(FeatureSpec(x.shape[1], round(PROBE_PX / x.shape[2])))
    return specs


def _stages(steps: Sequence[Step], specs: Sequence[FeatureSpec]) -> list[Stage]:
    """One stage for each stride: all steps whose output has it; its map is the last of them."""
    stages = []
    for stride in sorted({spec.stride for spec in specs}):
        own = tuple(step for step, spec in zip(steps, specs) if spec.stride == stride)
        last = max(place for place, spec in enumerate(specs) if spec.stride == stride)
        stages.append(Stage(stage_key(stride), specs[last], own, is_map=stride >= 4))
    return stages


def stage_key(stride: int) -> str:
    """The name of a map: "c2" at stride 4 .. "c5" at stride 32."""
    return f"c{int(math.log2(stride))}"
