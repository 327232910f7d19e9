"""From recipes to parts, without data and without memory for weights."""

import pytest
import torch

from backbones import create_backbone
from configs import build, build_detection
from configs.command_line import INSTALLED, RecipeError, load_recipe, read_yaml
from configs.schema import BackboneRecipe, DetectionRecipe
from engine.schedule import Cosine, MultiStep, Warmup

RECIPES = [path for path in sorted(INSTALLED.rglob("*.yaml")) if "backbone" in read_yaml(path)]


@pytest.mark.parametrize("path", RECIPES, ids=lambda path: f"{path.parent.name}-{path.stem}")
def test_every_recipe_builds_on_the_meta_device(path):
    is_detection = "dataset" in read_yaml(path)
    recipe = load_recipe(DetectionRecipe if is_detection else BackboneRecipe, path)
    with torch.device("meta"):
        if is_detection:
            model = build_detection.build_detector(recipe, build.build_backbone(recipe, 1000), 20)
        else:
            model, _ = build.build_classifier(recipe, 10)
        build.build_optimizer(recipe.solver, model)
    build.build_schedule(recipe.solver, build.iterations_of(recipe, 1000), figure="AP")


def test_the_recipes_words_become_the_schedule():
    solver = load_recipe(DetectionRecipe, INSTALLED / "detection" / "coco_c4_1x.yaml").solver
    assert build.build_schedule(solver, 90_000, figure="AP") == Warmup(MultiStep((60000, 80000)), 1000)
    cosine = solver.model_copy(update={"schedule": "cosine", "warmup_iterations": 0})
    assert build.build_schedule(cosine, 9, figure="AP") == Cosine(9)


def test_a_backbone_of_any_number_of_classes_goes_into_a_detector(tmp_path):
    state = create_backbone("cifar_r8", num_classes=7).state_dict()
    torch.save(state, tmp_path / "seven.pth")
    recipe = DetectionRecipe(backbone="cifar_r8", weights=str(tmp_path / "seven.pth"))
    backbone, _ = build_detection.build_pretrained(recipe)
    assert torch.equal(backbone.state_dict()["conv1.weight"], state["conv1.weight"])


def test_epochs_are_rounded_up_to_steps():
    recipe = BackboneRecipe.model_validate({"solver": {"epochs": 2, "batch_size": 64}})
    assert build.iterations_of(recipe, 100) == 4


@pytest.mark.parametrize(
    ("solver", "sentence"),
    [({}, "the length of the training is missing"), ({"schedule": "plateau", "iterations": 9}, "--eval-period")],
)
def test_a_training_that_cannot_be_run_is_said_before_it_begins(solver, sentence):
    with pytest.raises(RecipeError, match=sentence):
        build.iterations_of(BackboneRecipe.model_validate({"solver": solver}), 100)
