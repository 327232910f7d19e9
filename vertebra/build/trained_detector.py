"""Trained detectors on disk: a run directory's, a file of weights, or one of torchvision's or detectron2's."""

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
from vertebra.build.detectron2_config import MSRA_MEAN, MSRA_STD, classes_of, detectron2_recipe
from vertebra.build.detectron2_weights import from_detectron2
from vertebra.build.results import weights_file
from vertebra.build.torchvision_detectors import (
    COCO_DETECTOR,
    from_torchvision,
    torchvision_classes,
    torchvision_recipe,
    torchvision_state,
)
from vertebra.build.weights import adopt_identity, local_file
from vertebra.data.datasets.voc import CLASS_NAMES as VOC_CLASSES
from vertebra.engine.weights import load_weights, read_provenance
from vertebra.ground.errors import UserError
from vertebra.ground.formats import counted
from vertebra.ground.parse import flatten
from vertebra.recipes.command_line import read_yaml, validated
from vertebra.recipes.schema_detection import DetectionRecipe

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class TrainedDetector:
    """A detector on disk.

    path: where it comes from, for messages; facts: its provenance; names: by category id; guessed: these are a guess
    from how many classes there are, as detectron2's files do not say.
    """

    path: Path
    recipe: DetectionRecipe
    facts: dict[str, Any]
    state: dict[str, torch.Tensor]
    names: dict[int, str]
    guessed: bool = False

    @property
    def class_names(self) -> tuple[str, ...]:
        return tuple(self.names.values())

    def restore(self, recipe: DetectionRecipe | None = None) -> FasterRCNN:
        """Return the detector in evaluation mode, on the CPU. recipe: its own, with other settings of the test."""
        _, model = self._untrained(recipe or self.recipe, len(self.names))
        detector.load_file_state(model, self.state, self.path)
        return model.eval()

    def start(self, recipe: DetectionRecipe, class_names: Sequence[str]) -> tuple[Backbone, FasterRCNN]:
        """Return a detector of `recipe` to be trained on from these weights, and its backbone.

        Where it is to know other classes, the layers that tell them apart begin anew. Raises UserError where the others
        do not fit.
        """
        backbone, model = self._untrained(recipe, len(class_names))
        known = self.class_names == tuple(class_names)
        anew = [layer for layer in detector.CLASS_LAYERS if not known and any(n.startswith(layer) for n in self.state)]
        detector.load_file_state(model, self.state, self.path, anew=anew)
        layers = f"; new, for {counted(len(class_names), 'class')}: {', '.join(anew)}" if anew else ""
        logger.info("the training goes on from the detector %s%s", self.path, layers)
        return backbone, model

    def _untrained(self, recipe: DetectionRecipe, classes: int) -> tuple[Backbone, FasterRCNN]:
        backbone = make_detector_backbone(recipe)
        adopt_identity(self.facts, backbone, self.path)
        return backbone, detector.make_detector(recipe, backbone, classes)


def is_detector(weights: str) -> bool:
    """Tell whether that is a file of train_det.py's, and not one of a backbone."""
    path = local_file(weights)
    return path.suffix == ".safetensors" and path.is_file() and "detector" in read_provenance(path)


def read_detector(weights: str) -> TrainedDetector:
    """Read a run directory of train_det.py, a detector's file, torchvision:NAME[=FILE] or detectron2:FILE."""
    if weights.startswith("torchvision:"):
        return _read_torchvision(weights)
    if weights.startswith("detectron2:"):
        return _read_detectron2(Path(weights.removeprefix("detectron2:")))
    path = local_file(weights)
    if path.is_dir():
        path = weights_file(path, tool="train_det.py")
    state, facts = load_weights(path)
    if "training_share_hw" in facts:
        raise UserError(path, "holds a localizer, which eval_loc.py alone takes", "name weights of train_det.py")
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


def _read_detectron2(path: Path) -> TrainedDetector:
    state, _ = load_weights(path)
    file = next((file for file in (path.with_suffix(".yaml"), path.with_name("config.yaml")) if file.is_file()), None)
    config = flatten(read_yaml(file)) if file is not None else {}
    if "MODEL.META_ARCHITECTURE" not in config:
        logger.warning(
            "no configuration of detectron2's lies beside %s: read as its model zoo's, BGR pixels less their mean, the "
            "stride in the 1x1 convolution; its trainer writes a config.yaml, put that there for another",
            path,
        )
    bgr = config.get("INPUT.FORMAT", "BGR") == "BGR"
    mean, std = (config.get(f"MODEL.PIXEL_{name}", known) for name, known in (("MEAN", MSRA_MEAN), ("STD", MSRA_STD)))
    order = -1 if bgr else 1
    try:
        recipe = detectron2_recipe(state, config)
        ours = from_detectron2(state, recipe, bgr=bgr)
    except (ValueError, TypeError) as error:
        raise ValueError(f"{path}: {error}") from None
    classes = classes_of(state)
    known = {80: torchvision_classes(COCO_DETECTOR), 20: dict(enumerate(VOC_CLASSES, start=1))}
    return TrainedDetector(
        path,
        recipe,
        {"backbone": {"pixel_mean": list(mean)[::order], "pixel_std": list(std)[::order]}},
        ours,
        known.get(classes, {number: f"class {number}" for number in range(1, classes + 1)}),
        guessed=True,
    )


def read_member(weights: str, recipe: DetectionRecipe, class_names: Sequence[str]) -> FasterRCNN:
    """Read another detector, to join one of that recipe and those classes in an ensemble; see `read_detector`."""
    trained = read_detector(weights)
    check_member(weights, trained.recipe, trained.class_names, recipe, class_names)
    return trained.restore()
