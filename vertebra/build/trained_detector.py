"""Trained detectors on disk: a run directory's, a file of weights, or one that torchvision publishes."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from backbones import Backbone
from detectors.faster_rcnn import FasterRCNN
from vertebra.build import detector
from vertebra.build.backbone import make_detector_backbone
from vertebra.build.detector import check_member
from vertebra.build.outside_detectors import (
    from_torchvision,
    torchvision_classes,
    torchvision_recipe,
    torchvision_state,
)
from vertebra.build.results import weights_file
from vertebra.build.weights import adopt_identity, local_file
from vertebra.engine.weights import load_weights, read_provenance
from vertebra.ground.formats import counted
from vertebra.recipes.command_line import validated
from vertebra.recipes.schema_detection import DetectionRecipe

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class TrainedDetector:
    """A detector on disk. path: where it comes from, for messages; facts: its provenance; names: by category id."""

    path: Path
    recipe: DetectionRecipe
    facts: dict[str, Any]
    state: dict[str, torch.Tensor]
    names: dict[int, str]

    @property
    def class_names(self) -> tuple[str, ...]:
        return tuple(self.names.values())

    def restore(self, recipe: DetectionRecipe | None = None) -> FasterRCNN:
        """Return the detector in evaluation mode, on the CPU. recipe: its own, with other settings of the test."""
        recipe = recipe or self.recipe
        backbone = make_detector_backbone(recipe)
        adopt_identity(self.facts, backbone, self.path)
        model = detector.make_detector(recipe, backbone, len(self.names))
        detector.load_file_state(model, self.state, self.path)
        return model.eval()

    def start(self, recipe: DetectionRecipe, class_names: Sequence[str]) -> tuple[Backbone, FasterRCNN]:
        """Return a detector of `recipe` to be trained on from these weights, and its backbone.

        Where it is to know other classes, the layers that tell them apart begin anew. Raises UserError where the others
        do not fit.
        """
        backbone = make_detector_backbone(recipe)
        adopt_identity(self.facts, backbone, self.path)
        model = detector.make_detector(recipe, backbone, len(class_names))
        known = self.class_names == tuple(class_names)
        anew = [layer for layer in detector.CLASS_LAYERS if not known and any(n.startswith(layer) for n in self.state)]
        detector.load_file_state(model, self.state, self.path, anew=anew)
        layers = f"; new, for {counted(len(class_names), 'class')}: {', '.join(anew)}" if anew else ""
        logger.info("the training goes on from the detector %s%s", self.path, layers)
        return backbone, model


def is_detector(weights: str) -> bool:
    """Tell whether that is a file of train_det.py's, and not one of a backbone."""
    path = local_file(weights)
    return path.suffix == ".safetensors" and path.is_file() and "detector" in read_provenance(path)


def read_detector(weights: str) -> TrainedDetector:
    """Read a run directory of train_det.py, a detector's file, or torchvision:NAME[=FILE]."""
    if weights.startswith("torchvision:"):
        return _read_torchvision(weights)
    path = local_file(weights)
    if path.is_dir():
        path = weights_file(path, tool="train_det.py")
    state, facts = load_weights(path)
    if "recipe" not in facts or "detector" not in facts:
        raise ValueError(f"{path} does not hold a detector's recipe; weights of train_det.py do")
    recipe = validated(DetectionRecipe, facts["recipe"], str(path))
    return TrainedDetector(path, recipe, facts, state, dict(zip(facts["category_ids"], facts["class_names"])))


def _read_torchvision(weights: str) -> TrainedDetector:
    name, _, file = weights.removeprefix("torchvision:").partition("=")
    recipe, names = torchvision_recipe(name), torchvision_classes(name)
    path = Path(file or weights)
    state = torchvision_state(name, Path(file) if file else None)
    try:
        return TrainedDetector(path, recipe, {}, from_torchvision(state, list(names)), names)
    except ValueError as error:
        raise ValueError(f"{path}: {error}; give the state dict of torchvision's {name}") from None


def read_member(weights: str, recipe: DetectionRecipe, class_names: Sequence[str]) -> FasterRCNN:
    """Read another detector, to join one of that recipe and those classes in an ensemble; see `read_detector`."""
    trained = read_detector(weights)
    check_member(weights, trained.recipe, trained.class_names, recipe, class_names)
    return trained.restore()
