"""From localisation recipes to parts, without data."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from vertebra.build import build_localisation
from vertebra.build.backbone import build_backbone
from vertebra.build.detector import file_state, load_file_state
from vertebra.build.training import build_optimizer, build_schedule, iterations_of
from vertebra.data.loading.views import Crops, Whole
from vertebra.ground.errors import RecipeError
from vertebra.recipes.command_line import load_recipe, validated
from vertebra.recipes.installed import INSTALLED
from vertebra.recipes.schema_localisation import LocalisationRecipe

RECIPES = sorted((INSTALLED / "localisation").glob("*.yaml"))


@pytest.mark.parametrize("path", RECIPES, ids=lambda path: path.stem)
def test_every_recipe_builds_on_the_meta_device(path: Path) -> None:
    recipe = load_recipe(LocalisationRecipe, path)
    with torch.device("meta"):
        model = build_localisation.build_localizer(recipe, build_backbone(recipe, 1000), 1000)
    anchors = len(recipe.model.anchor_sizes) * len(recipe.model.anchor_ratios)
    assert model.head.cls.out_channels == 1000 * anchors and model.head.reg.out_channels == 4000 * anchors
    assert model.sampler.count == 8 and model.sampler.positive_fraction == 0.5  # He et al. 2015, appendix C
    build_optimizer(recipe.solver, model)
    build_schedule(recipe.solver, iterations_of(recipe, 1000), figure="located", images=1000)


def test_files_bear_the_uncut_networks_names_and_are_read_back() -> None:
    recipe = validated(LocalisationRecipe, {"backbone": "r18", "width": 0.25, "model": {"cut_stride": 32}}, "test")
    one, other = (build_localisation.build_localizer(recipe, build_backbone(recipe, 10), 3) for _ in range(2))
    state = file_state(one)
    assert {"backbone.layer4.1.conv2.weight", "head.cls.weight", "head.reg.bias"} <= set(state)
    load_file_state(other, state, Path("file"))
    pixels, sizes = torch.randint(0, 256, (1, 3, 96, 64), dtype=torch.uint8), torch.tensor([[96, 64]])
    assert torch.equal(one.eval().trunk(pixels, sizes), other.eval().trunk(pixels, sizes))
    assert one.trunk(pixels, sizes).shape[2:] == (3, 2)


def test_the_views_of_the_test_are_those_of_the_recipe() -> None:
    def views(**test):
        recipe = validated(LocalisationRecipe, {"test": test}, "test")
        return build_localisation.views_of(recipe), build_localisation.describe_view(recipe)

    assert views() == ((Crops(224, 256),), "centre crop of 224 px, shorter side 256 px")
    assert views(view="dense") == ((Whole(256),), "dense, shorter side 256 px")
    assert views(view="dense", scales=(224, 384)) == ((Whole(224), Whole(384)), "dense, shorter side 224 384 px")


@pytest.mark.parametrize(
    ("values", "sentence"),
    [
        ({"test": {"scales": [224]}}, "add --test.view dense"),
        ({"test": {"view": "dense", "scales": [8]}}, "shorter sides are 32 pixels or more"),
        ({"input": {"size": 300}}, "set the latter to 300 or more"),
        ({"model": {"negative_iou": 0.8}}, "would be both; lower it"),
        ({"model": {"anchor_size": [3]}}, "did you mean anchor_sizes?"),
        ({"model": {"anchor_sizes": []}}, "model.anchor_sizes: give 1 or more"),
        ({"model": {"rpn_samples": 1}}, "model.rpn_samples 1 leaves no place to a positive at model.rpn_positive 0.5"),
    ],
)
def test_recipes_with_faults_are_refused_with_the_mend(values: dict, sentence: str) -> None:
    with pytest.raises(RecipeError) as caught:
        validated(LocalisationRecipe, values, "file.yaml")
    assert sentence in str(caught.value)


def test_the_classifier_is_no_part_of_the_protocol() -> None:
    first, second = (LocalisationRecipe(classifier=Path(name)) for name in ("a", "b"))
    assert first.protocol() == second.protocol()
    assert first.protocol() != LocalisationRecipe(test_split="train").protocol()
