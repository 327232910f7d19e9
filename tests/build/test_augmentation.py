"""A recipe's augmentation reaches the batches, and the classifier takes them."""

from pathlib import Path

import numpy as np
import pytest
import torch
from pydantic import ValidationError

from backbones.chain import PIXEL_MEAN
from tests.data.writers import write_folders
from vertebra.build.backbone import build_classifier
from vertebra.build.classification_data import class_train_loader
from vertebra.data.datasets.catalog import open_classification
from vertebra.data.transforms.pixels import RAND, pca_colour
from vertebra.engine.distributed import World
from vertebra.recipes.schema import BackboneRecipe, ClassificationInput

INPUT = {"size": 48, "resize": 48, "augment": "none", "flip": 0.0, "resident": "no"}


@pytest.fixture
def folders(tmp_path: Path):
    return open_classification(write_folders(tmp_path / "folders", {"ant": 5, "bee": 4}), "train")


def batches(folders, *, view: dict, start: int = 0, mean_rgb=(10.0, 20.0, 30.0), **values) -> list:
    recipe = BackboneRecipe.model_validate(
        {
            "backbone": "cifar_r8",
            "workers": 0,
            "solver": {"batch_size": 8, "accumulate": 2},
            "input": {**INPUT, **view},
            **values,
        }
    )
    loader = class_train_loader(recipe, folders, World(), start=start, iterations=5, mean_rgb=mean_rgb)
    return list(loader)


def test_accumulated_parts_of_a_step_grow_with_the_steps(folders):
    sizes = [batch.inputs[0].shape[2] for batch in batches(folders, view={"start_size": 16, "grow_until": 0.8})]
    assert sizes == [16, 16, 24, 24, 32, 32, 40, 40, 48, 48]
    resumed = batches(folders, view={"start_size": 16, "grow_until": 0.8}, start=2)
    assert [batch.inputs[0].shape[2] for batch in resumed] == sizes[4:]


def test_erased_pixels_have_the_networks_mean_colour(folders):
    plain, erased = (batches(folders, view={"erase": share})[0].inputs[0] for share in (0.0, 1.0))
    changed_NHW = (plain != erased).any(1)
    assert changed_NHW.any(dim=(1, 2)).sum() >= 3
    colours = erased.permute(0, 2, 3, 1)[changed_NHW]
    assert torch.equal(colours.unique(dim=0), torch.tensor([[10, 20, 30]], dtype=torch.uint8))


@pytest.mark.parametrize(
    ("view", "expected"),
    [
        ({}, ()),
        ({"colour": "pca"}, ("pca_colour",)),
        ({"policy": "trivial", "colour": "pca", "erase": 0.1}, ("trivial_augment", "pca_colour", "random_erasing")),
        ({"policy": "rand", "policy_magnitude": 4, "erase": 0.3}, ("rand_augment", "random_erasing")),
    ],
)
def test_each_word_of_the_recipe_is_a_step_of_the_view(folders, view: dict, expected: tuple[str, ...]):
    recipe = BackboneRecipe.model_validate({"input": {**INPUT, **view}})
    loader = class_train_loader(recipe, folders, World(), start=0, iterations=1)
    steps = loader.reader.transform.pixel_changes
    assert tuple(getattr(step, "func", step).__name__ for step in steps) == expected
    given = {step.func.__name__: step.keywords for step in steps if hasattr(step, "func")}
    if "rand_augment" in expected:
        assert given["rand_augment"] == {"level": 4} and len(RAND) == 14
    if "random_erasing" in expected:
        assert given["random_erasing"] == {"chance": view["erase"], "rgb": pytest.approx(PIXEL_MEAN)}
    image = np.full((48, 48, 3), 90, np.uint8)
    if expected == ("pca_colour",):
        assert steps == (pca_colour,) and len(np.unique(steps[0](image, np.random.default_rng(1))[..., 0])) == 1


def test_repeats_and_mixing_reach_the_batch_and_the_classifier_learns_from_it(folders):
    made = batches(folders, view={"repeats": 2, "policy": "trivial"}, mixup=0.2, cutmix=1.0)
    recipe = BackboneRecipe(backbone="cifar_r8", label_smoothing=0.1)
    torch.manual_seed(0)
    model, _ = build_classifier(recipe, 2)
    for first, second in zip(made[::2], made[1::2], strict=True):  # a step's batch in two parts
        assert first.image_ids == second.image_ids
    for batch in made:
        assert len(batch.inputs) == 3
        values = model.train()(*batch.inputs)
        values["loss_cls"].backward()
        assert values["loss_cls"].isfinite() and 0 <= values["top1"] <= 100
    assert all(parameter.grad is not None for parameter in model.parameters())
    assert len(batches(folders, view={})[0].inputs) == 2


def test_pictures_that_would_shrink_are_refused():
    with pytest.raises(ValidationError, match=r"input.start_size 256 is above input.size 224.*set it to 224 or less"):
        ClassificationInput(start_size=256)


def test_a_test_crop_larger_than_its_image_is_refused_before_the_training():
    with pytest.raises(ValidationError, match=r"input.test_size 288 is above input.resize 256.*set the latter to 288"):
        ClassificationInput(test_size=288)
