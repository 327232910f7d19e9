"""A trained classifier, detector or segmenter as one graph, from raw pixels to what it found, and its file's facts.

Legend of shape suffixes: N images, H W the canvas, C classes, D detections an image (padded), M cells a side of a mask.

Beside each file FILE lies FILE.json: what goes in and comes out, how a picture becomes an input, the names of the
classes, the recipe, the provenance. Shapes are fixed, but for the number of images where the batch is dynamic.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from backbones.norms import fold_for_good
from detectors.faster_rcnn import FasterRCNN
from detectors.pooling import RoIAlign
from detectors.pyramid_pooling import PyramidRoIAlign
from detectors.structures import Detections, ImageBatch, Size
from vertebra.build.segmenter import picture_view, trained_segmenter
from vertebra.build.trained_detector import TrainedDetector
from vertebra.build.views import load_net
from vertebra.data.loading.targets import image_batch
from vertebra.data.loading.views import Crops
from vertebra.data.transforms.canvases import FixedView, TightView, default_canvases
from vertebra.data.transforms.geometry import resize
from vertebra.engine import provenance
from vertebra.engine.weights import read_provenance
from vertebra.ground.errors import RecipeError
from vertebra.recipes.command_line import validated
from vertebra.recipes.schema_segmentation import SegmentationRecipe

DYNAMIC_EXAMPLE = 2  # images: torch takes a batch of one for a constant
RAW = "a picture's RGB pixels 0..255 as they are, resized linearly without aliasing"


@dataclass(frozen=True)
class Exportable:
    """A network with fixed shapes in evaluation mode: tensors by the names of the inputs to a tuple of the outputs.

    reference: the same as it is used here, with all that makes it fast. inputs: an example. place: pictures, uint8 RGB
    HW3, to inputs. batch: images; None: any number. facts: the JSON beside its file, of which `inputs` and `outputs`
    have the names in order.
    """

    network: nn.Module
    reference: nn.Module
    inputs: tuple[Tensor, ...]
    place: Callable[[Sequence[np.ndarray]], tuple[Tensor, ...]]
    batch: int | None
    facts: dict[str, Any]

    @torch.no_grad()
    def program(self, *, by_kernel: bool = False) -> torch.export.ExportedProgram:
        """Return it as torch.export has it. by_kernel: regions pooled by torchvision's kernel, as others have it."""
        for part in self.network.modules():
            if isinstance(part, RoIAlign):  # whose own way depends on how many images there are
                part.by_kernel = by_kernel or self.batch is None
            elif isinstance(part, PyramidRoIAlign):
                part.by_kernel = by_kernel
        images = {0: torch.export.Dim("batch", min=1)}
        shapes = None if self.batch is not None else (images,) * len(self.inputs)
        return torch.export.export(self.network, self.inputs, dynamic_shapes=shapes, strict=False)


