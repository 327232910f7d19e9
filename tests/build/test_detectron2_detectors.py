"""detectron2's detectors as ours, and back: names, orders and recipes, without detectron2.

tests/detectors/test_detectron2.py holds them against the real ones.
"""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml

from vertebra.build.backbone import make_detector_backbone
from vertebra.build.detector import file_state, make_detector
from vertebra.build.detectron2_config import detectron2_config, detectron2_recipe, nested
from vertebra.build.detectron2_weights import from_detectron2, to_detectron2
from vertebra.build.trained_detector import read_detector
from vertebra.ground.errors import RecipeError
from vertebra.ground.parse import flatten
from vertebra.recipes.schema_detection import DetectionRecipe


def recipe_of(body: str = "fpn", *, backbone: str = "r50", width: float = 0.125, **model: Any) -> DetectionRecipe:
    return DetectionRecipe(backbone=backbone, width=width, model={"body": body, **model})


def state_of(recipe: DetectionRecipe, classes: int = 3) -> dict[str, torch.Tensor]:
    """Of the recipe's detector, all numbers of a tensor different."""
    state = file_state(make_detector(recipe, make_detector_backbone(recipe), classes))
    return {name: torch.randperm(tensor.numel()).view_as(tensor).to(tensor.dtype) for name, tensor in state.items()}


RECIPES = {
    "fpn": recipe_of(fpn_channels=16, head_width=8),
    "fpn r18 masks": recipe_of(backbone="r18", width=1, masks=True, mask_convs=2, mask_channels=8, head_width=8),
    "fpn from scratch": recipe_of(fpn_channels=32, head_convs=2, head_width=8, head_norms="group", masks=True),
    "dc5 masks": recipe_of("dc5", masks=True, head_width=8, roi_size=5, class_agnostic=True),
    "c4": recipe_of("c4", anchor_sizes=(16, 64), anchor_ratios=(0.5, 2.0), conventions="detectron2", roi_size=14),
    "c4 masks r101": recipe_of("c4", backbone="r101", masks=True, rpn_channels=24, freeze_stride=0, roi_size=14),
}


@pytest.mark.parametrize("name", RECIPES)
def test_the_way_out_and_in_gives_the_same_detector(name: str) -> None:
    recipe = RECIPES[name]
    state = state_of(recipe)
    theirs, config = to_detectron2(state, recipe), detectron2_config(recipe, 3)
    again = detectron2_recipe(theirs, config)
    assert again.model == recipe.model.model_copy(update={"roi_size": again.model.roi_size})
    assert again.test == recipe.test
    for field in ("backbone", "width", "stride_in"):
        assert getattr(again, field) == getattr(recipe, field)
    ours = from_detectron2(theirs, again, bgr=False)
    assert ours.keys() == state.keys()
    assert all(torch.equal(ours[key], tensor) for key, tensor in state.items())
    assert yaml.safe_load(yaml.safe_dump(nested(config))) == nested(config) and flatten(nested(config)) == config


def test_names_and_orders_are_vertebras() -> None:
    # By hand: two scales a, b and three ratios, so detectron2's order is a1 a2 a3 b1 b2 b3.
    state = {
        "pixel_mean": torch.zeros(3, 1, 1),
        "backbone.stem.conv1.weight": torch.arange(3.0).view(1, 3, 1, 1),
        "backbone.stem.conv1.norm.running_var": torch.ones(1),
        "backbone.res4.5.conv3.norm.bias": torch.ones(1),
        "roi_heads.res5.0.shortcut.weight": torch.ones(1),
        "roi_heads.res5.0.shortcut.norm.weight": torch.ones(1),
        "roi_heads.mask_head.deconv.bias": torch.ones(1),
        "proposal_generator.rpn_head.objectness_logits.bias": torch.arange(6.0),
        "proposal_generator.rpn_head.anchor_deltas.bias": torch.arange(24.0),
        "roi_heads.box_predictor.cls_score.bias": torch.arange(3.0),
    }
    recipe = recipe_of("c4", anchor_sizes=(32, 64), masks=True)
    converted = from_detectron2(state, recipe)
    assert [*converted] == [
        "backbone.conv1.weight",
        "backbone.bn1.running_var",
        "backbone.layer3.5.bn3.bias",
        "backbone.layer4.0.downsample.0.weight",
        "backbone.layer4.0.downsample.1.weight",
        "mask_head.upsample.bias",
        "rpn.head.objectness.bias",
        "rpn.head.deltas.bias",
        "box_head.predictor.scores.bias",
    ]
    assert converted["backbone.conv1.weight"].flatten().tolist() == [2, 1, 0]
    assert from_detectron2(state, recipe, bgr=False)["backbone.conv1.weight"].flatten().tolist() == [0, 1, 2]
    assert converted["rpn.head.objectness.bias"].tolist() == [0, 3, 1, 4, 2, 5]
    assert converted["rpn.head.deltas.bias"].view(6, 4)[:, 0].tolist() == [0, 12, 4, 16, 8, 20]
    assert converted["box_head.predictor.scores.bias"].tolist() == [2, 0, 1]
    region = torch.arange(2 * 49.0).view(1, 98)  # of two channels; ours has both of a cell side by side
    fpn = from_detectron2(
        {"backbone.fpn_lateral5.norm.bias": torch.ones(1), "roi_heads.box_head.fc1.weight": region}, recipe_of()
    )
    assert [*fpn] == ["body.laterals.3.1.bias", "box_head.head.linears.0.weight"]
    assert fpn["box_head.head.linears.0.weight"][0, :4].tolist() == [0, 49, 1, 50]


