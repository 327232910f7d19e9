"""The recipe's network: with random weights, with those of a file, and with a classifier to be trained."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import torch

from backbones import Backbone, BackboneError, create_backbone
from backbones.blocks import recompute_blocks
from backbones.classifier import Classifier
from backbones.vgg import shallow_layers
from vertebra.engine.weights import check_provenance, load_into, load_weights
from vertebra.ground.errors import RecipeError
from vertebra.recipes.schema import (
    BackboneRecipe,
    RunRecipe,
    require_weights,
)
from vertebra.recipes.schema_detection import DetectionRecipe
from vertebra.recipes.schema_localisation import LocalisationRecipe

logger = logging.getLogger(__name__)


# torchvision's weights of the papers' own protocol; its later ones (V2) are another training.
TORCHVISION_WEIGHTS = {
    **{f"r{depth}": f"ResNet{depth}_Weights.IMAGENET1K_V1" for depth in (18, 34, 50, 101, 152)},
    **{f"vgg{depth}": f"VGG{depth}_Weights.IMAGENET1K_V1" for depth in (11, 13, 16, 19)},
    **{f"vgg{depth}_bn": f"VGG{depth}_BN_Weights.IMAGENET1K_V1" for depth in (11, 13, 16, 19)},
}


def build_backbone(
    recipe: RunRecipe, num_classes: int, *, zero_init: bool = False, dilate_last: bool = False
) -> Backbone:
    """Return the recipe's network with random weights, drawn from torch's global generator.

    Raises RecipeError where there is no such network.
    """
    try:
        return create_backbone(
            recipe.backbone,
            num_classes=num_classes,
            width=recipe.width,
            shortcut=recipe.shortcut,
            stride_in=recipe.stride_in,
            zero_init_last=zero_init,
            dilate_last=dilate_last,
        )
    except BackboneError as error:
        raise RecipeError(str(error)) from None


def make_detector_backbone(recipe: RunRecipe, num_classes: int = 1000) -> Backbone:
    """Return the recipe's network with random weights, as its detector's body needs it."""
    dilate_last = isinstance(recipe, DetectionRecipe) and recipe.model.body == "dc5"
    return build_backbone(recipe, num_classes, dilate_last=dilate_last)


def pretrained_backbone(recipe: DetectionRecipe | LocalisationRecipe) -> tuple[Backbone, dict[str, Any]]:
    """Return the recipe's backbone with its weights loaded, and a record of where they come from.

    Raises RecipeError where `--weights` is missing, or is `none` while something would stay frozen: random layers
    that never learn are no baseline.
    """
    require_weights(recipe.weights, is_frozen=recipe.model.is_frozen)
    if recipe.weights == "none":
        return make_detector_backbone(recipe), {"source": "none"}
    if recipe.weights == "torchvision":
        state, origin, place = *torchvision_weights(recipe.backbone), Path("torchvision")
    else:
        place = Path(recipe.weights)
        state, origin = load_weights(place)
    identity = origin.get("backbone", {})
    backbone = make_detector_backbone(recipe, int(identity.get("num_classes", 1000)))
    check_identity(origin, backbone, place)
    classifier = backbone.classifier_name  # not a part of the detector, so any number of classes will do
    load_into(backbone, state, place, allow_missing=(classifier,), ignore=(classifier,))
    return backbone, {"source": recipe.weights, **origin}


def torchvision_weights(name: str) -> tuple[dict[str, torch.Tensor], dict[str, Any]]:
    """torchvision's ImageNet weights of one of our networks. Raises ValueError where it has none."""
    if name not in TORCHVISION_WEIGHTS:
        raise ValueError(f"torchvision has no weights for {name}; it has them for {', '.join(TORCHVISION_WEIGHTS)}")
    import torchvision

    weights = torchvision.models.get_weight(TORCHVISION_WEIGHTS[name])
    try:
        state = weights.get_state_dict(progress=True, check_hash=True)
    except OSError as error:
        raise OSError(
            f"torchvision's weights for {name} cannot be fetched: {weights.url} ({error}); fetch that file where there "
            "is a network and give it as --weights FILE"
        ) from error
    figures = {"top1": weights.meta["_metrics"]["ImageNet-1K"]["acc@1"], "protocol": "torchvision, 1 crop"}
    return state, {"training_data": "ImageNet-1K", "figures": figures, "url": weights.url}


def build_classifier(recipe: BackboneRecipe, num_classes: int) -> tuple[Classifier, dict[str, Any] | None]:
    """Return the network to train, and the provenance of what it starts from."""
    backbone = build_backbone(recipe, num_classes, zero_init=recipe.zero_init_residual)
    if recipe.zero_init_residual and recipe.weights is None and ":" in recipe.backbone:
        logger.warning("zero_init_residual is for our own networks: %s begins as its library has it", recipe.backbone)
    origin = None
    if recipe.weights is not None:
        origin = _start_from(backbone, recipe.weights)
    if recipe.shallow_weights is not None:
        origin = _start_from_shallow(backbone, recipe.shallow_weights)
    if recipe.checkpoint_activations:
        recompute_blocks(backbone)
    return Classifier(backbone, label_smoothing=recipe.label_smoothing), origin


def _start_from(backbone: Backbone, path: Path) -> dict[str, Any]:
    """Load all but the classifier; return the provenance of the file."""
    state, origin = load_weights(path)
    check_identity(origin, backbone, path)
    classifier = backbone.classifier_name
    load_into(backbone, state, path, allow_missing=(classifier,), ignore=(classifier,))
    there = state.get(f"{classifier}.weight")
    others = f" instead of {len(there)}" if there is not None and len(there) != backbone.num_classes else ""
    logger.info("weights of %s; the classifier starts anew: %d classes%s", path, backbone.num_classes, others)
    return origin


def _start_from_shallow(backbone: Backbone, path: Path) -> dict[str, Any]:
    """Load a shallower VGG's outer layers (Simonyan & Zisserman 2014, §3.1); return the provenance of its file."""
    state, origin = load_weights(path)
    taken, names = shallow_layers(backbone, state, origin=str(path))
    if "backbone" in origin:
        identity = backbone.identity()
        same = ("channel_order", "pixel_mean", "pixel_std", "width")
        check_provenance(origin["backbone"], {fact: identity[fact] for fact in same}, path)
    kept = tuple(name for name in backbone.state_dict() if name not in taken)
    load_into(backbone, taken, path, allow_missing=kept)
    logger.info("%s starts from %s of %s; the other layers from random weights", backbone.name, names, path)
    return {"source": f"first and last layers of {path.name}", **origin}


def check_identity(origin: dict[str, Any], backbone: Backbone, path: Path) -> None:
    """Refuse weights of another architecture, channel order, normalisation or stride placement."""
    if "backbone" in origin:
        expected = {name: value for name, value in backbone.identity().items() if name != "num_classes"}
        check_provenance(origin["backbone"], expected, path)
