"""Parts of data sets: a recipe's limit, and what is held out of a training set for validation.

The latter is tested on instead of the test set, and never learnt from.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from typing import TypeVar

import numpy as np

from vertebra.data.datasets.localisation import LocalisationDataset
from vertebra.data.datasets.records import ClassificationDataset, DetectionDataset
from vertebra.data.datasets.semantic import SemanticDataset
from vertebra.data.loading.sampling import evenly
from vertebra.ground.formats import counted
from vertebra.recipes.schema_detection import DetectionRecipe
from vertebra.recipes.schema_segmentation import SegmentationRecipe

Labelled = TypeVar("Labelled", DetectionDataset, SemanticDataset)
_Recipe = DetectionRecipe | SegmentationRecipe
SomeSet = TypeVar("SomeSet", ClassificationDataset, DetectionDataset, LocalisationDataset, SemanticDataset)


def limited(dataset: SomeSet, limit: int | None) -> SomeSet:
    """Return `limit` of the images, evenly spaced; None: all."""
    return dataset if limit is None else dataset.subset(evenly(len(dataset), limit))


def training_part(recipe: _Recipe, opened: Callable[[str], Labelled]) -> Labelled:
    """Return the training set without what is held out for validation, cut to the recipe's `limit`.

    opened: a source's data set. Raises ValueError where it has no truth to learn from.
    """
    return limited(part_of_training(opened(recipe.source("train")), recipe.validation, held_out=False), recipe.limit)


def test_part(recipe: _Recipe, opened: Callable[[str], Labelled]) -> Labelled:
    """Return the test set, or what is held out of the training set for validation; cut to the recipe's `test.limit`."""
    if recipe.validation:
        dataset = part_of_training(opened(recipe.source("train")), recipe.validation, held_out=True)
    else:
        dataset = opened(recipe.source("test"))
    return limited(dataset, recipe.test.limit)


def part_of_training(dataset: Labelled, share: float, *, held_out: bool) -> Labelled:
    """Return the share of a training set that is held out, or what is left to train on; with share 0 the whole.

    Raises ValueError where it has no truth to learn from, or a part would be empty.
    """
    if not dataset.labelled:
        raise ValueError(
            f"{dataset.source}: its annotations are not here, so nothing can be learnt from it; "
            "train on another source (--train-source)"
        )
    if not share:
        return dataset
    chosen = np.flatnonzero(is_held_out(dataset.image_ids_I.tolist(), share) == held_out)
    if not len(chosen):
        raise ValueError(
            f"{dataset.source}: --validation {share:g} of its {counted(len(dataset), 'image')} leaves none "
            f"to {'test' if held_out else 'train'} on; choose another share"
        )
    return dataset.subset(chosen)


def is_held_out(image_ids: Sequence[int], share: float) -> np.ndarray:
    """Tell which images belong to the share that is set aside: by a hash of each one's id, whatever the others are."""
    digests = [hashlib.sha256(f"held out {image_id}".encode()).digest()[:8] for image_id in image_ids]
    return np.array([int.from_bytes(digest, "big") < share * 2**64 for digest in digests], dtype=bool)
