"""Every body on every kind of backbone: it builds, takes a step, and its tensors keep the backbone's names in files."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from pydantic import ValidationError
from torch import nn

from backbones.base import BackboneError
from detectors.structures import Masks
from tests.detectors.tiny import make_images, make_targets
from vertebra.build.backbone import make_detector_backbone
from vertebra.build.detector import file_state, load_file_state, make_detector
from vertebra.recipes.schema_detection import DetectionRecipe

BODIES = ("c4", "dc5", "fpn")
BACKBONES = ("r18", "vgg11_bn", "torchvision:resnet50", "timm:resnet18")


def recipe_of(backbone: str, body: str, **model: Any) -> DetectionRecipe:
    few = {"proposals_before_nms": [50, 50], "proposals": [20, 10], "rois": 8, "rpn_samples": 16}
    small: dict[str, Any] = {"rpn_channels": 16, "norms": "trained", "freeze_stride": 0}
    small |= {} if body == "c4" else {"head_width": 32}
    small |= {"fpn_channels": 16} if body == "fpn" else {}
    small |= {"mask_channels": 8} if model.get("masks") else {}
    return DetectionRecipe.model_validate(
        {
            "backbone": backbone,
            "width": 1.0 if ":" in backbone else 0.125,
            "model": {"body": body, **few, **small, **model},
        }
    )


def built(recipe: DetectionRecipe, classes: int = 3) -> Any:
    torch.manual_seed(0)
    return make_detector(recipe, make_detector_backbone(recipe), classes)


def a_batch() -> Any:
    images = make_images(torch.randint(0, 256, (2, 3, 64, 96), dtype=torch.uint8), ((64, 96), (60, 80)))
    targets = make_targets([[[5.0, 5, 60, 50], [2.0, 2, 20, 30]], []], [[1, 3], []])
    bits = torch.zeros(2, 64, 96, dtype=torch.uint8)
    bits[:, 5:40, 5:50] = 1
    flat = Masks.of(list(bits), torch.zeros(2, dtype=torch.int64), torch.arange(2))
    return images, replace(targets, masks=flat)


@pytest.mark.parametrize("body", BODIES)
@pytest.mark.parametrize("backbone", BACKBONES)
def test_every_body_builds_on_every_kind_of_backbone(backbone: str, body: str) -> None:
    recipe = recipe_of(backbone, body, masks=True)
    with torch.device("meta"):
        detector = built(recipe)
        names = set(file_state(detector))
        uncut = set(make_detector_backbone(recipe).state_dict())
    kept = {name.removeprefix("backbone.") for name in names if name.startswith("backbone.")}
    assert kept and kept <= uncut, "the backbone's tensors keep the names of the uncut network"
    strides = {"c4": (16,), "dc5": (16,), "fpn": (4, 8, 16, 32, 64)}
    assert detector.body.strides == strides[body]


@pytest.mark.parametrize("norms", ["none", "group", "batch"])
@pytest.mark.parametrize("body", BODIES)
@pytest.mark.parametrize("backbone", ["r18", "vgg11"])
def test_a_step_of_mask_rcnn_reaches_every_parameter(backbone: str, body: str, norms: str) -> None:
    convs = 1 if norms == "group" and body != "c4" else 0
    detector = built(recipe_of(backbone, body, masks=True, head_norms=norms, head_convs=convs))
    images, targets = a_batch()
    losses = detector(images, targets)
    assert set(losses) == {"loss_rpn_cls", "loss_rpn_box", "loss_box_cls", "loss_box_reg", "loss_mask"}
    sum(losses.values()).backward()
    for name, parameter in detector.named_parameters():
        assert parameter.grad is not None and parameter.grad.isfinite().all(), name
    found = detector.eval().detect(images)
    side = 14 if body == "c4" else 28
    assert found.masks_NDMM.shape == (2, 100, side, side)
    assert ((found.masks_NDMM >= 0) & (found.masks_NDMM <= 1)).all()


@pytest.mark.parametrize("body", BODIES)
def test_a_state_goes_to_a_file_and_back(body: str) -> None:
    recipe = recipe_of("r18", body, masks=True, head_norms="batch")
    first, second = built(recipe), built(recipe)
    for parameter in second.parameters():
        nn.init.zeros_(parameter)
    load_file_state(second, file_state(first), Path("x.safetensors"))
    for name, tensor in first.state_dict().items():
        assert torch.equal(tensor, second.state_dict()[name]), name


def test_the_extra_norm_above_a_cut_is_the_detectors_own() -> None:
    names = file_state(built(recipe_of("r18", "c4", head_norms="batch")))
    assert "box_head.head.extra_norm.weight" in names and "backbone.layer4.0.conv1.weight" in names


def test_a_dilated_body_ends_at_stride_16_and_a_frozen_one_stays_frozen() -> None:
    detector = built(recipe_of("r18", "dc5", norms="frozen", freeze_stride=4))
    assert detector.body.strides == (16,)
    trunk = detector.body.trunk
    assert not any(p.requires_grad for p in (*trunk.conv1.parameters(), *trunk.layer1.parameters()))
    assert trunk.layer4[0].conv1.weight.requires_grad and not trunk.layer4[0].bn1.weight.requires_grad


@pytest.mark.parametrize(
    ("model", "sentence"),
    [
        ({"body": "fpn", "pooling": "pool"}, "pool has no form for a pyramid"),
        ({"body": "fpn", "pooling": "pool", "anchor_sizes": [32]}, r"pool has no form .*; model.anchor_sizes has 1"),
        ({"rois": 3}, r"model.rois 3 leaves no place to a positive at model.roi_positive 0.25.* set it to 4 or more"),
        ({"body": "fpn", "anchor_sizes": [32, 64]}, r"has 2 sizes, and a pyramid 5 levels .* 32 64 128 256 512"),
    ],
)
def test_parts_that_do_not_fit_are_told(model: dict[str, Any], sentence: str) -> None:
    with pytest.raises(ValidationError, match=sentence):
        DetectionRecipe.model_validate({"model": model})


def test_a_backbone_without_a_level_says_which_it_has() -> None:
    with pytest.raises(BackboneError, match=r"cifar_r20 has no map c2, c3, c4, c5|cifar_r20 has no map"):
        built(recipe_of("cifar_r20", "fpn"))
