"""From recipes to parts, without data and without memory for weights."""

import pytest
import torch

from backbones import create_backbone
from vertebra.build.backbone import build_classifier, make_detector_backbone, pretrained_backbone
from vertebra.build.detector import make_detector
from vertebra.build.segmenter import make_segmenter
from vertebra.build.training import build_optimizer, build_schedule, describe_rate, iterations_of
from vertebra.build.views import load_net
from vertebra.engine.schedule import Constant, Cosine, Linear, MultiStep, Plateau, Warmup, WarmupUntilError
from vertebra.engine.weights import save_weights
from vertebra.ground.errors import RecipeError
from vertebra.recipes.command_line import load_recipe, read_yaml
from vertebra.recipes.installed import INSTALLED, installed_recipes
from vertebra.recipes.schema import BackboneRecipe, Solver
from vertebra.recipes.schema_detection import DetectionRecipe
from vertebra.recipes.schema_segmentation import SegmentationRecipe

# Those of localisation are built in test_localisation.py.
OURS = [path for path in installed_recipes() if path.parent.name != "localisation"]
RECIPES = [path for path in OURS if "backbone" in read_yaml(path)]


@pytest.mark.parametrize("path", RECIPES, ids=lambda path: f"{path.parent.name}-{path.stem}")
def test_every_recipe_builds_on_the_meta_device(path):
    with torch.device("meta"):
        if "dataset" not in read_yaml(path):
            recipe, figure = load_recipe(BackboneRecipe, path), "top1"
            model, _ = build_classifier(recipe, 10)
        elif "segmentation" in (path.parent.name, path.stem):
            recipe, figure = load_recipe(SegmentationRecipe, path), "mIoU"
            model = make_segmenter(recipe, make_detector_backbone(recipe), 20)
        else:
            recipe, figure = load_recipe(DetectionRecipe, path), "AP"
            model = make_detector(recipe, make_detector_backbone(recipe), 20)
        build_optimizer(recipe.solver, model)
    build_schedule(recipe.solver, iterations_of(recipe, 1000), figure=figure, images=1000)


def test_the_recipes_words_become_the_schedule():
    solver = load_recipe(DetectionRecipe, INSTALLED / "detection" / "coco_c4_1x.yaml").solver
    assert build_schedule(solver, 90_000, figure="AP") == Warmup(MultiStep((60000, 80000)), 1000)
    cosine = solver.model_copy(update={"schedule": "cosine", "warmup_iterations": 0})
    assert build_schedule(cosine, 9, figure="AP") == Cosine(9)


def test_the_rate_follows_the_batch_and_says_so():
    solver = Solver(batch_size=64, lr=0.1, lr_batch=256)
    optimizer = build_optimizer(solver, torch.nn.Linear(2, 2))
    assert {group["lr"] for group in optimizer.param_groups} == {0.025}
    sentence = describe_rate(solver)
    assert sentence is not None and sentence.startswith("batch 64 instead of 256: learning rate 0.1 x 64/256 = 0.025")
    for same in (Solver(batch_size=256, lr_batch=256), Solver(batch_size=64)):
        assert describe_rate(same) is None and same.rate() == same.lr


def test_a_solvers_patience_and_warmups_reach_the_schedule():
    plateau = Solver(schedule="plateau", patience=3, gamma=0.2)
    assert build_schedule(plateau, 100, figure="top1") == Plateau("top1", gamma=0.2, patience=3)
    epochs = Solver(schedule="linear", batch_size=10, warmup_epochs=2, warmup_factor=0.1)
    assert build_schedule(epochs, 900, figure="top1", images=105) == Warmup(Linear(900), 21, 0.1)
    until = Solver(schedule="constant", warmup_until_error=80, warmup_factor=0.1)
    assert build_schedule(until, 100, figure="top1") == WarmupUntilError(Constant(), 80.0, 0.1)
    with pytest.raises(ValueError, match="which no other training measures"):
        DetectionRecipe.model_validate({"solver": {"warmup_until_error": 80, "warmup_iterations": 0}})


