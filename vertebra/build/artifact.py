"""Exported files at work: a classifier's, detector's or segmenter's artifact in the place of the network, and its test.

Legend of shape suffixes: N images, C classes.
"""

from __future__ import annotations

import json
import statistics
from collections.abc import Mapping
from pathlib import Path
from typing import Any, TypeVar

import torch
from torch import Tensor, nn

from detectors.structures import Detections, ImageBatch
from vertebra.build import segmenter, segmenter_run
from vertebra.build.cost import describe_device
from vertebra.build.detector_run import evaluate_tested
from vertebra.build.export import as_detections, facts_file, view_of
from vertebra.build.export_formats import FORMATS, format_of
from vertebra.build.training import own_share
from vertebra.build.views import LoadedNet
from vertebra.data.loading.detection import detection_test_loader
from vertebra.engine.distributed import World
from vertebra.engine.rundir import RunDirectory
from vertebra.ground.errors import RecipeError, UserError
from vertebra.recipes.command_line import validated
from vertebra.recipes.schema_detection import DetectionRecipe
from vertebra.recipes.schema_segmentation import SegmentationRecipe

_Recipe = TypeVar("_Recipe", DetectionRecipe, SegmentationRecipe)


class Artifact(nn.Module):
    """An exported file in the place of its network, on the CPU: `detect` of a detector, the call of another.

    facts: the JSON beside it. Where its batch is fixed it gets as many images at a time, the last one again to fill it.
    """

    def __init__(self, path: Path, facts: dict[str, Any]) -> None:
        super().__init__()
        name = format_of(path)
        assert name is not None
        FORMATS[name].require(f"{path}", FORMATS[name].opens_with)
        self.path, self.facts = path, facts
        self.name, self.num_classes = facts["backbone"], len(facts["class_names"])
        self._shape = tuple(facts["inputs"]["images"]["shape"][1:])
        self._call = FORMATS[name].open(path, torch.get_num_threads())

    def forward(self, images: Tensor | ImageBatch) -> Tensor:
        """Raw RGB pixels, uint8, to logits_NC; a segmenter's batch to logits_NCHW."""
        if isinstance(images, Tensor):
            return self.outputs(images)[0]
        return self.outputs(images.pixels_N3HW, images.sizes_hw_N2)[0]

    def detect(self, images: ImageBatch) -> Detections:
        """Return what is in the images, best first, as the detector's `detect`."""
        return as_detections(self.outputs(images.pixels_N3HW, images.sizes_hw_N2))

    def outputs(self, *inputs: Tensor) -> tuple[Tensor, ...]:
        """The graph's outputs for any number of images. Raises UserError for pixels of another size than its own."""
        if tuple(inputs[0].shape[1:]) != self._shape:
            shapes = ["x".join(map(str, shape)) for shape in (self._shape, inputs[0].shape[1:])]
            raise UserError(self.path, f"it takes images of {shapes[0]}, not {shapes[1]}", "export it with that --size")
        images, batch = len(inputs[0]), self.facts["batch"] or len(inputs[0])
        parts = []
        for first in range(0, images, batch):
            index = torch.arange(first, first + batch).clamp(max=images - 1)
            parts.append(self._call(*(one.cpu()[index] for one in inputs)))
        return tuple(torch.cat(outputs)[:images].to(inputs[0].device) for outputs in zip(*parts))


def open_artifact(path: Path, kind: str) -> Artifact:
    """Read an exported file and its JSON. kind: what it must hold. Raises UserError where that is not so."""
    beside = facts_file(path)
    if not beside.is_file():
        raise UserError(beside, "missing: it says how pictures go into the exported file", "export it again")
    try:
        facts = json.loads(beside.read_text(encoding="utf-8"))
        found = facts["kind"]
    except (ValueError, KeyError) as error:
        raise UserError(beside, f"is not the JSON of an exported file ({error})", "export again") from None
    if found != kind:
        tools = {"classifier": "eval_backbone.py", "detector": "eval_det.py", "segmenter": "eval_seg.py"}
        tool = tools.get(found, "another tool")
        raise UserError(path, f"holds a {found}, not a {kind}", f"{tool} tests it")
    return Artifact(path, facts)


def exported_net(path: Path, *, size: int | None, resize: int | None, precision: str) -> LoadedNet:
    """As `views.load_net`. Raises RecipeError for another size or precision than its own."""
    artifact = open_artifact(path, "classifier")
    own = artifact.facts["view"]["size"]
    if size not in (None, own):
        raise RecipeError(f"--size {size}", f"{path} takes images of {own} px", "export it with that --size")
    if precision not in ("auto", "fp32"):
        raise RecipeError(f"--precision {precision}", f"{path} is an exported file, which computes in fp32")
    resize = artifact.facts["view"]["resize"] if resize is None else resize
    return LoadedNet(path, artifact, own, resize, "fp32", tuple(artifact.facts["class_names"]))


def artifact_recipe(artifact: Artifact, kind: type[_Recipe]) -> _Recipe:
    """Return the recipe of an exported detector or segmenter, which computes in float32."""
    recipe = validated(kind, artifact.facts["recipe"], str(facts_file(artifact.path)))
    return recipe.model_copy(update={"precision": "fp32"})


def evaluate_artifact(
    recipe: DetectionRecipe | SegmentationRecipe,
    artifact: Artifact,
    test_set: Any,
    world: World,
    run: RunDirectory,
    origin: Mapping[str, Any] | None = None,
) -> dict[str, float]:
    """As `evaluate_detector` and `evaluate_segmenter`, on the artifact's own canvas; its cost is its time alone."""

    def cost_of(times_s: list[float]) -> dict[str, Any]:
        median_s = statistics.median(times_s)
        times = {"time_per_image_s": median_s, "images_per_s": 1 / median_s}
        return {**times, **describe_device(world.device), "precision": "fp32"}

    if isinstance(recipe, SegmentationRecipe):
        height, width = artifact.facts["view"]["canvas_hw"]
        loader = segmenter.test_loader(recipe, test_set, world, (height, width))
        return segmenter_run.evaluate_tested(recipe, artifact, loader, test_set, world, run, cost_of=cost_of)
    share = own_share(recipe, world, artifact.facts["batch"] or recipe.test.batch_size)
    loader = detection_test_loader(test_set, view_of(artifact.facts), share)
    return evaluate_tested(recipe, artifact, loader, test_set, world, run, cost_of=cost_of, origin=origin)
