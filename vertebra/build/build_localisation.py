"""From a localisation recipe to parts: the per-class RPN on a pre-trained backbone, its data."""

from __future__ import annotations

from typing import Any

import torch

from backbones import Backbone
from detectors.anchors import AnchorGrid
from detectors.localizer import Localizer, PerClassHead
from detectors.matching import Matcher
from vertebra.build.backbone import freeze
from vertebra.build.hold_out import limited
from vertebra.build.training import own_share, pipeline_of, training_share
from vertebra.data.datasets.localisation import LocalisationDataset, open_localisation
from vertebra.data.loading.localisation import TrainView, localisation_test_loader, localisation_train_loader
from vertebra.data.loading.views import Crops, View, Whole
from vertebra.data.transforms.pixels import pixel_changes
from vertebra.engine.distributed import World
from vertebra.evaluation.predict.localisation import LocationTruth
from vertebra.recipes.schema_localisation import LocalisationRecipe


def open_train(recipe: LocalisationRecipe) -> LocalisationDataset:
    """Return the training set, cut to the recipe's `limit`."""
    return limited(open_localisation(recipe.data_directory(), recipe.train_split), recipe.limit)


def open_test(recipe: LocalisationRecipe) -> LocalisationDataset:
    """Return the test set, cut to the recipe's `test.limit`."""
    return limited(open_localisation(recipe.data_directory(), recipe.test_split), recipe.test.limit)


def build_localizer(recipe: LocalisationRecipe, backbone: Backbone, classes: int) -> Localizer:
    """Return the per-class RPN on the cut backbone, in train mode; what lies above the cut is left out."""
    settings = recipe.model
    freeze(backbone, settings)
    trunk, _ = backbone.cut(stride=settings.cut_stride)
    anchors = AnchorGrid(scales=settings.anchor_sizes, ratios=settings.anchor_ratios, stride=trunk.stride)
    localizer = Localizer(
        trunk=trunk,
        head=PerClassHead(trunk.out_channels, classes, anchors.per_cell, settings.rpn_channels),
        anchors=anchors,
        matcher=Matcher(positive=settings.positive_iou, negative=settings.negative_iou, best_for_truth=True),
        samples=settings.rpn_samples,
        positive_fraction=settings.rpn_positive,
        beta=settings.rpn_beta,
        candidates=recipe.test.candidates,
        vote_iou=recipe.test.vote_iou,
    )
    return localizer.to(memory_format=torch.channels_last)


def location_train_loader(
    recipe: LocalisationRecipe, dataset: LocalisationDataset, world: World, *, start: int, iterations: int
) -> Any:
    """Return the batches of the steps from `start` on."""
    view = recipe.input
    share = training_share(recipe, recipe.solver, world, start=start, iterations=iterations)
    crop = TrainView(
        size=view.size,
        shorter=view.resize,
        augment=view.augment,
        min_scale=view.min_scale,
        flip=view.flip,
        min_visible=view.min_visible,
        pixel_changes=pixel_changes(colour=view.colour),
        pipeline=pipeline_of(recipe),
    )
    return localisation_train_loader(dataset, crop, share)


def views_of(recipe: LocalisationRecipe) -> tuple[View, ...]:
    """Return the views in which boxes are searched."""
    view = recipe.input
    if recipe.test.view == "centre":
        return (Crops(view.size, view.resize),)
    return tuple(Whole(side) for side in dict.fromkeys(recipe.test.scales or (view.resize,)))


def describe_view(recipe: LocalisationRecipe) -> str:
    """Return the test's views in words."""
    view, test = recipe.input, recipe.test
    if test.view == "centre":
        return f"centre crop of {view.size} px, shorter side {view.resize} px"
    return f"dense, shorter side {' '.join(str(side) for side in test.scales or (view.resize,))} px"


def location_test_loader(recipe: LocalisationRecipe, dataset: LocalisationDataset, world: World) -> Any:
    """Return batches of every image once, in the views of the test."""
    share = own_share(recipe, world, recipe.test.batch_size)
    return localisation_test_loader(dataset, views_of(recipe), share)


def truth_of(dataset: LocalisationDataset) -> LocationTruth:
    """Return the truth that guesses are compared with."""
    objects = dataset.objects
    return LocationTruth(
        labels_I=dataset.images.labels_I,
        sizes_hw_I2=objects.sizes_hw_I2.astype("int64"),
        starts=objects.starts,
        boxes_K4=dataset.boxes_K4(),
    )
