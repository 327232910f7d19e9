"""The recipe's network: with random weights, with those of a file, and with a classifier to be trained."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

from backbones import Backbone, BackboneError, create_backbone
from backbones.blocks import recompute_blocks
from backbones.classifier import Classifier
from backbones.norms import freeze_norms
from backbones.vgg import shallow_layers
from vertebra.build.weights import local_file, resolve_weights, start_from
from vertebra.engine.weights import check_provenance, load_into, load_weights
from vertebra.ground.errors import RecipeError
from vertebra.recipes.schema import BackboneRecipe, RunRecipe, require_weights
from vertebra.recipes.schema_detection import DetectionRecipe, Detector
from vertebra.recipes.schema_localisation import LocalisationRecipe, PerClassRPN
from vertebra.recipes.schema_segmentation import SegmentationRecipe, SegmenterModel

logger = logging.getLogger(__name__)


def build_backbone(
    recipe: RunRecipe, num_classes: int, *, zero_init: bool = False, dilate_last: bool = False, output_stride: int = 32
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
            drop_path=recipe.drop_path,
            output_stride=output_stride,
        )
    except BackboneError as error:
        raise RecipeError(str(error)) from None


def make_detector_backbone(recipe: RunRecipe, num_classes: int = 1000) -> Backbone:
    """Return the recipe's network with random weights, as its detector's body or its segmenter's head needs it."""
    dilate_last = isinstance(recipe, DetectionRecipe) and recipe.model.body == "dc5"
    output_stride = recipe.model.last_stride if isinstance(recipe, SegmentationRecipe) else 32
    return build_backbone(recipe, num_classes, dilate_last=dilate_last, output_stride=output_stride)


def freeze(backbone: Backbone, settings: Detector | PerClassRPN | SegmenterModel) -> None:
    """Freeze what its head's settings have frozen: all norms, and the stages up to a stride."""
    if settings.norms == "frozen":
        freeze_norms(backbone)
    backbone.freeze(settings.freeze_stride)


def pretrained_backbone(
    recipe: DetectionRecipe | LocalisationRecipe | SegmentationRecipe,
) -> tuple[Backbone, dict[str, Any]]:
    """Return the recipe's backbone with its weights loaded, and a record of where they come from.

    Raises RecipeError where `--weights` is missing, or is `none` while something would stay frozen: random layers
    that never learn are no baseline.
    """
    require_weights(recipe.weights, recipe.model)
    if recipe.weights == "none":
        return make_detector_backbone(recipe), {"source": "none"}
    state, origin = resolve_weights(recipe.weights, recipe.backbone)
    backbone = make_detector_backbone(recipe, int(origin.get("backbone", {}).get("num_classes", 1000)))
    _, origin = start_from(backbone, state, origin, Path(recipe.weights))
    return backbone, {"source": recipe.weights, **origin}


def build_classifier(recipe: BackboneRecipe, num_classes: int) -> tuple[Classifier, dict[str, Any] | None]:
    """Return the network to train, and the provenance of what it starts from."""
    backbone = build_backbone(recipe, num_classes, zero_init=recipe.zero_init_residual)
    if recipe.zero_init_residual and recipe.weights is None and ":" in recipe.backbone:
        logger.warning("zero_init_residual is for our own networks: %s begins as its library has it", recipe.backbone)
    origin = None
    if recipe.weights not in (None, "none"):
        origin = _start_from(backbone, recipe.weights)
    if recipe.shallow_weights is not None:
        origin = _start_from_shallow(backbone, recipe.shallow_weights)
    if recipe.checkpoint_activations:
        recompute_blocks(backbone)
    return Classifier(backbone, label_smoothing=recipe.label_smoothing), origin


def _start_from(backbone: Backbone, weights: str) -> dict[str, Any]:
    """Load all but the classifier; return the provenance of the weights."""
    state, origin = resolve_weights(weights, backbone.name)
    state, origin = start_from(backbone, state, origin, Path(weights))
    there = state.get(f"{backbone.classifier_name}.weight")
    others = f" instead of {len(there)}" if there is not None and len(there) != backbone.num_classes else ""
    logger.info("weights of %s; the classifier starts anew: %d classes%s", weights, backbone.num_classes, others)
    return origin


def _start_from_shallow(backbone: Backbone, path: Path) -> dict[str, Any]:
    """Load a shallower VGG's outer layers (Simonyan & Zisserman 2014, §3.1); return the provenance of its file."""
    state, origin = load_weights(local_file(path))
    taken, names = shallow_layers(backbone, state, origin=str(path))
    if "backbone" in origin:
        identity = backbone.identity()
        same = ("channel_order", "pixel_mean", "pixel_std", "width")
        check_provenance(origin["backbone"], {fact: identity[fact] for fact in same}, path)
    kept = tuple(name for name in backbone.state_dict() if name not in taken)
    load_into(backbone, taken, path, allow_missing=kept)
    logger.info("%s starts from %s of %s; the other layers from random weights", backbone.name, names, path)
    return {"source": f"first and last layers of {path.name}", **origin}
