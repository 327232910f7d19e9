"""What eval_det.py makes of a run's recipe and its own words, and what of detectors that it cannot read."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from tests.cli.conftest import run
from tests.data.writers import write_picture, write_voc
from vertebra.build import detection_data, results, trained_detector
from vertebra.cli import eval_det, predict, predict_networks
from vertebra.engine.distributed import World
from vertebra.ground.errors import RecipeError
from vertebra.recipes.schema import protocol_fields
from vertebra.recipes.schema_detection import DetectionRecipe

PREDICTOR = "roi_heads.box_predictor"


@pytest.fixture
def tools() -> SimpleNamespace:
    return SimpleNamespace(eval_det=eval_det, trained_detector=trained_detector)


def held_out(**values: object) -> DetectionRecipe:
    """Of a run that was tested on four of the images that it held out of its training set."""
    return DetectionRecipe.model_validate({"validation": 0.25, "test": {"limit": 4}, **values})


def test_a_run_is_tested_again_on_what_it_held_out(tools):
    settings = tools.eval_det.Settings(run=Path("a_run"), data=Path("moved"))
    recipe = tools.eval_det.changed(held_out(), settings)
    assert (recipe.validation, recipe.test.limit) == (0.25, 4)
    assert tools.eval_det.tested(settings, recipe)["source"] == "0.25 held out of voc2007/trainval"


@pytest.mark.parametrize(
    ("words", "source"),
    [
        ({"test_source": "voc2012/val"}, "voc2012/val"),
        ({"dataset": "voc0712"}, "voc2007/test"),
        ({"dataset": "json", "test_source": "json:B.json"}, "json:B.json"),
    ],
)
def test_a_test_set_that_is_named_is_what_is_tested_on(tools, words, source):
    settings = tools.eval_det.Settings(run=Path("a_run"), **words)
    recipe = tools.eval_det.changed(held_out(), settings)
    assert (recipe.validation, recipe.test.limit) == (0.0, None)
    assert tools.eval_det.tested(settings, recipe)["source"] == source


def test_the_named_set_is_opened_and_not_the_training_images(tools, tmp_path):
    box = ("dog", 1, 2, 30, 40, 0)
    write_voc(tmp_path, {f"{n:06}": [box] for n in range(1, 21)}, split="trainval")
    write_voc(tmp_path, {f"{n:06}": [box] for n in range(101, 108)}, split="test")
    own = held_out(data=tmp_path)
    assert max(detection_data.open_test(own).image_ids_I) < 101
    named = tools.eval_det.changed(own, tools.eval_det.Settings(run=Path("a_run"), test_source="voc2007/test"))
    assert detection_data.open_test(named).image_ids_I.tolist() == list(range(101, 108))


def test_ones_own_test_set_needs_no_training_source(tools, tmp_path):
    write_picture(tmp_path / "1.png", 60, 80, 1)
    (tmp_path / "B.json").write_text(
        '{"images": [{"id": 1, "file_name": "1.png", "width": 80, "height": 60}], "annotations": [], '
        '"categories": [{"id": 1, "name": "dog"}]}'
    )
    words = {"dataset": "json", "test_source": "json:B.json", "data": tmp_path}
    recipe = tools.eval_det.changed(held_out(), tools.eval_det.Settings(run=Path("a_run"), **words))
    assert detection_data.open_test(recipe).image_ids_I.tolist() == [1]


def test_results_on_the_test_set_are_no_results_on_what_was_held_out(tools):
    trained = held_out(test={})
    recipe = tools.eval_det.changed(trained, tools.eval_det.Settings(run=Path("a_run"), dataset="voc07"))
    with pytest.raises(RecipeError, match=r"--output is missing: validation would not be as in the run's own protocol"):
        results.require_same_protocol(protocol_fields(trained), protocol_fields(recipe), {}, "")


def test_an_improvement_that_is_not_made_has_no_numbers(tools):
    settings = tools.eval_det.Settings(run=Path("a_run"), multi_scale_region=112)
    assert tools.eval_det.changed(held_out(), settings).test.multi_scale_region == 224


def test_pictures_are_read_at_one_size_whatever_the_recipe_says(tools, monkeypatch):
    test = {"multi_scale": [400, 600], "multi_scale_region": 112, "refine": True, "refine_nms": 0.4}
    trained = SimpleNamespace(recipe=held_out(test=test), names={1: "dog"}, restore=lambda recipe: torch.nn.Identity())
    monkeypatch.setattr(tools.trained_detector, "read_detector", lambda weights: trained)
    monkeypatch.setattr("vertebra.build.detector.make_tested", lambda recipe, detectors: detectors[0])
    settings = predict.Settings(inputs=(), weights="a_run", output=Path("out"))
    recipe = predict_networks.open_network(settings, World()).recipe
    assert (recipe.test.multi_scale, recipe.test.multi_scale_region, recipe.test.refine_nms) == ((), 224, 0.4)


def heads(**rows: int) -> dict[str, torch.Tensor]:
    return {f"{PREDICTOR}.{name}.weight": torch.zeros(count, 4) for name, count in rows.items()}


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        (b"", "truncated or damaged|damaged or not a torch file"),
        (b"<html>not weights</html>", "damaged or not a torch file|truncated or damaged"),
        (torch.zeros(3), "holds no state dict"),
        (heads(cls_score=21, bbox_pred=84), "cls_score.weight has 21 rows, not 91: it is a detector of other classes"),
        (heads(cls_score=91, bbox_pred=4), "bbox_pred.weight has 4 rows, not 364"),
        (heads(cls_score=91), r"the state dict lacks roi_heads.box_predictor.bbox_pred.weight"),
        ({"model": {"conv1.weight": torch.zeros(1)}}, "the state dict has conv1.weight, which torchvision's R50-FPN"),
    ],
    ids=("empty", "garbage", "tensor", "voc", "agnostic", "half", "backbone"),
)
def test_a_file_that_is_no_published_detectors_is_a_sentence_that_names_it(tools, tmp_path, content, sentence):
    file = tmp_path / "other.pth"
    if isinstance(content, bytes):
        file.write_bytes(content)
    else:
        torch.save(content, file)
    with pytest.raises(ValueError, match=sentence) as refused:
        tools.trained_detector.read_detector(f"torchvision:fasterrcnn_resnet50_fpn={file}")
    assert str(file) in str(refused.value)


def test_a_file_of_weights_that_is_not_there_is_a_sentence(tmp_path):
    weights = f"torchvision:fasterrcnn_resnet50_fpn={tmp_path / 'none.pth'}"
    done = run("eval_det", "--weights", weights, "--device", "cpu", "--output", tmp_path / "out", expect=1)
    assert f"{tmp_path / 'none.pth'} do not exist" in done.err