class _Graph(nn.Module):
    """A network from tensors to a tuple of tensors. sizes: of the pictures, where they lie on canvases."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, images: Tensor, sizes: Tensor | None = None) -> tuple[Tensor, ...]:
        if sizes is None:
            return (self.network(images),)
        height, width = images.shape[-2:]
        batch = ImageBatch(images, sizes, ((height, width),))
        if not isinstance(self.network, FasterRCNN):
            return (self.network(batch),)
        found = self.network.detect(batch)
        masks = () if found.masks_NDMM is None else (found.masks_NDMM,)
        return found.boxes_ND4, found.scores_ND, found.labels_ND, *masks


def as_detections(outputs: Sequence[Tensor]) -> Detections:
    """Return what an exported detector gives as detections."""
    boxes_ND4, scores_ND, labels_ND, *masks = outputs
    return Detections(boxes_ND4, scores_ND, labels_ND, labels_ND > 0, *masks)


def export_classifier(path: Path, *, size_hw: Size | None = None, batch: int | None = 1) -> Exportable:
    """Return a classifier of train_backbone.py. size_hw: of its crop, a square; None: as in training."""
    if size_hw is not None and size_hw[0] != size_hw[1]:
        raise RecipeError(f"--size {size_hw[0]} {size_hw[1]}", "a classifier takes square crops", "give one side twice")
    options: dict[str, Any] = {"size": size_hw and size_hw[0], "resize": None, "precision": "fp32"}
    net, reference = (load_net(path, torch.device("cpu"), **options) for _ in range(2))
    crop = Crops(net.size, net.resize)

    def place(pictures: Sequence[np.ndarray]) -> tuple[Tensor, ...]:
        return (torch.from_numpy(np.concatenate([crop(one) for one in pictures])).permute(0, 3, 1, 2).contiguous(),)

    facts = {
        "kind": "classifier",
        "backbone": net.backbone.name,
        "class_names": list(net.class_names or map(str, range(net.backbone.num_classes))),
        "view": {"resize": net.resize, "size": net.size},
    }
    inputs = {"images": f"{RAW}: its centre, of the picture with its shorter side at {net.resize} px"}
    outputs = {"logits": "their softmax is the probability of each of class_names"}
    return _exportable(
        (net.backbone, reference.backbone),
        (net.size, net.size),
        place,
        batch,
        inputs,
        outputs,
        facts,
        read_provenance(path),
    )


def export_detector(
    trained: TrainedDetector, *, size_hw: Size | None = None, batch: int | None = 1, score: float | None = None
) -> Exportable:
    """Return a detector on one canvas. size_hw: of that; None: a square with room for every picture at the recipe's
    test size. score: the lowest, instead of the recipe's."""
    recipe = trained.recipe
    if score is not None:
        recipe = recipe.model_copy(update={"test": recipe.test.model_copy(update={"score": score})})
    test, view = recipe.test, recipe.input
    if recipe.engine != "vertebra":
        raise RecipeError(f"{trained.path}: a detector of engine {recipe.engine} has no such form; --format detectron2")
    if test.refine or test.multi_scale or test.flip:
        raise RecipeError(
            f"{trained.path}: its recipe tests with improvements (test.refine, test.multi_scale, test.flip), which are "
            "no part of an exported detector; export weights of a plain test"
        )
    if size_hw is None:
        side = max(map(max, default_canvases(view.test_shorter_side, view.longer_side)))
        size_hw = side, side
    fixed = FixedView(view.test_shorter_side, view.longer_side, size_hw)

    facts = {
        "kind": "detector",
        "backbone": recipe.backbone,
        "detector": recipe.model.title,
        "class_names": list(trained.class_names),
        "category_ids": list(trained.names),
        "view": {"shorter_side": fixed.shorter, "longer_side": fixed.longer, "canvas_hw": list(size_hw)},
        "test": {"score": test.score, "nms": test.nms, "detections": test.detections},
        "recipe": recipe.model_dump(mode="json"),
    }
    shorter = f"with its shorter side at {fixed.shorter} px, or as large as the longer side {fixed.longer}"
    place = partial(_on_canvas, size_hw, lambda picture_hw: fixed.size(picture_hw, size_hw))
    outputs = {
        "boxes": "x0 y0 x1 y1 in pixels of the canvas, best first",
        "scores": "0..1",
        "labels": "label l is class_names[l - 1] and category_ids[l - 1]; 0: nothing in this place",
    }
    if recipe.model.masks:
        outputs["masks"] = "of each cell of a grid over the box, how probable it is the object's"
    networks = trained.restore(recipe), trained.restore(recipe)
    inputs = _canvas_inputs(f"{shorter} and the canvas let it be")
    return _exportable(networks, size_hw, place, batch, inputs, outputs, facts, trained.facts)


