"""What `--weights` can name, in every command, and how a backbone starts from it."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

from torch import Tensor

from backbones import Backbone
from backbones.chain import PixelNorm
from vertebra.build import hub
from vertebra.build.export_formats import format_of
from vertebra.build.foreign_weights import convert
from vertebra.engine.weights import check_provenance, load_into, load_weights
from vertebra.ground.errors import UserError

logger = logging.getLogger(__name__)

# torchvision's weights of the papers' own protocol; its later ones (V2) are another training.
TORCHVISION_WEIGHTS = {
    **{f"r{depth}": f"ResNet{depth}_Weights.IMAGENET1K_V1" for depth in (18, 34, 50, 101, 152)},
    **{f"vgg{depth}": f"VGG{depth}_Weights.IMAGENET1K_V1" for depth in (11, 13, 16, 19)},
    **{f"vgg{depth}_bn": f"VGG{depth}_BN_Weights.IMAGENET1K_V1" for depth in (11, 13, 16, 19)},
}


def resolve_weights(value: str, backbone: str) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Return the tensors that a value of `--weights` stands for, and their provenance.

    value: `none` (no tensors), `torchvision` (its ImageNet weights of the network of that name), or what `local_file`
    knows. Raises ValueError and OSError with a sentence.
    """
    if value == "none":
        return {}, {}
    if value == "torchvision":
        return torchvision_weights(backbone)
    state, origin = load_weights(local_file(value))
    return state, {**origin, **hub.revision_of(value)}


def local_file(value: str | Path) -> Path:
    """Return where on this machine the file is that a value of `--weights` names; hf:USER/NAME is fetched.

    Raises UserError for a file of export.py's, which is no weights.
    """
    path = hub.local(value)
    if format_of(path):
        only = "is an exported file, which eval_backbone.py, eval_det.py and eval_seg.py alone take"
        raise UserError(path, only, "name what it was exported from")
    return path


def torchvision_weights(name: str) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """torchvision's ImageNet weights of one of our networks. Raises ValueError where it has none."""
    if name not in TORCHVISION_WEIGHTS:
        raise ValueError(f"torchvision has no weights for {name}; it has them for {', '.join(TORCHVISION_WEIGHTS)}")
    import torchvision

    weights = torchvision.models.get_weight(TORCHVISION_WEIGHTS[name])
    state = fetched(weights, f"weights for {name}", "FILE")
    figures = {"top1": weights.meta["_metrics"]["ImageNet-1K"]["acc@1"], "protocol": "torchvision, 1 crop"}
    return state, {"training_data": "ImageNet-1K", "figures": figures, "url": weights.url}


def fetched(weights: Any, what: str, value: str) -> dict[str, Tensor]:
    """Return the state dict of weights that torchvision publishes. Raises OSError where they cannot be fetched.

    what, value: for its sentence, the name of these weights and what --weights takes once they are on disk.
    """
    try:
        return weights.get_state_dict(progress=True, check_hash=True)
    except OSError as error:
        raise OSError(
            f"torchvision's {what} cannot be fetched: {weights.url} ({error}); fetch that file where there is a "
            f"network and give it as --weights {value}"
        ) from error


def start_from(
    backbone: Backbone, state: dict[str, Tensor], origin: dict[str, Any], place: Path
) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Load all but the classifier, which may be of any number of classes; return `fitted` tensors and provenance.

    place: of the weights, for messages.
    """
    state, origin = fitted(backbone, state, origin, place)
    adopt_identity(origin, backbone, place)
    classifier = backbone.classifier_name
    load_into(backbone, state, place, allow_missing=(classifier,), ignore=(classifier,))
    return state, origin


def fitted(
    backbone: Backbone, state: dict[str, Tensor], origin: dict[str, Any], place: Path
) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Return the tensors under `backbone`'s names and their provenance: those of others are converted.

    What has its very names and no provenance is taken as its library's own (torchvision's, timm's): RGB, with the
    statistics and the stride that `backbone` has. Raises UserError with what `import-weights` is to be told.
    """
    if origin.get("backbone") or state.keys() <= backbone.state_dict().keys():
        return state, origin
    state, facts = convert(state, backbone, place)
    net, names = facts["backbone"], facts["by_others"]["names"]
    pixels = f"RGB, mean {net['pixel_mean']}, deviation {net['pixel_std']}"
    logger.info("%s: weights by others, their names: %s; pixels: %s", place, names, pixels)
    return state, {**origin, **facts}


def adopt_identity(origin: dict[str, Any], backbone: Backbone, path: Path) -> None:
    """Give `backbone` the pixel statistics that its weights were trained with, as `path`'s provenance has them.

    A network normalises its pixels itself, so weights by others with means or deviations of their own need nothing
    folded into a layer. Raises UserError for weights of another architecture, channel order or stride placement.
    """
    found = origin.get("backbone")
    if not found:
        return
    adopted = ("num_classes", "pixel_mean", "pixel_std")
    check_provenance(found, {k: v for k, v in backbone.identity().items() if k not in adopted}, path)
    norm = backbone.pixel_norm
    mean, std = found.get("pixel_mean", norm.mean_values), found.get("pixel_std", norm.std_values)
    try:
        backbone.pixel_norm = PixelNorm(mean, std)
    except (TypeError, ValueError, RuntimeError):
        raise UserError(path, f"the pixel mean {mean} and deviation {std} are not three numbers each") from None
