"""What several of the detectors' tools do: read a detector, predict a test set, its figures."""

from __future__ import annotations

import json
import logging
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    import torch

    from detectors.faster_rcnn import FasterRCNN
    from vertebra.data.datasets.records import DetectionDataset
    from vertebra.engine.distributed import World
    from vertebra.engine.rundir import RunDirectory
    from vertebra.recipes.schema_detection import DetectionRecipe

logger = logging.getLogger("vertebra.build.wiring")


def evaluate_detector(
    recipe: DetectionRecipe,
    model: FasterRCNN,
    test_set: DetectionDataset,
    world: World,
    run: RunDirectory,
    *,
    others: Sequence[FasterRCNN] = (),
    origin: Mapping[str, Any] | None = None,
) -> dict[str, float]:
    """Predict the test set on all processes, score on rank 0, write predictions.json and evaluation.json.

    others: detectors that make an ensemble with `model`. origin: facts to be written into evaluation.json too. Returns
    the figures for the log, empty on other ranks.
    """
    from vertebra.build import build, build_detection
    from vertebra.build.detector import make_tested
    from vertebra.build.wiring_cost import cost
    from vertebra.engine.logs import progress
    from vertebra.evaluation.metrics.summary import log_figures, summarise
    from vertebra.evaluation.predict.detections import predict_detections

    times_s: list[float] = []
    tested = make_tested(recipe, [model, *others])
    predictions = predict_detections(
        tested,
        progress(build_detection.detection_test_loader(recipe, test_set, world), description="evaluate"),
        test_set.category_ids,
        device=world.device,
        autocast=build.autocast_of(world.device, recipe.precision),
        image_order=[int(image_id) for image_id in test_set.image_ids_I],
        times_s=times_s,
    )
    if predictions is None:
        return {}
    summary = summarise(test_set.coco_truth(), predictions, voc_metric=recipe.test.voc_metric)
    if predictions and "segmentation" in predictions[0] and len(test_set.labels_K) and "coco_segm" not in summary:
        logger.warning("%s: not every object has a mask, so there are no figures of masks", test_set.source)
    summary["cost"] = cost(recipe, tested, test_set, times_s, detectors=[model, *others])
    summary |= origin or {}
    summary["image_root"] = str(test_set.root.resolve())
    run.write_json(run.predictions, predictions)
    run.write_json(run.evaluation, summary)
    if "note" in summary:
        logging.getLogger("vertebra.build.wiring").warning(summary["note"])
    return log_figures(summary)


def write_proposals(
    recipe: DetectionRecipe, model: FasterRCNN, test_set: DetectionDataset, world: World, path: Path
) -> None:
    """The regions that the detector's RPN proposes in the test set, as COCO results without category_id."""
    from detectors.faster_rcnn import Proposer
    from vertebra.build import build, build_detection
    from vertebra.engine.logs import progress
    from vertebra.evaluation.predict.detections import predict_proposals
    from vertebra.ground.files import write_json

    # At the test size alone: that is where regions are proposed, at however many they are then read.
    once = recipe.model_copy(update={"test": recipe.test.model_copy(update={"multi_scale": ()})})
    proposals = predict_proposals(
        Proposer(model),
        progress(build_detection.detection_test_loader(once, test_set, world), description="propose"),
        device=world.device,
        autocast=build.autocast_of(world.device, recipe.precision),
        image_order=[int(image_id) for image_id in test_set.image_ids_I],
    )
    if proposals is not None:
        write_json(path, proposals, compact=True)
        logger.info("%d proposals in %d images: %s", len(proposals), len(test_set), path)


def recipe_in(facts: dict[str, Any], path: Path) -> DetectionRecipe:
    """The recipe that the detector in a file of weights was trained with."""
    from vertebra.recipes.command_line import validated
    from vertebra.recipes.schema_detection import DetectionRecipe

    if "recipe" in facts and "detector" in facts:
        return validated(DetectionRecipe, facts["recipe"], str(path))
    raise ValueError(f"{path} does not hold a detector's recipe; weights of train_det.py do")


@dataclass(frozen=True)
class Trained:
    """A detector on disk. path: where it comes from, for messages; facts: its provenance; names: by category id."""

    path: Path
    recipe: DetectionRecipe
    facts: dict[str, Any]
    state: dict[str, torch.Tensor]
    names: dict[int, str]


def read_detector(weights: str) -> Trained:
    """weights: a run directory of train_det.py, a detector's file, or torchvision:NAME[=FILE]."""
    from vertebra.build.wiring_run import weights_file
    from vertebra.engine.weights import load_weights

    if weights.startswith("torchvision:"):
        return _read_torchvision(weights)
    path = Path(weights)
    if path.is_dir():
        path = weights_file(path, None, tool="train_det.py")
    state, facts = load_weights(path)
    recipe = recipe_in(facts, path)
    return Trained(path, recipe, facts, state, dict(zip(facts["category_ids"], facts["class_names"])))


def _read_torchvision(weights: str) -> Trained:
    from vertebra.build.outside_detectors import (
        from_torchvision,
        torchvision_classes,
        torchvision_recipe,
        torchvision_state,
    )

    name, _, file = weights.removeprefix("torchvision:").partition("=")
    recipe, names = torchvision_recipe(name), torchvision_classes(name)
    path = Path(file or weights)
    state = torchvision_state(name, Path(file) if file else None)
    try:
        return Trained(path, recipe, {}, from_torchvision(state, list(names)), names)
    except ValueError as error:
        raise ValueError(f"{path}: {error}; give the state dict of torchvision's {name}") from None


def restore_detector(
    recipe: DetectionRecipe, state: dict[str, torch.Tensor], facts: dict[str, Any], classes: int, path: Path
) -> FasterRCNN:
    """The detector of a file of weights, in evaluation mode, on the CPU."""
    from vertebra.build import build
    from vertebra.build.detector import load_file_state, make_backbone, make_detector

    backbone = make_backbone(recipe)
    build.check_identity(facts, backbone, path)
    model = make_detector(recipe, backbone, classes)
    load_file_state(model, state, path)
    return model.eval()


def read_member(weights: str, recipe: DetectionRecipe, class_names: Sequence[str]) -> FasterRCNN:
    """Another detector, to join one of that recipe and those classes in an ensemble; weights: see `read_detector`."""
    from vertebra.build.detector import check_member

    read = read_detector(weights)
    check_member(weights, read.recipe, tuple(read.names.values()), recipe, class_names)
    return restore_detector(read.recipe, read.state, read.facts, len(read.names), read.path)


def sample_hash(recipe: DetectionRecipe) -> str | None:
    """The generator's hash where the data is the embedded sample set."""
    if recipe.data is None or not (recipe.data / "sample.json").is_file():
        return None
    return str(json.loads((recipe.data / "sample.json").read_text())["hash"])
