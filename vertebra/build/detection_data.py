"""Images with boxes: the data sets and the batches of a detector's training and test."""

from __future__ import annotations

import logging
from functools import partial
from typing import Any

import numpy as np
import torch

from vertebra.build.hold_out import test_part, training_part
from vertebra.build.training import own_share, pipeline_of, training_share
from vertebra.data.datasets.catalog import open_detection
from vertebra.data.datasets.records import DetectionDataset
from vertebra.data.loading import detection
from vertebra.data.loading.detection import TruthPolicy, at_several_sizes
from vertebra.data.loading.loaders import Loader
from vertebra.data.transforms.canvases import FixedView
from vertebra.data.transforms.detection_views import DetectionAugmentation, ViewDraw
from vertebra.engine.distributed import World
from vertebra.ground.errors import RecipeError
from vertebra.ground.formats import counted, first_few
from vertebra.recipes.schema_detection import DetectionRecipe

logger = logging.getLogger(__name__)


def open_train(recipe: DetectionRecipe) -> DetectionDataset:
    return training_part(recipe, partial(_open, recipe))


def open_test(recipe: DetectionRecipe) -> DetectionDataset:
    return test_part(recipe, partial(_open, recipe))


def _open(recipe: DetectionRecipe, source: str) -> DetectionDataset:
    masks = recipe.model.masks
    dataset = open_detection(recipe.data_directory(), source, segmentations=masks)
    if masks and len(dataset.labels_K):  # without objects there is none to mask
        some = _without_mask(dataset)
        if some is not None:
            raise RecipeError(
                f"{source}: its annotations have no segmentations{some}, which --model.masks learns from and is "
                "measured by; take a data set that has them, or leave --model.masks out"
            )
    return dataset


def _without_mask(dataset: DetectionDataset) -> str | None:
    """Say which objects have no mask: their number and one of them; empty: all; None: none but crowds."""
    if dataset.segmentations is None:
        return ""
    bare = np.flatnonzero(dataset.segmentations.empty() & ~dataset.crowd_K)
    if not len(bare):
        return None
    image = int(np.searchsorted(dataset.starts, bare[0], side="right")) - 1
    return f" for {len(bare)} of {counted(len(dataset.labels_K), 'object')}, such as one of {dataset.path(image)}"


def require_files(train_set: DetectionDataset, test_set: DetectionDataset, world: World) -> None:
    """Raise UserError where a test picture is missing or empty; warn of training pictures, which others replace."""
    if world.is_main and (sentence := _absent_files(train_set)):
        logger.warning(sentence)
    world.require(_absent_files(test_set) if world.is_main else None)


def _absent_files(dataset: DetectionDataset) -> str | None:
    names = dataset.absent()
    sentence = (
        f"{dataset.source}: pictures are missing or empty in {dataset.root}: {len(names)} of {len(dataset)} "
        f"({first_few(names, 3)}); restore them, or take them out of the annotations"
    )
    return sentence if names else None


def detection_train_loader(
    recipe: DetectionRecipe, dataset: DetectionDataset, world: World, *, start: int, iterations: int
) -> Any:
    """Return the batches of the steps from `start` on."""
    view = recipe.input
    if view.sides == "batch":
        torch.backends.cudnn.benchmark = False  # canvases of many sizes, each of which it would measure anew
    augmentation = DetectionAugmentation(
        any_side=view.sides == "range",
        crop=view.crop,
        crop_min=view.crop_min,
        crop_chance=view.crop_chance,
        jitter=view.jitter,
        photometric=view.photometric,
    )
    return detection.detection_train_loader(
        dataset,
        ViewDraw(view.shorter_side, view.longer_side, view.flip, augmentation, per_batch=view.sides == "batch"),
        TruthPolicy(view.crowd, view.difficult),
        training_share(recipe, recipe.solver, world, start=start, iterations=iterations),
        canvases=view.canvases,
        keep_empty=view.keep_empty,
        repeat_threshold=view.repeat_threshold,
        masks=recipe.model.masks,
        pipeline=pipeline_of(recipe),
    )


def detection_test_loader(recipe: DetectionRecipe, dataset: DetectionDataset, world: World) -> Any:
    """Return batches of every image once, in the data set's order; with `test.multi_scale` at its other sizes too."""
    own = recipe.input.test_shorter_side
    first = _test_loader(recipe, dataset, world, own)
    others = [_test_loader(recipe, dataset, world, side) for side in sorted({*recipe.test.multi_scale} - {own})]
    return at_several_sizes([first, *others]) if others else first


def _test_loader(recipe: DetectionRecipe, dataset: DetectionDataset, world: World, side: int) -> Loader:
    """Return batches of images with that shorter side; the longer side's bound keeps its ratio to it."""
    view = recipe.input
    longer = round(view.longer_side * side / view.test_shorter_side)
    share = own_share(recipe, world, recipe.test.batch_size)
    return detection.detection_test_loader(dataset, FixedView(side, longer), share)


def picture_view(recipe: DetectionRecipe) -> FixedView:
    """Pictures without annotations at the recipe's test size."""
    return FixedView(recipe.input.test_shorter_side, recipe.input.longer_side)
