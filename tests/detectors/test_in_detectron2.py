"""Our backbones in detectron2: built from its configurations, trained by its trainer, as it treats its own."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import torch

from backbones import create_backbone
from tests.detectors import detectron2_peer as peer
from vertebra.engine.weights import save_weights
from vertebra.ground.errors import UserError

pytestmark = peer.needed
MEAN, STD = (123.675, 116.28, 103.53), (58.395, 57.12, 57.375)
ZOO = {
    "fpn": "COCO-Detection/faster_rcnn_R_50_FPN_1x",
    "mask fpn": "COCO-InstanceSegmentation/mask_rcnn_R_50_FPN_1x",
    "c4": "COCO-Detection/faster_rcnn_R_50_C4_1x",
    "mask c4": "COCO-InstanceSegmentation/mask_rcnn_R_50_C4_1x",
    "dc5": "COCO-Detection/faster_rcnn_R_50_DC5_1x",
}


def config_of(kind: str, name: str, **keys: Any) -> Any:
    """A configuration as a user of detectron2 writes it; keys: dotted, with __ for a dot."""
    import vertebra.detectron2  # noqa: F401

    config = peer.config_of(ZOO[kind])
    config.MODEL.VERTEBRA.NAME = name
    config.MODEL.PIXEL_MEAN, config.MODEL.PIXEL_STD = list(MEAN[::-1]), list(STD[::-1])
    config.MODEL.BACKBONE.NAME = "build_vertebra_fpn_backbone" if "fpn" in kind else "build_vertebra_backbone"
    config.MODEL.BACKBONE.FREEZE_AT = 0
    config.MODEL.ROI_HEADS.NUM_CLASSES = 2
    if "c4" in kind:
        config.MODEL.ROI_HEADS.NAME = "VertebraROIHeads"
    config.merge_from_list([part for key, value in keys.items() for part in (key.replace("__", "."), value)])
    return config


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> str:
    """Four images with two squares each, registered as detectron2 wants it."""
    from detectron2.data import DatasetCatalog
    from detectron2.data.datasets import register_coco_instances

    folder, rng = tmp_path_factory.mktemp("squares"), np.random.default_rng(0)
    images, annotations = [], []
    for n in range(1, 5):
        pixels = rng.integers(0, 60, (96, 128, 3), dtype=np.uint8)
        for category, (x, y, side) in enumerate(((8, 10, 40), (64, 30, 50)), start=1):
            pixels[y : y + side, x : x + side, category] = 220
            outline = [x, y, x + side, y, x + side, y + side, x, y + side]
            box = {"bbox": [x, y, side, side], "area": side**2, "iscrowd": 0, "segmentation": [outline]}
            annotations.append({"id": len(annotations) + 1, "image_id": n, "category_id": category, **box})
        cv2.imwrite(str(folder / f"{n}.png"), pixels)
        images.append({"id": n, "file_name": f"{n}.png", "height": 96, "width": 128})
    categories = [{"id": 1, "name": "green"}, {"id": 2, "name": "red"}]
    content = {"images": images, "annotations": annotations, "categories": categories}
    (folder / "squares.json").write_text(json.dumps(content))
    if "squares" not in DatasetCatalog:
        register_coco_instances("squares", {}, str(folder / "squares.json"), str(folder))
    return "squares"


@pytest.mark.parametrize(
    ("kind", "name", "keys"),
    [
        ("fpn", "r18", {"MODEL__BACKBONE__FREEZE_AT": 2}),
        ("mask fpn", "vgg16", {}),
        ("fpn", "timm:resnet10t", {}),
        ("c4", "vgg11", {"MODEL__ROI_BOX_HEAD__POOLER_RESOLUTION": 7}),
        ("mask c4", "r18", {"MODEL__RESNETS__NORM": "BN", "MODEL__ROI_BOX_HEAD__POOLER_RESOLUTION": 7}),
        ("dc5", "r18", {"INPUT__FORMAT": "RGB", "MODEL__PIXEL_MEAN": list(MEAN), "MODEL__PIXEL_STD": list(STD)}),
    ],
)
def test_detectron2s_trainer_trains_and_predicts(
    kind: str, name: str, keys: dict[str, Any], dataset: str, tmp_path: Path
) -> None:
    from detectron2.engine import DefaultPredictor, DefaultTrainer

    config = config_of(kind, name, **keys)
    config.merge_from_list([
        *("DATASETS.TRAIN", (dataset,), "DATASETS.TEST", (), "DATALOADER.NUM_WORKERS", 0, "OUTPUT_DIR", str(tmp_path)),
        *("SOLVER.IMS_PER_BATCH", 2, "SOLVER.MAX_ITER", 2, "SOLVER.BASE_LR", 1e-3, "SOLVER.STEPS", ()),
        *("INPUT.MIN_SIZE_TRAIN", (96,), "INPUT.MIN_SIZE_TEST", 96, "MODEL.ROI_HEADS.SCORE_THRESH_TEST", 0.0),
    ])  # fmt: skip
    trainer = DefaultTrainer(config)
    before = {name: value.clone() for name, value in trainer.model.state_dict().items()}
    trainer.resume_or_load(resume=False)
    trainer.train()
    after = torch.load(tmp_path / "model_final.pth", weights_only=True)["model"]
    changed = {name for name, value in after.items() if name in before and not torch.equal(value, before[name])}
    trunk = "backbone.bottom_up.trunk." if "fpn" in kind else "backbone.trunk."
    first = next(name for name in after if name.startswith(trunk))
    assert (first in changed) == (config.MODEL.BACKBONE.FREEZE_AT == 0)
    assert any(name.startswith(trunk) for name in changed)
    assert "c4" not in kind or any(name.startswith("roi_heads.res5.region_head.") for name in changed)
    config.MODEL.WEIGHTS = str(tmp_path / "model_final.pth")
    found = DefaultPredictor(config)(cv2.imread(str(next(Path(config.OUTPUT_DIR).parent.rglob("squares*/1.png")))))
    assert len(found["instances"]) > 0 and found["instances"].has("pred_masks") == ("mask" in kind)


def test_maps_are_the_networks_own_whatever_the_order_of_pixels(tmp_path: Path) -> None:
    from detectron2.modeling import build_model

    torch.manual_seed(1)
    net = create_backbone("r18", width=0.25, num_classes=7)
    save_weights(tmp_path / "net.safetensors", net.state_dict(), {"backbone": net.identity()})
    pixels = torch.randint(0, 256, (3, 64, 96), dtype=torch.uint8)
    expected = net.eval().feature_maps(pixels.unsqueeze(0))
    for order in ("BGR", "RGB"):
        step = -1 if order == "BGR" else 1
        config = config_of(
            "fpn", "r18", INPUT__FORMAT=order, MODEL__PIXEL_MEAN=list(MEAN[::step]), MODEL__PIXEL_STD=list(STD[::step]),
            MODEL__VERTEBRA__WEIGHTS=str(tmp_path / "net.safetensors"),
        )  # fmt: skip
        model = build_model(config).eval()
        images = model.preprocess_image([{"image": pixels.flip(0) if order == "BGR" else pixels}])
        maps = model.backbone.bottom_up(images.tensor)
        assert {
            name: (spec.channels, spec.stride) for name, spec in model.backbone.bottom_up.output_shape().items()
        } == {name.replace("c", "res"): (spec.channels, spec.stride) for name, spec in net.feature_specs.items()}
        for name, expected_NCHW in expected.items():
            torch.testing.assert_close(maps[name.replace("c", "res")], expected_NCHW, atol=1e-4, rtol=1e-4)


def test_a_lazy_config_makes_the_same_modules() -> None:
    from detectron2.config import LazyCall, instantiate
    from detectron2.modeling.backbone.fpn import FPN, LastLevelMaxPool

    from vertebra.detectron2 import region_head, vertebra_backbone

    bottom_up = LazyCall(vertebra_backbone)(name="r18", maps=["res3", "res4"], freeze_at=0)
    lazy = LazyCall(FPN)(
        bottom_up=bottom_up, in_features="${.bottom_up.maps}", out_channels=8, top_block=LazyCall(LastLevelMaxPool)()
    )
    lazy.top_block = None
    maps = instantiate(lazy)(torch.zeros(1, 3, 64, 64))
    assert {name: tuple(value.shape) for name, value in maps.items()} == {"p3": (1, 8, 8, 8), "p4": (1, 8, 4, 4)}
    head = instantiate(LazyCall(region_head)(name="vgg11", roi_size=7, freeze_at=0))
    assert head(torch.zeros(2, 512, 7, 7)).shape == (2, head.channels, 1, 1) == (2, 4096, 1, 1)


@pytest.mark.parametrize(
    ("kind", "name", "keys", "sentence"),
    [
        ("fpn", "r18", {"MODEL__PIXEL_STD": [1.0, 1.0, 1.0]}, r"MODEL.PIXEL_STD: is \[1.0.*trained with \[57.3"),
        ("fpn", "r18", {"MODEL__RESNETS__NORM": "GN"}, "MODEL.RESNETS.NORM: is 'GN'; choose FrozenBN, BN or SyncBN"),
        ("fpn", "resnet18", {}, "the nearest name is 'r18'"),
        ("c4", "vgg11", {}, "needs roi_size 7"),
        (
            "mask c4",
            "vgg11",
            {"MODEL__ROI_BOX_HEAD__POOLER_RESOLUTION": 7},
            "needs a map of each region",
        ),
    ],
)
def test_what_does_not_fit_is_a_sentence(kind: str, name: str, keys: dict[str, Any], sentence: str) -> None:
    from detectron2.modeling import build_model

    with pytest.raises(ValueError, match=sentence):
        build_model(config_of(kind, name, **keys))


def test_an_unknown_file_of_weights_is_a_sentence() -> None:
    from vertebra.detectron2 import vertebra_backbone

    with pytest.raises(UserError, match="do not exist"):
        vertebra_backbone("r18", "nothing.safetensors")
