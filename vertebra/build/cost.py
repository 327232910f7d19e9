"""The cost of a detector or a segmenter: the part `cost` of evaluation.json, for fronts of AP or mIoU against cost.

parameters        of everything that is tested: all detectors of an ensemble, a segmenter with its auxiliary head
flops             multiply-adds of one image, the test set's first, at its test size
input_hw          that size, pixels
proposals         of a detector: regions that are scored in one image
latency_s         median seconds of one image given alone, pixels on the device to its answer there, after a warm-up
latency_n         calls behind that median
time_per_image_s  median over the test set's batches, in the recipe's size, of seconds an image: to the device and back
                  to the host, masks and maps in full size
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
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import nn

from backbones import create_backbone
from backbones.cost import count_flops, count_parameters, image_flops
from backbones.norms import evaluating, forget_folded
from vertebra.build.training import autocast_of
from vertebra.engine import provenance
from vertebra.engine.distributed import World
from vertebra.engine.measure import memory_growth, timed_calls, weights_mb
from vertebra.recipes.schema_detection import DetectionRecipe
from vertebra.recipes.schema_segmentation import SegmentationRecipe

CALLS, FEWEST_CALLS, CALLS_WITHIN_S = 10, 3, 2.0  # of the latency; slow machines stop early
CLASSES = 1000  # ImageNet's, whose classifiers the papers' tables count


def cost(
    recipe: DetectionRecipe | SegmentationRecipe,
    model: nn.Module,
    test_set: Any,
    times_s: Sequence[float],
    *,
    test_loader: Callable[[Any, Any, World], Any],
    method: str = "forward",
) -> dict[str, Any]:
    """Return all figures named above but `proposals`. times_s: seconds an image, of each test batch.

    test_loader: recipe, test set and processes to batches. method: of the model, that takes an image's batch.
    """
    one = recipe.model_copy(update={"workers": 0, "test": recipe.test.model_copy(update={"batch_size": 1})})
    device = next(model.parameters()).device
    images = next(iter(test_loader(one, test_set, World()))).inputs[0].to(device)
    autocast = autocast_of(device, recipe.precision)

    def answer() -> None:
        with torch.inference_mode(), autocast():
            getattr(model, method)(images)

    with evaluating(model):
        flops = count_flops(model, images, method=method)
        latencies_s = timed_calls(answer, device, enough=CALLS, fewest=FEWEST_CALLS, within_s=CALLS_WITHIN_S)
        forget_folded()  # so that what the call keeps counts
        memory_mb = weights_mb(model) + memory_growth(answer, device)
    return {
        "parameters": count_parameters(model),
        "flops": flops,
        "input_hw": list(images.sizes_hw[0]),
        "latency_s": statistics.median(latencies_s),
        "latency_n": len(latencies_s),
        "time_per_image_s": statistics.median(times_s),
        "images_per_s": 1 / statistics.median(times_s),
        "peak_memory_mb": memory_mb,
        "peak_memory_of": "device" if device.type == "cuda" else "tensors",
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
