"""Images with one class each: the data sets and the batches of a classifier's training and test."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from typing import Any

import torch

from backbones.chain import PIXEL_MEAN
from vertebra.build.hold_out import limited
from vertebra.build.training import own_share, pipeline_of, training_share
from vertebra.data.datasets.catalog import open_classification
from vertebra.data.datasets.records import ClassificationDataset
from vertebra.data.loading.classification import classification_test_loader, classification_train_loader
from vertebra.data.loading.resident import (
    ResidentImages,
    is_small,
    read_resident,
    resident_test_loader,
    resident_train_loader,
)
from vertebra.data.transforms.classification_views import ClassificationTransform, Growth, Mixing
from vertebra.data.transforms.pixels import pixel_changes
from vertebra.engine.distributed import World
from vertebra.engine.logs import progress
from vertebra.recipes.schema import BackboneRecipe


def open_classes(recipe: BackboneRecipe, split: str) -> ClassificationDataset:
    """Open the recipe's split "train", cut to its `limit`, or "val"."""
    name = recipe.train_split if split == "train" else recipe.test_split
    return limited(open_classification(recipe.data_directory(), name), recipe.limit if split == "train" else None)


def class_train_loader(
    recipe: BackboneRecipe,
    dataset: ClassificationDataset,
    world: World,
    *,
    start: int,
    iterations: int,
    mean_rgb: Sequence[float] = PIXEL_MEAN,
) -> Any:
    """Return the batches of the steps from `start` on. mean_rgb: the colour 0..255 that the network takes for zero."""
    view = recipe.input
    mixing = Mixing(recipe.mixup, recipe.cutmix)
    share = training_share(recipe, recipe.solver, world, start=start, iterations=iterations)
    if is_resident(recipe, dataset):
        resize = view.size if view.augment == "pad" else view.resize
        images = resident_images(dataset, view.size, resize, world.device)
        return resident_train_loader(images, share, augment=view.augment, flip=view.flip, mixing=mixing)
    pipeline = pipeline_of(recipe)
    is_cropped = pipeline is not None and view.augment == "none"  # by the pipeline, if at all
    transform = ClassificationTransform(
        size=view.size,
        shorter=view.size if is_cropped else view.resize,
        augment=view.augment,
        min_scale=view.min_scale,
        flip=view.flip,
        pixel_changes=pixel_changes(
            policy=view.policy,
            policy_magnitude=view.policy_magnitude,
            colour=view.colour,
            erase=view.erase,
            erase_rgb=mean_rgb,
        ),
        pipeline=pipeline,
    )
    growth = None
    if view.start_size is not None:
        growth = Growth(view.start_size, view.size, view.grow_until, iterations)
    return classification_train_loader(
        dataset, transform, share, repeats=view.repeats, growth=growth, mixing=mixing, cache_mb=view.cache_mb
    )


def class_test_loader(
    recipe: BackboneRecipe,
    dataset: ClassificationDataset,
    world: World,
    *,
    limit: int | None = None,
    replace_bad: bool = False,
) -> Any:
    """Return batches of every image once, one centre crop.

    replace_bad: others take the place of images that cannot be used.
    """
    view = recipe.input
    size = view.test_size or view.size
    share = own_share(recipe, world, min(recipe.solver.batch_size, 64), limit)
    if is_resident(recipe, dataset):
        images = resident_images(dataset, size, view.resize, world.device)
        return resident_test_loader(images, share, replace_bad=replace_bad)
    transform = ClassificationTransform(size=size, shorter=view.resize)
    return classification_test_loader(dataset, transform, share, replace_bad=replace_bad)


def is_resident(recipe: BackboneRecipe, dataset: ClassificationDataset) -> bool:
    """Tell whether the data set lies on the device and is augmented there."""
    view = recipe.input
    if view.resident == "auto":
        return not view.beyond_device() and is_small(dataset, max(view.size, view.test_size or 0))
    return view.resident == "yes"


@functools.lru_cache(maxsize=4)  # evaluations come back to the same images
def resident_images(dataset: ClassificationDataset, size: int, resize: int, device: torch.device) -> ResidentImages:
    """Return all images of the set on the device."""
    shown = functools.partial(progress, description=f"read {dataset.split} images")
    return read_resident(dataset, size=size, resize=resize, device=device, progress=shown)
