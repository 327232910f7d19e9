"""From the recipe's test settings to what is tested, and which detectors make no ensemble."""

from __future__ import annotations

import pytest
import torch
from pydantic import ValidationError

from detectors.faster_rcnn import FasterRCNN
from detectors.testtime import ImprovedDetector
from vertebra.build.backbone import make_detector_backbone
from vertebra.build.detector import check_member, make_detector, make_tested
from vertebra.recipes.schema import protocol_fields
from vertebra.recipes.schema_detection import DetectionRecipe

NAMES = ("cat", "dog")


def recipe(**values: object) -> DetectionRecipe:
    model = {"cut_stride": 16, "roi_size": 7, **values.pop("model", {})}  # type: ignore[dict-item]
    return DetectionRecipe.model_validate({"backbone": "r18", "width": 0.125, "model": model, **values})


def detector(settings: DetectionRecipe) -> FasterRCNN:
    return make_detector(settings, make_detector_backbone(settings), len(NAMES))


def test_a_detector_without_improvements_is_tested_as_it_is() -> None:
    model = detector(recipe())
    assert make_tested(recipe(), [model]) is model


def test_each_setting_reaches_what_is_tested() -> None:
    settings = recipe(
        input={"test_shorter_side": 96},
        test={"refine": True, "refine_nms": 0.25, "multi_scale": [64, 96], "multi_scale_region": 60, "flip": True},
    )
    tested = make_tested(settings, [detector(settings), detector(settings)])
    assert isinstance(tested, ImprovedDetector) and len(tested.detectors) == 2
    assert (tested.refine, tested.region_px, tested.mirror) == (True, 60, True)
    assert tested.postprocess.nms_iou == 0.25
    plain = make_tested(recipe(test={"flip": True, "nms": 0.4}), [detector(recipe(test={"nms": 0.4}))])
    assert isinstance(plain, ImprovedDetector) and (plain.refine, plain.region_px) == (False, None)
    assert plain.postprocess.nms_iou == 0.4


@pytest.mark.parametrize("body", ["c4", "dc5", "fpn"])
def test_every_body_has_context(body: str) -> None:
    with torch.device("meta"):
        models = [detector(recipe(model={"body": body, "context": context})) for context in (False, True)]
    plain, context = (model.box_head.predictor.scores.in_features for model in models)
    assert context == 2 * plain and models[1].box_head.context


@pytest.mark.parametrize("sides", [[400, 800], [600], [600, 600], [8, 600]])
def test_sizes_that_cannot_be_are_a_sentence(sides: list[int]) -> None:
    with pytest.raises(ValidationError, match=r"test\.multi_scale needs two sizes or more of at least 16, and among"):
        recipe(test={"multi_scale": sides})


def test_improvements_are_part_of_the_protocol() -> None:
    names = set(protocol_fields(recipe()))
    assert {"model.context", "test.refine", "test.multi_scale", "test.multi_scale_region", "test.flip"} <= names


def test_an_ensemble_takes_another_body_and_refuses_other_classes_and_sizes() -> None:
    first = recipe()
    check_member("a", recipe(model={"body": "dc5", "context": True}), NAMES, first, NAMES)
    with pytest.raises(ValueError, match=r"b knows other classes \(dog, cat\)"):
        check_member("b", first, ("dog", "cat"), first, NAMES)
    with pytest.raises(ValueError, match=r"c is tested at input.test_shorter_side 500, the first detector at 600"):
        check_member("c", recipe(input={"test_shorter_side": 500}), NAMES, first, NAMES)