def test_what_no_such_detector_has_is_refused() -> None:
    recipe = recipe_of("c4")
    with pytest.raises(ValueError, match=r"backbone\.fpn_lateral2\.weight have no place in a Faster R-CNN \(c4\)"):
        from_detectron2({"backbone.fpn_lateral2.weight": torch.zeros(1)}, recipe)
    with pytest.raises(ValueError, match=r"has no place for body\.other\.weight"):
        to_detectron2({"body.other.weight": torch.zeros(1)}, recipe)
    for backbone, body in (("vgg16", "fpn"), ("r18", "c4"), ("timm:x", "fpn")):
        with pytest.raises(ValueError, match=f"detectron2 has no .* on {backbone}"):
            to_detectron2({}, recipe_of(body, backbone=backbone))
    for field, value in (("conventions", "torchvision"), ("context", True), ("head_norms", "batch")):
        with pytest.raises(RecipeError, match=f"nothing like model.{field} {value}"):
            detectron2_config(recipe_of("c4", **{field: value}), 3)


def write(folder: Path, recipe: DetectionRecipe, *, classes: int = 3, config: dict[str, Any] | None = None) -> str:
    torch.save({"model": to_detectron2(state_of(recipe, classes), recipe), "iteration": 9}, folder / "model_final.pth")
    if config is not None:
        (folder / "config.yaml").write_text(yaml.safe_dump(nested(config)))
    return f"detectron2:{folder / 'model_final.pth'}"


def test_a_file_with_its_configuration_is_read(tmp_path: Path) -> None:
    recipe = RECIPES["fpn"]
    config = detectron2_config(recipe, 3, mean=(1, 2, 3), std=(4, 5, 6)) | {"INPUT.FORMAT": "BGR"}
    trained = read_detector(write(tmp_path, recipe, config=config))
    norm = trained.restore().body.trunk.pixel_norm
    assert norm.mean_values == (3, 2, 1) and norm.std_values == (6, 5, 4)
    assert trained.class_names == ("class 1", "class 2", "class 3") and trained.guessed
    assert trained.recipe.stride_in == "3x3" and trained.recipe.model.conventions == "vertebra"


def test_a_file_without_configuration_is_as_in_the_model_zoo(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    (tmp_path / "config.yaml").write_text("model: {body: c4}")  # a run's of ours
    weights = write(tmp_path, RECIPES["fpn"], classes=80)
    with caplog.at_level(logging.WARNING):
        trained = read_detector(weights)
    assert "no configuration of detectron2's lies beside" in caplog.text
    norm = trained.restore().body.trunk.pixel_norm
    assert norm.mean_values == (123.675, 116.28, 103.53) and norm.std_values == (1, 1, 1)
    assert (trained.recipe.stride_in, trained.recipe.model.conventions) == ("1x1", "detectron2")
    assert trained.names[1] == "person" and trained.names[90] == "toothbrush" and len(trained.names) == 80
    assert trained.recipe.model.proposals == (1000, 1000) and trained.recipe.input.test_shorter_side == 800


@pytest.mark.parametrize(
    ("config", "sentence"),
    [
        ({"MODEL.ANCHOR_GENERATOR.ASPECT_RATIOS": [[1.0]]}, "it has 3 anchors a cell, and .* make 1"),
        ({"MODEL.ROI_BOX_HEAD.POOLER_TYPE": "ROIAlign"}, "MODEL.ROI_BOX_HEAD.POOLER_TYPE is 'ROIAlign', which has no"),
        ({"MODEL.RPN.NMS_THRESH": 7.0}, "model.rpn_nms: Input should be less than or equal to 1"),
        ({"MODEL.ANCHOR_GENERATOR.SIZES": 32}, "model_final.pth: "),
    ],
)
def test_configurations_without_counterpart_are_a_sentence(
    tmp_path: Path, config: dict[str, Any], sentence: str
) -> None:
    with pytest.raises(ValueError, match=sentence):
        read_detector(write(tmp_path, RECIPES["fpn"], config={"MODEL.META_ARCHITECTURE": "GeneralizedRCNN", **config}))


def test_a_file_of_something_else_is_a_sentence(tmp_path: Path) -> None:
    torch.save({"model": {"conv1.weight": torch.zeros(1)}}, tmp_path / "x.pth")
    with pytest.raises(ValueError, match=r"x.pth: it is no Faster or Mask R-CNN of detectron2's on a ResNet"):
        read_detector(f"detectron2:{tmp_path / 'x.pth'}")
