"""Recipes that ask for the fast path, or for less memory, get it, or a sentence."""

import numpy as np
import pytest

from backbones.blocks import Block
from vertebra.build.backbone import build_classifier
from vertebra.build.classification_data import class_test_loader, class_train_loader
from vertebra.data.datasets.records import ClassificationDataset
from vertebra.data.datasets.strings import Strings
from vertebra.data.loading.loaders import Loader
from vertebra.data.loading.resident import ResidentLoader
from vertebra.engine.distributed import World
from vertebra.recipes.schema import BackboneRecipe


@pytest.fixture
def dataset(tmp_path):
    pixels_IHW3 = np.zeros((12, 32, 32, 3), np.uint8)
    names = Strings(map(str, range(12)))
    return ClassificationDataset(tmp_path, "train", ("a", "b"), names, np.arange(12) % 2, pixels_IHW3=pixels_IHW3)


def recipe(**view):
    return BackboneRecipe.model_validate(
        {
            "backbone": "cifar_r8",
            "workers": 0,
            "input": {"size": 32, "resize": 32, "augment": "pad", **view},
            "solver": {"batch_size": 4, "iterations": 3},
        }
    )


@pytest.mark.parametrize(
    ("view", "kind"),
    [
        ({}, ResidentLoader),
        ({"resident": "yes"}, ResidentLoader),
        ({"resident": "no"}, Loader),
        ({"augment": "crop"}, Loader),
        ({"policy": "trivial"}, Loader),
        ({"erase": 0.5}, Loader),
        ({"repeats": 2}, Loader),
        ({"colour": "pca"}, Loader),
        ({"start_size": 16}, Loader),
    ],
)
def test_small_images_lie_on_the_device_where_nothing_needs_a_worker(dataset, view, kind):
    train = class_train_loader(recipe(**view), dataset, World(), start=1, iterations=3)
    assert type(train) is kind and [batch.iteration for batch in train] == [1, 2]
    test = class_test_loader(recipe(**view), dataset, World(), limit=5)
    assert type(test) is kind and [len(batch) for batch in test] == [4, 1]


def test_what_cannot_be_done_on_the_device_is_said():
    with pytest.raises(ValueError, match=r"cannot do input.augment crop, input.repeats 2; leave that out"):
        recipe(resident="yes", augment="crop", repeats=2)


def test_evaluations_come_back_to_the_same_images(dataset):
    loaders = [class_test_loader(recipe(), dataset, World()) for _ in range(2)]
    assert loaders[0].images is loaders[1].images


def test_activations_are_computed_again_where_the_recipe_says_so():
    for asked in (True, False):
        model, _ = build_classifier(recipe().model_copy(update={"checkpoint_activations": asked}), 2)
        assert {block.recomputes for block in model.modules() if isinstance(block, Block)} == {asked}


def test_compiling_and_computing_again_do_not_go_together():
    with pytest.raises(ValueError, match="leave one of them out"):
        BackboneRecipe(checkpoint_activations=True, compile=True)
