"""The training of a detector, and what is done with a trained one on a test set: predictions, figures, proposals."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from torch import nn

from backbones import Backbone
from detectors.faster_rcnn import FasterRCNN, Proposer
from vertebra.build import detection_data, hub
from vertebra.build.cost import cost
from vertebra.build.detector import make_detector, make_tested
from vertebra.build.detectron2_engine import engine_version
from vertebra.build.head_run import HeadTraining
from vertebra.build.trained_detector import is_detector, read_detector
from vertebra.build.training import autocast_of
from vertebra.data.datasets.records import DetectionDataset
from vertebra.engine.distributed import World
from vertebra.engine.logs import progress
from vertebra.engine.rundir import RunDirectory
from vertebra.engine.session import Record
from vertebra.evaluation.metrics.summary import log_figures, summarise
from vertebra.evaluation.predict.detections import predict_detections
from vertebra.ground.files import write_atomically
from vertebra.recipes.schema_detection import DetectionRecipe

logger = logging.getLogger(__name__)


class DetectorTraining(HeadTraining[DetectionRecipe, DetectionDataset]):
    """Trains Faster R-CNN or Mask R-CNN, or trains a detector on; see `HeadTraining`."""

    kind = "det"
    figure = "AP"
    results = "predictions"
    model: FasterRCNN

    def open_data(self) -> tuple[DetectionDataset, DetectionDataset]:
        return detection_data.open_train(self.recipe), detection_data.open_test(self.recipe)

    def data_name(self) -> str:
        return self.recipe.dataset

    def check_files(self) -> None:
        detection_data.require_files(self.train_set, self.test_set, self.world)

    def make_model(self) -> nn.Module:
        weights = self.recipe.weights
        if not is_detector(weights):
            return super().make_model()
        trained = read_detector(weights)
        self.backbone, model = trained.start(self.recipe, self.train_set.class_names)
        self.origin = {"source": weights, "detector": trained.facts["detector"], "classes": trained.class_names}
        self.origin |= hub.revision_of(weights)
        return self.begin_with(model)

    def assemble(self, backbone: Backbone) -> FasterRCNN:
        return make_detector(self.recipe, backbone, len(self.train_set.class_names))

    def title(self) -> str:
        return f"{self.recipe.model.title} on {self.recipe.backbone} (weights: {self.origin['source']})"

    def own_facts(self) -> dict[str, Any]:
        return {
            "detector": self.recipe.model.title,
            "category_ids": list(self.train_set.category_ids),
            "sample_hash": sample_hash(self.recipe),
        }

    def protocol(self) -> dict[str, Any]:
        engine = {} if self.recipe.engine == "vertebra" else {"engine": engine_version()}
        return {**super().protocol(), **engine}

    def begin(self, run: RunDirectory) -> None:
        source, recipe = self.recipe.test_source, self.recipe
        if source and source == recipe.train_source and not recipe.validation:
            logger.warning("trains and tests on the same images (%s): the figures reward learning by heart", source)
        run.write_json(run.truth, self.test_set.coco_truth())

    def train_loader(self, *, start: int, iterations: int) -> Any:
        return detection_data.detection_train_loader(
            self.recipe, self.train_set, self.world, start=start, iterations=iterations
        )

    def test_loader(self) -> Any:
        return detection_data.detection_test_loader(self.recipe, self.test_set, self.world)

    def evaluate(self, run: RunDirectory) -> dict[str, float]:
        return evaluate_detector(self.recipe, self.model, self.test_set, self.world, run)

    def finish(self, run: RunDirectory, record: Record, facts: dict[str, Any]) -> None:
        if self.recipe.write_proposals:
            write_proposals(self.recipe, self.model, self.test_set, self.world, run.path / "proposals.json")
        super().finish(run, record, facts)


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
    tested = make_tested(recipe, [model, *others])
    loader = detection_data.detection_test_loader(recipe, test_set, world)

    def cost_of(times_s: list[float]) -> dict[str, Any]:
        loaded = detection_data.detection_test_loader
        found = cost(recipe, tested, test_set, times_s, test_loader=loaded, method="detect")
        return found | {"proposals": sum(one.proposals for one in [model, *others])}

    return evaluate_tested(recipe, tested, loader, test_set, world, run, cost_of=cost_of, origin=origin)


def evaluate_tested(
    recipe: DetectionRecipe,
    tested: nn.Module,
    loader: Any,
    test_set: DetectionDataset,
    world: World,
    run: RunDirectory,
    *,
    cost_of: Callable[[list[float]], dict[str, Any]],
    origin: Mapping[str, Any] | None = None,
) -> dict[str, float]:
    """As `evaluate_detector`, whatever has a method `detect`, on the batches of `loader`.

    cost_of: the seconds an image, of each batch, to the part `cost` of evaluation.json.
    """
    times_s: list[float] = []
    predictions = predict_detections(
        tested,
        progress(loader, description="evaluate"),
        test_set.category_ids,
        device=world.device,
        autocast=autocast_of(world.device, recipe.precision),
        image_order=[int(image_id) for image_id in test_set.image_ids_I],
        times_s=times_s,
    )
    if predictions is None:
        return {}
    # Before they are scored: whatever goes wrong there, they are not lost.
    write_atomically(run.predictions, predictions.write)
    summary = summarise(test_set.coco_truth(), predictions, voc_metric=recipe.test.voc_metric)
    if predictions.masks_K is not None and len(test_set.labels_K) and "coco_segm" not in summary:
        logger.warning("%s: not every object has a mask, so there are no figures of masks", test_set.source)
    summary["cost"] = cost_of(times_s)
    summary |= origin or {}
    summary["image_root"] = str(test_set.root.resolve())
    run.write_json(run.evaluation, summary)
    if "note" in summary:
        logger.warning(summary["note"])
    return log_figures(summary)


def write_proposals(
    recipe: DetectionRecipe, model: FasterRCNN, test_set: DetectionDataset, world: World, path: Path
) -> None:
    """Write the regions that the RPN proposes in the test set, as COCO results without category_id."""
    # At the test size alone: that is where regions are proposed, at however many they are then read.
    once = recipe.model_copy(update={"test": recipe.test.model_copy(update={"multi_scale": ()})})
    proposals = predict_detections(
        Proposer(model),
        progress(detection_data.detection_test_loader(once, test_set, world), description="propose"),
        None,
        device=world.device,
        autocast=autocast_of(world.device, recipe.precision),
        image_order=[int(image_id) for image_id in test_set.image_ids_I],
    )
    if proposals is not None:
        write_atomically(path, proposals.write)
        logger.info("%d proposals in %d images: %s", len(proposals), len(test_set), path)


def sample_hash(recipe: DetectionRecipe) -> str | None:
    """Return the generator's hash where the data is the embedded sample set."""
    if recipe.data is None or not (recipe.data / "sample.json").is_file():
        return None
    return str(json.loads((recipe.data / "sample.json").read_text())["hash"])
