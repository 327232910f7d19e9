"""A trained classifier or detector as one graph, from raw pixels to what it found, and the facts that go with its file.

Legend of shape suffixes: N images, H W the canvas, C classes, D detections an image (padded), M cells a side of a mask.

Beside each file FILE lies FILE.json: what goes in and comes out, how a picture becomes an input, the names of the
classes, the recipe, the provenance. Shapes are fixed, but for the number of images where the batch is dynamic.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
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
from vertebra.build.trained_detector import TrainedDetector
from vertebra.build.views import load_net
from vertebra.data.loading.targets import image_batch
from vertebra.data.loading.views import Crops
from vertebra.data.transforms.canvases import FixedView, default_canvases
from vertebra.data.transforms.geometry import resize
from vertebra.engine import provenance
from vertebra.engine.weights import read_provenance
from vertebra.ground.errors import RecipeError

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


class _ClassifierGraph(nn.Module):
    def __init__(self, backbone: nn.Module) -> None:
        super().__init__()
        self.backbone = backbone

    def forward(self, images: Tensor) -> tuple[Tensor, ...]:
        return (self.backbone(images),)


class _DetectorGraph(nn.Module):
    def __init__(self, detector: FasterRCNN) -> None:
        super().__init__()
        self.detector = detector

    def forward(self, images: Tensor, sizes: Tensor) -> tuple[Tensor, ...]:
        height, width = images.shape[-2:]
        found = self.detector.detect(ImageBatch(images, sizes, ((height, width),)))
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
    graphs = _ClassifierGraph(net.backbone), _ClassifierGraph(reference.backbone)
    return _exportable(graphs, (net.size, net.size), place, batch, inputs, outputs, facts, read_provenance(path))


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

    def place(pictures: Sequence[np.ndarray]) -> tuple[Tensor, ...]:
        images = image_batch([resize(one, *fixed.size(one.shape[:2], size_hw)) for one in pictures], size_hw)
        return images.pixels_N3HW.contiguous(), images.sizes_hw_N2

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
    inputs = {
        "images": f"{RAW}: in the upper left corner, with its shorter side at {fixed.shorter} px, or as large as the "
        f"longer side {fixed.longer} and the canvas let it be; 0 beyond it",
        "sizes": "height and width of each picture on the canvas",
    }
    outputs = {
        "boxes": "x0 y0 x1 y1 in pixels of the canvas, best first",
        "scores": "0..1",
        "labels": "label l is class_names[l - 1] and category_ids[l - 1]; 0: nothing in this place",
    }
    if recipe.model.masks:
        outputs["masks"] = "of each cell of a grid over the box, how probable it is the object's"
    graphs = _DetectorGraph(trained.restore(recipe)), _DetectorGraph(trained.restore(recipe))
    return _exportable(graphs, size_hw, place, batch, inputs, outputs, facts, trained.facts)


def _exportable(
    graphs: tuple[nn.Module, nn.Module],
    size_hw: Size,
    place: Callable[[Sequence[np.ndarray]], tuple[Tensor, ...]],
    batch: int | None,
    meant_in: dict[str, str],
    meant_out: dict[str, str],
    facts: dict[str, Any],
    origin: dict[str, Any],
) -> Exportable:
    """meant_in, meant_out: what inputs and outputs are, by name. origin: the provenance of the weights."""
    network, reference = (graph.eval().requires_grad_(False) for graph in graphs)
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