def export_segmenter(
    state: Mapping[str, Tensor],
    facts: dict[str, Any],
    path: Path,
    *,
    size_hw: Size | None = None,
    batch: int | None = 1,
) -> Exportable:
    """Return a segmenter on one canvas: the tensors of a file, its provenance, its path for messages.

    size_hw: of the canvas; None: a square of the crop it was trained on, or of 3/2 of the shorter side at test.
    """
    recipe = validated(SegmentationRecipe, facts["recipe"], str(path))
    if not recipe.test.is_plain:
        raise RecipeError(
            f"{path}: its recipe tests in several ways (test.scales, test.flip, test.window), which are no part of an "
            "exported segmenter; export weights of a plain test"
        )
    side = recipe.input.test_side
    if size_hw is None:
        longest = max(*recipe.input.crop, round(1.5 * (side or 0)))
        size_hw = TightView().canvas([(longest, longest)])
    own_size = "as large as it is" if side is None else f"with its shorter side at {side} px"
    described = {
        "kind": "segmenter",
        "backbone": recipe.backbone,
        "segmenter": recipe.model.head,
        "class_names": list(facts["class_names"]),
        "view": {"shorter_side": side, "canvas_hw": list(size_hw)},
        "recipe": recipe.model_dump(mode="json"),
    }
    networks = [trained_segmenter(recipe, state, facts, path) for _ in range(2)]
    place = partial(_on_canvas, size_hw, picture_view(recipe, size_hw).size)
    inputs = _canvas_inputs(f"{own_size}, or smaller where the canvas has no room")
    outputs = {"logits": "of each pixel of the canvas; their softmax is the probability of each of class_names"}
    return _exportable(networks, size_hw, place, batch, inputs, outputs, described, facts)


def _on_canvas(canvas_hw: Size, size_of: Callable[[Size], Size], pictures: Sequence[np.ndarray]) -> tuple[Tensor, ...]:
    images = image_batch([resize(one, *size_of(one.shape[:2])) for one in pictures], canvas_hw)
    return images.pixels_N3HW.contiguous(), images.sizes_hw_N2


def _canvas_inputs(size: str) -> dict[str, str]:
    images = f"{RAW}: in the upper left corner, {size}; 0 beyond it"
    return {"images": images, "sizes": "height and width of each picture on the canvas"}


def _exportable(
    networks: Iterable[nn.Module],
    size_hw: Size,
    place: Callable[[Sequence[np.ndarray]], tuple[Tensor, ...]],
    batch: int | None,
    meant_in: dict[str, str],
    meant_out: dict[str, str],
    facts: dict[str, Any],
    origin: dict[str, Any],
) -> Exportable:
    """networks: two of the same. meant_in, meant_out: what inputs and outputs are, by name. origin: of the weights."""
    network, reference = (_Graph(one).eval().requires_grad_(False) for one in networks)
    inputs = place([np.zeros((*size_hw, 3), np.uint8)] * (batch or DYNAMIC_EXAMPLE))
    fold_for_good(network, *inputs)
    outputs = network(*inputs)

    def described(meant: dict[str, str], tensors: tuple[Tensor, ...]) -> dict[str, Any]:
        return {
            name: {"dtype": str(one.dtype).removeprefix("torch."), "shape": [batch, *one.shape[1:]], "meaning": words}
            for (name, words), one in zip(meant.items(), tensors, strict=True)
        }

    facts |= {
        "batch": batch,
        "inputs": described(meant_in, inputs),
        "outputs": described(meant_out, outputs),
        "protocol_hash": origin.get("protocol_hash"),
        "provenance": {name: value for name, value in origin.items() if name != "recipe"},
        "exported": provenance.describe(),
    }
    return Exportable(network, reference, inputs, place, batch, facts)


def view_of(facts: dict[str, Any]) -> FixedView:
    """Return how a picture gets onto an exported detector's canvas."""
    view = facts["view"]
    height, width = view["canvas_hw"]
    return FixedView(view["shorter_side"], view["longer_side"], (height, width))


def facts_file(path: Path) -> Path:
    """Return the JSON beside an artifact."""
    return path.with_name(path.name + ".json")