def vgg_recipe(**values):
    return BackboneRecipe.model_validate({"backbone": "vgg16", "width": 0.125, **values})


def test_a_deep_vgg_starts_from_a_shallow_ones_outer_layers(tmp_path, caplog):
    shallow = create_backbone("vgg11", num_classes=3, width=0.125)
    save_weights(tmp_path / "a.safetensors", shallow.state_dict(), {"backbone": shallow.identity()})
    with caplog.at_level("INFO"):
        model, origin = build_classifier(vgg_recipe(shallow_weights=tmp_path / "a.safetensors"), 3)
    state, given = model.backbone.state_dict(), shallow.state_dict()
    assert torch.equal(state["features.0.weight"], given["features.0.weight"])
    assert torch.equal(state["classifier.6.weight"], given["classifier.6.weight"])
    assert "vgg16 starts from vgg11 of" in caplog.text
    assert origin is not None and origin["source"] == "first and last layers of a.safetensors"


def test_beginnings_that_cannot_be_are_sentences(tmp_path):
    path = tmp_path / "a.safetensors"
    save_weights(path, create_backbone("vgg11", num_classes=3, width=0.125).state_dict(), {})
    with pytest.raises(ValueError, match="both set the first weights: give one of them"):
        build_classifier(vgg_recipe(shallow_weights=path, weights=str(path)), 3)
    with pytest.raises(ValueError, match="r18 cannot start from a shallower net"):
        build_classifier(vgg_recipe(shallow_weights=path, backbone="r18"), 3)
    with pytest.raises(ValueError, match="does not fit this network: it has other shapes for"):
        build_classifier(vgg_recipe(shallow_weights=path, width=0.25), 3)


def test_a_backbone_of_any_number_of_classes_goes_into_a_detector(tmp_path):
    state = create_backbone("cifar_r8", num_classes=7).state_dict()
    torch.save(state, tmp_path / "seven.pth")
    recipe = DetectionRecipe(backbone="cifar_r8", weights=str(tmp_path / "seven.pth"))
    backbone, _ = pretrained_backbone(recipe)
    assert torch.equal(backbone.state_dict()["conv1.weight"], state["conv1.weight"])


def test_epochs_are_rounded_up_to_steps():
    recipe = BackboneRecipe.model_validate({"solver": {"epochs": 2, "batch_size": 64}})
    assert iterations_of(recipe, 100) == 4


@pytest.mark.parametrize(
    ("solver", "sentence"),
    [({}, "the length of the training is missing"), ({"schedule": "plateau", "iterations": 9}, "--eval-period")],
)
def test_a_training_that_cannot_be_run_is_said_before_it_begins(solver, sentence):
    with pytest.raises(RecipeError, match=sentence):
        iterations_of(BackboneRecipe.model_validate({"solver": solver}), 100)


def test_a_network_takes_its_pixel_statistics_from_its_weights(tmp_path):
    """A file made with others than the network's own; and a detector that was trained from it is restored with them."""
    net = create_backbone("cifar_r8", num_classes=7)
    identity = {**net.identity(), "pixel_mean": [127.5, 127.5, 127.5], "pixel_std": [1.0, 1.0, 1.0]}
    save_weights(tmp_path / "a.safetensors", net.state_dict(), {"backbone": identity})
    recipe = DetectionRecipe(backbone="cifar_r8", weights=str(tmp_path / "a.safetensors"))
    backbone, _ = pretrained_backbone(recipe)
    classifier, _ = build_classifier(BackboneRecipe(backbone="cifar_r8", weights=recipe.weights), 3)
    tested = load_net(tmp_path / "a.safetensors", torch.device("cpu"), size=32, resize=32, precision="fp32").backbone
    pixels = torch.randint(0, 256, (1, 3, 4, 4), dtype=torch.uint8)
    for one in (backbone, classifier.backbone, tested):
        assert torch.equal(one.pixel_norm(pixels), pixels - 127.5)
        assert one.identity()["pixel_std"] == [1.0, 1.0, 1.0]
