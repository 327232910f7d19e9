"""What train_det.py and eval_det.py both do at the end: predictions, their figures, what they cost."""

from __future__ import annotations

import json
import statistics
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from torch import nn

    from configs.schema import DetectionRecipe
    from data.records import DetectionDataset
    from detectors.faster_rcnn import FasterRCNN
    from engine.distributed import World
    from engine.rundir import RunDirectory


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
    from configs import build, build_detection
    from configs.build_improved import build_tested
    from engine.logs import progress
    from evaluation.inference import predict_detections
    from evaluation.summary import summarise

    times_s: list[float] = []
    tested = build_tested(recipe, [model, *others])
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
    summary["cost"] = {**cost(recipe, tested, test_set), "time_per_image_s": statistics.median(times_s)}
    summary |= origin or {}
    summary["image_root"] = str(test_set.root.resolve())
    run.write_json(run.predictions, predictions)
    run.write_json(run.evaluation, summary)
    figures = {**summary["coco"], "VOC": summary["voc"]["mAP"]}
    return {name: value for name, value in figures.items() if value is not None}  # None: nothing to find


def cost(recipe: DetectionRecipe, model: nn.Module, test_set: DetectionDataset) -> dict[str, Any]:
    """Parameters, and multiply-adds of one image: the test set's first, at its test size."""
    from backbones.cost import count_flops, count_parameters
    from configs import build_detection
    from engine.distributed import World

    one = recipe.model_copy(update={"workers": 0, "test": recipe.test.model_copy(update={"batch_size": 1})})
    images, _ = next(iter(build_detection.detection_test_loader(one, test_set, World()))).inputs
    images = images.to(next(model.parameters()).device)
    return {
        "parameters": count_parameters(model),
        "flops": count_flops(model, images, method="detect"),
        "input_hw": list(images.sizes_hw[0]),
    }


def sample_hash(recipe: DetectionRecipe) -> str | None:
    """The generator's hash where the data is the embedded sample set."""
    if recipe.data is None or not (recipe.data / "sample.json").is_file():
        return None
    return str(json.loads((recipe.data / "sample.json").read_text())["hash"])
