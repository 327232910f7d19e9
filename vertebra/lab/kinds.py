"""The kinds of training that a plan may have: the data and the network of each, what it costs, and its figure."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Sized
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from backbones.cost import count_flops, image_flops
from detectors.faster_rcnn import FasterRCNN
from segmenters.segmenter import Segmenter
from vertebra.build import detection_data, segmenter
from vertebra.build.backbone import build_backbone, make_detector_backbone
from vertebra.build.classification_data import open_classes
from vertebra.build.detector import make_detector
from vertebra.recipes.schema import BackboneRecipe, RunRecipe
from vertebra.recipes.schema_detection import FPN_LEVELS, DetectionRecipe, Detector
from vertebra.recipes.schema_segmentation import SegmentationRecipe

CLASSES = 20
MASK_CELLS = 14  # a side of what a mask is read from
ASPECT = 4 / 3  # of a common photograph
PYRAMID_BEFORE_NMS = (2000, 1000)  # of each level (Lin et al. 2017, and everyone since)


@dataclass(frozen=True)
class Kind:
    """Functions of a recipe.

    open_train, open_test: the images. flops: multiply-adds of one image in training (forward alone) and at test.
    """

    open_train: Callable[[Any], Sized]
    open_test: Callable[[Any], Sized]
    flops: Callable[[Any], tuple[float, float]]


@dataclass(frozen=True)
class CellKind(Kind):
    """Of what cells of a matrix train.

    make: the network. figure: by which a sweep chooses, its two keys in evaluation.json and its name. exchange: of a
    head's name too, the flags that give the recipe that head, none where it has it.
    """

    make: Callable[[Any], nn.Module]
    figure: Callable[[Any], tuple[str, str, str]]
    exchange: Callable[[Any, str], tuple[str, ...]]


def kind_of(recipe: RunRecipe) -> Kind:
    """Return the kind of training that a recipe is of."""
    return CLASSIFIERS if isinstance(recipe, BackboneRecipe) else cell_kind_of(recipe)


def cell_kind_of(recipe: RunRecipe) -> CellKind:
    return CELLS[type(recipe)]


def exchange_body(recipe: DetectionRecipe, body: str) -> tuple[str, ...]:
    """Flags that give a detector another body, and what has to change with it; none where it has that body already."""
    model = recipe.model
    if model.body == body:
        return ()
    changes: dict[str, Any] = {"body": [body]}
    if body == "fpn":
        before = [min(pair) for pair in zip(model.proposals_before_nms, PYRAMID_BEFORE_NMS)]
        changes |= {"anchor-sizes": pyramid_anchors(model), "proposals-before-nms": before, "pooling": ["align"]}
    elif model.body == "fpn":  # its numbers are a level's
        changes["proposals-before-nms"] = [count * FPN_LEVELS for count in model.proposals_before_nms]
    return tuple(part for name, values in changes.items() for part in (f"--model.{name}", *map(str, values)))


def pyramid_anchors(model: Detector) -> list[int]:
    """One size for each level of a pyramid: the greatest sizes of a single map, and halves of the least before them."""
    sizes = sorted(model.anchor_sizes)[-FPN_LEVELS:]
    while len(sizes) < FPN_LEVELS:
        sizes.insert(0, max(1, sizes[0] // 2))
    return sizes


def _classifier_flops(recipe: BackboneRecipe) -> tuple[float, float]:
    with torch.device("meta"):
        net = build_backbone(recipe, num_classes=1000)
        sides = recipe.input.size, recipe.input.test_size or recipe.input.size
        one, test = (image_flops(net, side, side) for side in sides)
    return one, test


def _detector_flops(recipe: DetectionRecipe) -> tuple[float, float]:
    recipe = recipe.model_copy(update={"engine": "vertebra"})  # the layers are the same
    rois, proposals = recipe.model.rois, recipe.model.proposals[1]
    side, test_side = statistics.mean(recipe.input.shorter_side), recipe.input.test_shorter_side
    with torch.device("meta"):
        detector = make_detector(recipe, make_detector_backbone(recipe), CLASSES)
        training = _DetectorPass(detector, rois, masks=int(rois * recipe.model.roi_positive))
        test = _DetectorPass(detector, proposals, masks=recipe.test.detections)
        return (
            count_flops(training, _photograph(side, recipe.input.longer_side)),
            count_flops(test, _photograph(test_side, recipe.input.longer_side)),
        )


def _segmenter_flops(recipe: SegmentationRecipe) -> tuple[float, float]:
    """Of a crop in training; at test of all sizes of an image, where it keeps its own size of one like the crop."""
    test, side = recipe.test, recipe.input.test_side
    with torch.device("meta"):
        model = segmenter.make_segmenter(recipe, make_detector_backbone(recipe), CLASSES).eval()
        crop = torch.zeros(1, 3, *recipe.input.crop, dtype=torch.uint8)
        seen = crop if side is None else _photograph(side, segmenter.LONGEST * side)
        looks = (1 + test.flip) * sum(scale**2 for scale in test.scales)
        return (
            count_flops(_SegmenterPass(model, with_auxiliary=True), crop),
            looks * count_flops(_SegmenterPass(model, with_auxiliary=False), seen),
        )


def _photograph(shorter: float, longest: int) -> Tensor:
    return torch.zeros(1, 3, round(shorter), round(min(longest, shorter * ASPECT)), dtype=torch.uint8)


class _DetectorPass(nn.Module):
    """A detector's layers with regions that are there by number alone, so that it runs on the meta device."""

    def __init__(self, detector: FasterRCNN, regions: int, masks: int):
        super().__init__()
        self.detector, self.regions, self.masks = detector, regions, masks

    def forward(self, pixels_N3HW: Tensor) -> None:
        sizes_hw_N2 = pixels_N3HW.new_zeros(len(pixels_N3HW), 2, dtype=torch.int64)
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


