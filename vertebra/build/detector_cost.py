"""The cost of a detector: the part `cost` of evaluation.json, for fronts of AP against cost.

parameters        of everything that detects (all detectors of an ensemble)
flops             multiply-adds of one image, the test set's first, at its test size
input_hw          that size, pixels
proposals         regions that are scored in one image
latency_s         median seconds of one image given alone, pixels on the device to detections there, after a warm-up
latency_n         calls behind that median
time_per_image_s  median over the test set's batches, in the recipe's size, of seconds an image: to the device and back
                  to the host, masks in full size
images_per_s      one over that
peak_memory_mb    memory of the weights, and what a single image needs on top of it, folded norms among it: see
                  measure.memory_growth
peak_memory_of    device: all that torch allocates there; tensors: of a CPU, those alive at once (older runs: process)
device, threads   what it was measured on; threads of a CPU alone
precision         of convolutions and linear layers in all these times
classifier        parameters, flops, input_hw of the backbone as a classifier of 1000 classes
"""

from __future__ import annotations

import functools
import statistics
from collections.abc import Sequence
from typing import Any

import torch
from torch import nn

from backbones import create_backbone
from backbones.cost import count_flops, count_parameters, image_flops
from backbones.norms import evaluating, forget_folded
from detectors.faster_rcnn import FasterRCNN
from vertebra.build import detection_data
from vertebra.build.training import autocast_of
from vertebra.data.datasets.records import DetectionDataset
from vertebra.engine import provenance
from vertebra.engine.distributed import World
from vertebra.engine.measure import memory_growth, timed_calls, weights_mb
from vertebra.recipes.schema_detection import DetectionRecipe

CALLS, FEWEST_CALLS, CALLS_WITHIN_S = 10, 3, 2.0  # of the latency; slow machines stop early
CLASSES = 1000  # ImageNet's, whose classifiers the papers' tables count


def cost(
    recipe: DetectionRecipe,
    model: nn.Module,
    test_set: DetectionDataset,
    times_s: Sequence[float],
    *,
    detectors: Sequence[FasterRCNN],
) -> dict[str, Any]:
    """Return all figures named above. model: made of `detectors`. times_s: seconds an image, of each test batch."""
    one = recipe.model_copy(update={"workers": 0, "test": recipe.test.model_copy(update={"batch_size": 1})})
    device = next(model.parameters()).device
    images, _ = next(iter(detection_data.detection_test_loader(one, test_set, World()))).inputs
    images = images.to(device)
    detector: Any = model
    autocast = autocast_of(device, recipe.precision)

    def detect() -> None:
        with torch.inference_mode(), autocast():
            detector.detect(images)

    with evaluating(model):
        flops = count_flops(model, images, method="detect")
        latencies_s = timed_calls(detect, device, enough=CALLS, fewest=FEWEST_CALLS, within_s=CALLS_WITHIN_S)
        forget_folded()  # so that what the call keeps counts
        memory_mb = weights_mb(model) + memory_growth(detect, device)
    figures = {
        "parameters": count_parameters(model),
        "flops": flops,
        "input_hw": list(images.sizes_hw[0]),
        "proposals": sum(one.proposals for one in detectors),
        "latency_s": statistics.median(latencies_s),
        "latency_n": len(latencies_s),
        "time_per_image_s": statistics.median(times_s),
        "images_per_s": 1 / statistics.median(times_s),
        "peak_memory_mb": memory_mb,
        "peak_memory_of": "device" if device.type == "cuda" else "tensors",
    }
    return {
        **figures,
        **describe_device(device),
        "precision": recipe.precision,
        "classifier": classifier_cost(recipe.backbone, recipe.width, recipe.shortcut, recipe.stride_in),
    }


def describe_device(device: torch.device) -> dict[str, Any]:
    """Return the name of the device, and of a CPU the threads in use."""
    if device.type == "cuda":
        return {"device": torch.cuda.get_device_name(device)}
    return {"device": provenance.machine()["cpu"], "threads": torch.get_num_threads()}


@functools.lru_cache
def classifier_cost(backbone: str, width: float, shortcut: str, stride_in: str) -> dict[str, Any]:
    """Return the cost of the backbone as a classifier, at its own image size; nothing is computed."""
    # Parts without storage draw nothing; the generator is guarded all the same: a training's draws follow these.
    with torch.random.fork_rng(devices=[]), torch.device("meta"):
        net = create_backbone(backbone, num_classes=CLASSES, width=width, shortcut=shortcut, stride_in=stride_in)
    side = net.native_px
    net.eval()
    return {"parameters": count_parameters(net), "flops": image_flops(net, side, side), "input_hw": [side, side]}
