"""How long a training will take, about: its multiply-adds over a rate that was measured, or the pace of its like.

The step's cost is that of the forward pass times three: backward takes two of the same kind. Frozen layers cost less
than that, and reading images, NMS and the like are not counted, so it is a forecast and no promise.
"""

from __future__ import annotations

import heapq
import statistics
import time
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from backbones import create_backbone
from backbones.cost import count_flops, image_flops
from detectors.faster_rcnn import FasterRCNN
from vertebra.build import detection_data
from vertebra.build.backbone import build_backbone, make_detector_backbone
from vertebra.build.classification_data import open_classes
from vertebra.build.detector import make_detector
from vertebra.build.training import autocast_of
from vertebra.engine import device, precision
from vertebra.engine.jobs.board import latest
from vertebra.lab.matrix import Matrix
from vertebra.lab.training import Training
from vertebra.recipes.schema import BackboneRecipe, RunRecipe
from vertebra.recipes.schema_compare import CompareRecipe
from vertebra.recipes.schema_detection import DetectionRecipe

CLASSES = 20
MASK_CELLS = 14  # a side of what a mask is read from
BACKWARD_AND_FORWARD = 3
ASPECT = 4 / 3  # of a common photograph
MEASURED_S = 0.8


@dataclass(frozen=True)
class Cost:
    """Multiply-adds of one step on the whole batch (all devices together), and of one image at test."""

    step: float
    test: float

    def of(self, training: Training, test_images: int) -> float:
        """Return all that the training computes, its evaluations included."""
        period = training.recipe.eval_period
        evaluations = 1 if period is None else -(-training.iterations // period)
        return training.iterations * self.step + evaluations * test_images * self.test


def cost_of(recipe: RunRecipe) -> Cost:
    """Return what the recipe's training costs, from its layers alone."""
    batch = recipe.solver.batch_size if isinstance(recipe, BackboneRecipe | DetectionRecipe) else 1
    if isinstance(recipe, DetectionRecipe):
        one, test = _detector_flops(recipe)
    else:
        assert isinstance(recipe, BackboneRecipe)
        with torch.device("meta"):
            net = build_backbone(recipe, num_classes=1000)
            sides = recipe.input.size, recipe.input.test_size or recipe.input.size
            one, test = (image_flops(net, side, side) for side in sides)
    return Cost(BACKWARD_AND_FORWARD * batch * one, test)


def _detector_flops(recipe: DetectionRecipe) -> tuple[int, int]:
    """Return the multiply-adds of one photograph in training (forward) and at test."""
    recipe = recipe.model_copy(update={"engine": "vertebra"})  # the layers are the same
    rois, proposals = recipe.model.rois, recipe.model.proposals[1]
    side, test_side = statistics.mean(recipe.input.shorter_side), recipe.input.test_shorter_side
    with torch.device("meta"):
        detector = make_detector(recipe, make_detector_backbone(recipe), CLASSES)
        training = _Pass(detector, rois, masks=int(rois * recipe.model.roi_positive))
        test = _Pass(detector, proposals, masks=recipe.test.detections)
        return (
            count_flops(training, _photograph(side, recipe.input.longer_side)),
            count_flops(test, _photograph(test_side, recipe.input.longer_side)),
        )


def _photograph(shorter: float, longest: int) -> Tensor:
    return torch.zeros(1, 3, round(shorter), round(min(longest, shorter * ASPECT)), dtype=torch.uint8)


class _Pass(nn.Module):
    """A detector's layers with regions that are there by number alone, so that it runs on the meta device."""

    def __init__(self, detector: FasterRCNN, regions: int, masks: int):
        super().__init__()
        self.detector, self.regions, self.masks = detector, regions, masks

    def forward(self, pixels_N3HW: Tensor) -> None:
        sizes_hw_N2 = torch.zeros(len(pixels_N3HW), 2, dtype=torch.int64, device=pixels_N3HW.device)
        maps = self.detector.body(pixels_N3HW, sizes_hw_N2)
        for x_NCHW in maps:
            self.detector.rpn.head(x_NCHW)
        box_head = self.detector.box_head
        cells, predictor = box_head.head.roi_size, box_head.predictor
        maps_MCHW = box_head.head.maps(maps[0].new_zeros(self.regions, maps[0].shape[1], cells, cells))
        vectors_MV = box_head.head.vectors(maps_MCHW)
        vectors_MV = torch.cat([vectors_MV, vectors_MV], dim=1) if box_head.context else vectors_MV
        predictor.scores(vectors_MV), predictor.deltas(vectors_MV)  # its forward names a device, which meta is not
        mask_head = self.detector.mask_head
        if mask_head is not None:
            own = maps[0].new_zeros(self.masks, maps[0].shape[1], MASK_CELLS, MASK_CELLS)
            mask_head(maps_MCHW[: self.masks] if mask_head.pool is None else own)


def measure_rate(on: torch.device, wanted: str) -> float:
    """Measure, for a second, a small net's multiply-adds a second in training on one device (a CPU: all its cores)."""
    resolved = precision.resolve(wanted, on)
    is_cpu = on.type == "cpu"
    batch, side = (4, 128) if is_cpu else (32, 224)
    net = create_backbone("r18" if is_cpu else "r50", num_classes=10).to(on)
    net = net.to(memory_format=torch.channels_last)
    pixels = torch.zeros(batch, 3, side, side, dtype=torch.uint8, device=on)

    def step() -> None:
        with autocast_of(on, resolved)():
            loss = net(pixels).float().square().mean()
        loss.backward()
        net.zero_grad(set_to_none=True)
        if not is_cpu:
            torch.cuda.synchronize(on)

    return BACKWARD_AND_FORWARD * batch * image_flops(net, side, side) / _median_s(step)


def seconds_of(recipe: CompareRecipe, matrix: Matrix) -> tuple[dict[str, float], float | None]:
    """Return the seconds of each training by name, and the rate that was measured where no pace of its kind was known.

    A kind's measured pace holds for its evaluations as well.
    """
    everything = matrix.trainings()
    kinds: dict[str, Training] = {}
    for training in everything:
        kinds.setdefault(training.kind, training)
    costs = {kind: cost_of(training.recipe) for kind, training in kinds.items()}
    paces_s = {kind: measured_pace(training, everything) for kind, training in kinds.items()}
    rate = None
    if None in paces_s.values():
        here = device.resolve(recipe.device)
        # Jobs share a CPU's cores; a GPU is its job's alone.
        share = 1 / recipe.at_once if here.type == "cpu" else recipe.processes
        rate = measure_rate(here, everything[0].recipe.precision)
    first = matrix.cells[0].recipe
    images = {"train-det": len(detection_data.open_test(first))}  # type: ignore[arg-type]
    if matrix.pretrainings:
        images["train-backbone"] = len(open_classes(matrix.pretrainings[0].recipe, "val"))  # type: ignore[arg-type]
    times_s = {}
    for training in everything:
        cost, pace_s = costs[training.kind], paces_s[training.kind]
        own_rate = cost.step / pace_s if pace_s else (rate or 1.0) * share
        times_s[training.name] = cost.of(training, images[training.command_name]) / own_rate
    return times_s, rate


def _median_s(step: Callable[[], None]) -> float:
    step()
    times_s: list[float] = []
    while sum(times_s) < MEASURED_S:
        started = time.perf_counter()
        step()
        times_s.append(time.perf_counter() - started)
    return statistics.median(times_s)


def makespan_s(times_s: Mapping[str, float], needs: Mapping[str, Collection[str]], at_once: int) -> float:
    """Return the seconds until all trainings are done, `at_once` at a time and in order, each after those it needs."""
    waiting, running, now_s = list(times_s), list[tuple[float, str]](), 0.0
    unfinished = set(times_s)
    while waiting or running:
        ready = [name for name in waiting if unfinished.isdisjoint(needs[name])]
        for name in ready[: at_once - len(running)]:
            waiting.remove(name)
            heapq.heappush(running, (now_s + times_s[name], name))
        now_s, name = heapq.heappop(running)
        unfinished.remove(name)
    return now_s


def measured_pace(training: Training, like: list[Training]) -> float | None:
    """Return the seconds a step of those of its kind that have run; None where none has."""
    lines = [latest(other.output) for other in like if other.kind == training.kind]
    times_s = [line["time_s"] for line in lines if line.get("time_s")]
    return statistics.mean(times_s) if times_s else None