class _SegmenterPass(nn.Module):
    """A segmenter's layers, without resizing scores to the image, which is no layer's work."""

    def __init__(self, segmenter: Segmenter, *, with_auxiliary: bool):
        super().__init__()
        self.segmenter, self.with_auxiliary = segmenter, with_auxiliary

    def forward(self, pixels_N3HW: Tensor) -> None:
        net = self.segmenter
        maps = net.trunk(pixels_N3HW, pixels_N3HW.new_zeros(len(pixels_N3HW), 2, dtype=torch.int64))
        net.head([maps[place] for place in net.head_maps])
        if self.with_auxiliary and net.auxiliary is not None:
            net.auxiliary([maps[place] for place in net.auxiliary_maps])


CLASSIFIERS = Kind(
    open_train=lambda recipe: open_classes(recipe, "train"),
    open_test=lambda recipe: open_classes(recipe, "val"),
    flops=_classifier_flops,
)
CELLS: dict[type[RunRecipe], CellKind] = {
    DetectionRecipe: CellKind(
        open_train=detection_data.open_train,
        open_test=detection_data.open_test,
        make=lambda recipe: make_detector(recipe, make_detector_backbone(recipe), CLASSES),
        flops=_detector_flops,
        figure=lambda recipe: ("voc", "mAP", "VOC mAP") if recipe.dataset.startswith("voc") else ("coco", "AP", "AP"),
        exchange=exchange_body,
    ),
    SegmentationRecipe: CellKind(
        open_train=segmenter.open_train,
        open_test=segmenter.open_test,
        make=lambda recipe: segmenter.make_segmenter(recipe, make_detector_backbone(recipe), CLASSES),
        flops=_segmenter_flops,
        figure=lambda _: ("segmentation", "mIoU", "mIoU"),
        exchange=lambda recipe, head: () if recipe.model.head == head else ("--model.head", head),
    ),
}
