"""From a segmentation recipe to parts: the network, its data, its test."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import nn

from backbones import Backbone
from backbones.chain import FeatureSpec
from segmenters.heads import HEADS, FullyConvolutional, SemanticPyramid
from segmenters.segmenter import Segmenter
from segmenters.testtime import AveragedViews
from vertebra.build.backbone import freeze, make_detector_backbone
from vertebra.build.detector import load_file_state, make_pyramid, over_gpus
from vertebra.build.hold_out import test_part, training_part
from vertebra.build.training import own_share, pipeline_of, training_share
from vertebra.build.weights import adopt_identity
from vertebra.data.datasets.semantic import SemanticDataset, open_semantic
from vertebra.data.loading.segmentation import segmentation_test_loader, segmentation_train_loader
from vertebra.data.transforms.canvases import FixedView, Size, TightView
from vertebra.data.transforms.segmentation_views import SegmentationDraw
from vertebra.engine.distributed import World
from vertebra.recipes.schema_segmentation import SegmentationRecipe

LEVELS = 4  # of a pyramid, strides 4 to 32
LONGEST = 8  # an image is at most so many times as long as it is wide


def open_train(recipe: SegmentationRecipe) -> SemanticDataset:
    return training_part(recipe, partial(open_semantic, recipe.data_directory()))


def open_test(recipe: SegmentationRecipe) -> SemanticDataset:
    return test_part(recipe, partial(open_semantic, recipe.data_directory()))


def make_segmenter(recipe: SegmentationRecipe, backbone: Backbone, classes: int) -> Segmenter:
    """Return the segmenter on the backbone, in train mode. Raises BackboneError where it lacks a map."""
    settings = recipe.model
    freeze(backbone, settings)
    if settings.head == "pyramid":
        pyramid = make_pyramid(backbone)
        levels = [FeatureSpec(pyramid.channels, stride) for stride in pyramid.strides[:LEVELS]]
        segmenter = Segmenter(pyramid, SemanticPyramid(levels, classes), range(LEVELS))
    else:
        places, make_head = HEADS[settings.head]
        known = list(backbone.feature_specs)
        keys = [known[place] for place in places]
        if settings.auxiliary and len(known) > 1:
            keys.append(known[-2])
        maps = backbone.maps(keys)
        auxiliary = FullyConvolutional(maps.specs[-1:], classes) if len(keys) > len(places) else None
        segmenter = Segmenter(
            maps,
            make_head(maps.specs[: len(places)], classes),
            range(len(places)),
            auxiliary=auxiliary,
            auxiliary_maps=[len(keys) - 1],
            auxiliary_weight=settings.auxiliary,
        )
    if settings.norms == "sync" and over_gpus("model.norms"):
        segmenter = nn.SyncBatchNorm.convert_sync_batchnorm(segmenter)
    return segmenter.to(memory_format=torch.channels_last)


def trained_segmenter(
    recipe: SegmentationRecipe, state: Mapping[str, torch.Tensor], facts: dict[str, Any], path: Path
) -> Segmenter:
    """Return a segmenter with the weights of a file: its tensors, its provenance, its path for messages."""
    backbone = make_detector_backbone(recipe)
    adopt_identity(facts, backbone, path)
    model = make_segmenter(recipe, backbone, len(facts["class_names"]))
    load_file_state(model, state, path)
    return model


def make_tested(recipe: SegmentationRecipe, segmenter: Segmenter) -> nn.Module:
    """Return the segmenter as `recipe.test` looks at images."""
    test = recipe.test
    if test.is_plain:
        return segmenter
    return AveragedViews(segmenter, scales=test.scales, flip=test.flip, window_hw=test.window)


def train_loader(
    recipe: SegmentationRecipe, dataset: SemanticDataset, world: World, *, start: int, iterations: int
) -> Any:
    """Return the batches of the steps from `start` on."""
    view = recipe.input
    draw = SegmentationDraw(view.crop, view.scale, view.flip, view.photometric, view.base_side, view.max_share)
    share = training_share(recipe, recipe.solver, world, start=start, iterations=iterations)
    return segmentation_train_loader(dataset, draw, share, pipeline_of(recipe))


def test_loader(
    recipe: SegmentationRecipe, dataset: SemanticDataset, world: World, canvas_hw: Size | None = None
) -> Any:
    """Return batches of every image once, in the data set's order. canvas_hw: the only canvas; None: one a batch."""
    share = own_share(recipe, world, recipe.test.batch_size)
    return segmentation_test_loader(dataset, picture_view(recipe).fixed, share, canvas_hw=canvas_hw)


def picture_view(recipe: SegmentationRecipe, canvas_hw: Size | None = None) -> TightView:
    """Return how images are seen at test, and pictures without annotations as well. canvas_hw: the only canvas."""
    side = recipe.input.test_side
    return TightView(None if side is None else FixedView(side, LONGEST * side), canvas_hw=canvas_hw)
