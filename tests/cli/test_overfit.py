"""A few real images learnt by heart: the whole machine, from decoding to AP or mIoU, has no loose part."""

from __future__ import annotations

import json
import os
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests.cli.conftest import run, run_process
from vertebra.data.datasets.semantic import open_semantic
from vertebra.ground.labels import IGNORED

REAL = Path(os.environ.get("VERTEBRA_DATA") or Path(__file__).resolve().parents[3] / "shared" / "data")
DATA, VOC = REAL / "coco", REAL / "VOCdevkit"
SHORTER_SIDE_PX = 200
SMALLEST_PX = 16  # one step of the map on which regions are pooled


def first_images(truth: dict, count: int) -> dict:
    """The first `count` images with two objects or more, none of them a crowd or narrower than one step of the map."""
    kept = []
    for image in truth["images"]:
        scale = SHORTER_SIDE_PX / min(image["width"], image["height"])
        objects = [entry for entry in truth["annotations"] if entry["image_id"] == image["id"]]
        wide = all(min(entry["bbox"][2:]) * scale >= SMALLEST_PX and not entry["iscrowd"] for entry in objects)
        if len(objects) >= 2 and wide:
            kept.append(image)
    ids = {image["id"] for image in kept[:count]}
    annotations = [entry for entry in truth["annotations"] if entry["image_id"] in ids]
    return {**truth, "images": kept[:count], "annotations": annotations}


def learn_by_heart(tmp_path, backbone, *flags):
    """The evaluation of a detector on the eight images that it has learnt."""
    part = first_images(json.loads((DATA / "annotations" / "instances_val2017.json").read_text()), 8)
    assert len(part["images"]) == 8
    (tmp_path / "part.json").write_text(json.dumps(part))
    source = f"json:{tmp_path / 'part.json'}"
    command = ("--config", "detection/overfit.yaml", "--backbone", backbone, "--data", DATA / "val2017")
    command += ("--dataset", "json", "--train-source", source, "--test-source", source, "--output", tmp_path / "run")
    run_process("train_det", *command, "--device", "cpu", *flags, timeout_s=3 * 3600)
    evaluation = json.loads((tmp_path / "run" / "evaluation.json").read_text())
    print(json.dumps({name: evaluation.get(name) for name in ("coco", "coco_segm")}))
    return evaluation


@pytest.mark.slow
@pytest.mark.skipif(not DATA.is_dir(), reason="no real data: set VERTEBRA_DATA")
@pytest.mark.parametrize("backbone", ["r18", "vgg11_bn", "r50", "vgg16"])  # minutes; the last two a quarter of an hour
def test_eight_images_are_learnt_by_heart(backbone, tmp_path):
    evaluation = learn_by_heart(tmp_path, backbone)
    assert evaluation["coco"]["AP50"] > 90, evaluation["coco"]


@pytest.mark.slow
@pytest.mark.skipif(not DATA.is_dir(), reason="no real data: set VERTEBRA_DATA")
@pytest.mark.parametrize("backbone", ["r18", "r50"])
def test_eight_images_and_their_masks_are_learnt_by_heart(backbone, tmp_path):
    pyramid = ("--model.body", "fpn", "--model.anchor-sizes", "8", "16", "32", "64", "128", "--model.roi-size", "7")
    small = ("--model.fpn-channels", "128", "--model.head-width", "512", "--model.mask-channels", "128")
    evaluation = learn_by_heart(tmp_path, backbone, *pyramid, *small, "--model.masks")
    assert evaluation["coco_segm"]["AP50"] > 85, evaluation["coco_segm"]
    assert evaluation["coco"]["AP50"] > 90, evaluation["coco"]


def write_maps(folder: Path, count: int) -> None:
    """The first `count` landscapes of VOC2012 of which each class takes a tenth or more, as images/ and masks/."""
    whole = open_semantic(VOC, "voc2012aug/train")
    kept = 0
    for split in ("images", "masks"):
        (folder / split).mkdir(parents=True)
    for index in range(len(whole)):
        labels_HW = whole.labels(index)
        height, width = labels_HW.shape
        share_C = np.bincount(labels_HW.ravel(), minlength=256)[:IGNORED] / labels_HW.size
        if kept < count and 1.2 < width / height < 1.4 and share_C[share_C > 0].min() > 0.1:
            (folder / "images" / whole.path(index).name).symlink_to(whole.path(index))
            Image.fromarray(labels_HW).save(folder / "masks" / f"{whole.path(index).stem}.png")
            kept += 1
    assert kept == count
    (folder / "classes.txt").write_text("\n".join(whole.class_names))


@pytest.mark.skipif(not VOC.is_dir(), reason="no real data: set VERTEBRA_DATA")
def test_eight_images_are_segmented_by_heart(tmp_path):
    write_maps(tmp_path / "eight", 8)
    source = f"maps:{tmp_path / 'eight'}"
    command = ("--config", "segmentation/overfit.yaml", "--dataset", "maps", "--data", tmp_path / "eight")
    command += ("--train-source", source, "--test-source", source, "--input.crop", 96, 128)
    run("train_seg", *command, "--output", tmp_path / "run", "--device", "cpu", "--workers", 0)
    evaluation = json.loads((tmp_path / "run" / "evaluation.json").read_text())
    assert evaluation["segmentation"]["mIoU"] > 90, evaluation["classes"]
