"""The embedded sample set: what it promises, counted on what lies on disk."""

from __future__ import annotations

import json
import re
import xml.etree.ElementTree as ET
from dataclasses import replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from pycocotools import mask as rle
from pycocotools.coco import COCO

from vertebra.data.datasets.semantic import open_semantic
from vertebra.data.sample import (
    CLASS_NAMES,
    SampleSpec,
    SampleSummary,
    generator_hash,
    scene_statistics,
    write_sample_set,
)
from vertebra.data.sample.shapes import draw_stamp
from vertebra.data.sample.spec import normalised_source
from vertebra.ground.errors import DataError

SPEC = SampleSpec(train_scenes=260, val_scenes=16, train_objects=60, val_objects=20)
TINY = SampleSpec(seed=7, train_scenes=18, val_scenes=3, train_objects=22, val_objects=10)


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> SampleSummary:
    return write_sample_set(tmp_path_factory.mktemp("sample") / "set", SPEC)


@pytest.fixture(scope="module")
def document(written: SampleSummary) -> dict[str, Any]:
    return json.loads((written.root / "scenes/annotations/instances_train.json").read_text())


def masks_of(document: dict[str, Any]) -> list[np.ndarray]:
    return [rle.decode(one["segmentation"]).astype(bool) for one in document["annotations"]]


def test_scenes_hold_what_was_promised(document: dict[str, Any]) -> None:
    found = scene_statistics(document)
    assert found["objects_per_scene"] == pytest.approx(5, abs=0.5)
    assert min(found["small"], found["medium"], found["large"]) >= 0.2
    assert found["small"] + found["medium"] + found["large"] == pytest.approx(1)
    assert found["overlapped"] == pytest.approx(1 / 3, abs=0.05)
    assert 0.01 < found["difficult"] < 0.06
    assert 0.01 < found["empty"] < 0.06 and 0.03 < found["with_crowd"] < 0.12
    assert found["rarest_class"] > 0.07 and found["commonest_class"] < 0.13


def test_areas_and_boxes_are_those_of_the_visible_masks(document: dict[str, Any]) -> None:
    for one, mask in zip(document["annotations"], masks_of(document)):
        rows, columns = np.nonzero(mask)
        assert one["area"] == mask.sum() > 0
        left, top, width, height = one["bbox"]
        assert (left, top) == (columns.min(), rows.min())
        assert (left + width, top + height) == (columns.max() + 1, rows.max() + 1)


def test_no_pixel_belongs_to_two_objects(document: dict[str, Any]) -> None:
    layers = {image["id"]: np.zeros((image["height"], image["width"]), int) for image in document["images"]}
    for one, mask in zip(document["annotations"], masks_of(document)):
        layers[one["image_id"]] += mask
    assert max(layer.max() for layer in layers.values()) == 1


def test_overlapped_objects_touch_another_and_difficult_ones_are_much_hidden(document: dict[str, Any]) -> None:
    by_image: dict[int, list[dict[str, Any]]] = {}
    for one in document["annotations"]:
        by_image.setdefault(one["image_id"], []).append(one)
    for one in (one for one in document["annotations"] if one["occluded"] > 0.02):
        left, top, width, height = one["bbox"]  # of what is still seen, so it may end where the other begins
        others = [other["bbox"] for other in by_image[one["image_id"]] if other is not one]
        assert rle.iou([[left - 1, top - 1, width + 2, height + 2]], others, [0] * len(others)).max() > 0
    assert all(one["occluded"] > 0.3 for one in document["annotations"] if one["difficult"])


def test_crowds_are_one_mask_over_many_tiny_things(document: dict[str, Any]) -> None:
    crowds = [m for one, m in zip(document["annotations"], masks_of(document)) if one["iscrowd"]]
    assert crowds
    assert np.median([cv2.connectedComponents(mask.astype(np.uint8))[0] - 1 for mask in crowds]) > 5


def fit_softmax(x_NF: np.ndarray, y_N: np.ndarray, steps: int = 400) -> np.ndarray:
    """Weights of a logistic regression by plain gradient descent on standardised features."""
    weights_FC = np.zeros((x_NF.shape[1], len(CLASS_NAMES)))
    truth_NC = np.eye(len(CLASS_NAMES))[y_N]
    for _ in range(steps):
        logits_NC = x_NF @ weights_FC
        odds_NC = np.exp(logits_NC - logits_NC.max(axis=1, keepdims=True))
        weights_FC -= 0.5 * x_NF.T @ (odds_NC / odds_NC.sum(axis=1, keepdims=True) - truth_NC) / len(x_NF)
    return weights_FC


def test_colour_and_size_do_not_give_the_class_away(written: SampleSummary, document: dict[str, Any]) -> None:
    ids = [category["id"] for category in document["categories"]]
    pictures = {
        i["id"]: cv2.imread(str(written.root / "scenes/images/train" / i["file_name"])) for i in document["images"]
    }
    rows, labels = [], []
    for one, mask in zip(document["annotations"], masks_of(document)):
        if not one["iscrowd"]:
            width, height = one["bbox"][2:]
            colour = pictures[one["image_id"]][mask].mean(axis=0)
            rows.append([*colour, width, height, width * height, one["area"]])
            labels.append(ids.index(one["category_id"]))
    x_NF, y_N = np.array(rows, float), np.array(labels)
    x_NF = np.c_[(x_NF - x_NF.mean(axis=0)) / x_NF.std(axis=0), np.ones(len(x_NF))]
    held_out = np.arange(len(x_NF)) % 4 == 0
    weights_FC = fit_softmax(x_NF[~held_out], y_N[~held_out])
    assert np.mean((x_NF[held_out] @ weights_FC).argmax(axis=1) == y_N[held_out]) < 0.35
    assert np.mean((x_NF[~held_out] @ weights_FC).argmax(axis=1) == y_N[~held_out]) < 0.35


def test_all_classes_have_the_same_area_before_occlusion() -> None:
    for label in range(len(CLASS_NAMES)):
        areas = [int(draw_stamp(np.random.default_rng(i), label, 60).mask.sum()) for i in range(5)]
        assert areas == pytest.approx([3600] * 5, rel=0.05), CLASS_NAMES[label]


def test_pycocotools_reads_the_scenes_and_their_pictures_have_the_told_size(written: SampleSummary) -> None:
    for split, count in (("train", SPEC.train_scenes), ("val", SPEC.val_scenes)):
        truth = COCO(str(written.root / f"scenes/annotations/instances_{split}.json"))
        assert len(truth.imgs) == count
        assert [category["name"] for category in truth.dataset["categories"]] == list(CLASS_NAMES)
        assert [one["id"] for one in truth.dataset["annotations"]] == list(range(1, len(truth.anns) + 1))
        for image in list(truth.imgs.values())[:12]:
            pixels = cv2.imread(str(written.root / f"scenes/images/{split}" / image["file_name"]))
            assert pixels.shape == (image["height"], image["width"], 3)


def test_category_ids_have_gaps(document: dict[str, Any]) -> None:
    ids = [category["id"] for category in document["categories"]]
    assert ids == sorted(ids) and ids != list(range(1, len(ids) + 1))


def test_voc_and_coco_tell_of_the_same_objects(written: SampleSummary) -> None:
    devkit = written.root / "VOCdevkit/VOC2007"
    for split, image_set in (("train", "trainval"), ("val", "test")):
        document = json.loads((written.root / f"scenes/annotations/instances_{split}.json").read_text())
        names = {category["id"]: category["name"] for category in document["categories"]}
        stems = (devkit / f"ImageSets/Main/{image_set}.txt").read_text().split()
        assert stems == [Path(image["file_name"]).stem for image in document["images"]]
        for stem, image in zip(stems, document["images"]):
            tree = ET.parse(devkit / f"Annotations/{stem}.xml").getroot()
            assert tree.findtext("filename") == image["file_name"]
            assert int(tree.findtext("size/width", "")) == image["width"]
            assert int(tree.findtext("size/height", "")) == image["height"]
            assert (devkit / "JPEGImages" / image["file_name"]).samefile(
                written.root / f"scenes/images/{split}" / image["file_name"]
            )
            expected = [
                (names[one["category_id"]], xyxy_from_one(one["bbox"]), one["difficult"] or one["iscrowd"])
                for one in document["annotations"]
                if one["image_id"] == image["id"]
            ]
            assert [voc_object(element) for element in tree.findall("object")] == expected


def xyxy_from_one(xywh: list[int]) -> list[int]:
    """VOC's corners: pixels counted from 1, both ends inside the box."""
    return [xywh[0] + 1, xywh[1] + 1, xywh[0] + xywh[2], xywh[1] + xywh[3]]


def voc_object(element: ET.Element) -> tuple[str, list[int], int]:
    box = [int(element.findtext(f"bndbox/{corner}", "")) for corner in ("xmin", "ymin", "xmax", "ymax")]
    return element.findtext("name", ""), box, int(element.findtext("difficult", ""))


def test_single_objects_lie_in_a_folder_for_each_class(written: SampleSummary) -> None:
    for split, count in (("train", SPEC.train_objects), ("val", SPEC.val_objects)):
        folders = sorted((written.root / "objects" / split).iterdir())
        assert tuple(folder.name for folder in folders) == CLASS_NAMES
        files = [sorted(folder.iterdir()) for folder in folders]
        assert {len(of_class) for of_class in files} == {count // 10}
        assert files[0][0].name == "0000.jpg"
        assert cv2.imread(str(files[3][1])).shape == (96, 96, 3)


def files_of(root: Path) -> dict[str, bytes]:
    return {str(p.relative_to(root)): p.read_bytes() for p in sorted(root.rglob("*")) if p.is_file()}


def test_the_bytes_do_not_depend_on_the_number_of_processes(tmp_path: Path) -> None:
    steps: list[tuple[int, int]] = []
    alone = write_sample_set(tmp_path / "a", TINY, processes=1, progress=lambda *step: steps.append(step))
    together = write_sample_set(tmp_path / "b", TINY, processes=3)
    assert files_of(alone.root) == files_of(together.root)
    assert steps[-1] == (53, 53) and steps == sorted(steps)


def test_a_longer_set_begins_with_the_same_scenes(tmp_path: Path) -> None:
    few = write_sample_set(tmp_path / "a", replace(TINY, train_scenes=2), processes=1)
    more = write_sample_set(tmp_path / "b", replace(TINY, train_scenes=4), processes=1)
    picture = "scenes/images/train/000002.jpg"
    assert (few.root / picture).read_bytes() == (more.root / picture).read_bytes()


def test_the_hash_changes_with_the_spec_and_with_nothing_but_the_code() -> None:
    assert generator_hash(TINY) == generator_hash(replace(TINY))
    others = [replace(TINY, seed=8), replace(TINY, val_objects=20)]
    assert len({generator_hash(spec) for spec in [TINY, *others]}) == 3
    assert re.fullmatch("[0-9a-f]{64}", generator_hash(TINY))
    # of sets that are drawn already: runs on them compare with later ones as long as it stays
    assert generator_hash(SampleSpec()).startswith("ba177f9f82cc918f9ec6716a804a042f")
    first = 'def f(x):\n    """Doc."""\n    # why\n    return x + 1\n'
    assert normalised_source(first) == normalised_source('def f( x ):\n    "Other."\n    return x+1  # what\n')
    assert normalised_source(first) != normalised_source(first.replace("1", "2"))
    assert normalised_source('x = "Doc."\n') != normalised_source('x = "Other."\n')


def test_a_set_that_is_there_is_used_again(written: SampleSummary) -> None:
    before = (written.root / "sample.json").stat().st_mtime_ns
    again = write_sample_set(written.root, SPEC)
    assert again.reused and not written.reused
    assert again.hash == written.hash and again.statistics == written.statistics
    assert (written.root / "sample.json").stat().st_mtime_ns == before
    description = json.loads((written.root / "sample.json").read_text())
    assert description["hash"] == generator_hash(SPEC) and description["seed"] == 0
    assert not [path for path in written.root.parent.iterdir() if "partial" in path.name]


def test_what_is_there_already_is_never_overwritten(written: SampleSummary, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"another generator, seed or number of pictures .*; remove it"):
        write_sample_set(written.root, replace(SPEC, seed=1))
    (tmp_path / "notes.txt").write_text("mine")
    with pytest.raises(DataError, match="holds something else than a sample set; remove it, or name another"):
        write_sample_set(tmp_path, TINY)
    with pytest.raises(DataError, match=r"notes\.txt: is a file; name a directory"):
        write_sample_set(tmp_path / "notes.txt", TINY)
    assert (tmp_path / "notes.txt").read_text() == "mine"


def test_a_failed_write_leaves_nothing_behind(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("vertebra.data.sample.write._write_texts", full)
    with pytest.raises(DataError, match=r"cannot be written \(No space left on device\); free space there"):
        write_sample_set(tmp_path / "set", replace(TINY, train_scenes=1, val_scenes=1), processes=1)
    assert list(tmp_path.iterdir()) == []


def test_a_senseless_request_is_refused() -> None:
    with pytest.raises(DataError, match="train_scenes is 0; give 1 or more"):
        SampleSpec(train_scenes=0)


@pytest.mark.parametrize("split", ["train", "val"])
def test_semantic_maps_are_the_instances_masks(written: SampleSummary, split: str):
    """Every pixel is of the class of the only mask that covers it, by pycocotools; the background is 0."""
    dataset = open_semantic(written.root, f"sample/{split}")
    assert dataset.class_names == ("background", *CLASS_NAMES)
    truth = COCO(str(written.root / "scenes" / "annotations" / f"instances_{split}.json"))
    label_of = {one["id"]: CLASS_NAMES.index(one["name"]) + 1 for one in truth.loadCats(truth.getCatIds())}
    for index, image_id in enumerate(dataset.image_ids_I.tolist()[:16]):
        labels_HW = dataset.labels(index)
        expected_HW = np.zeros_like(labels_HW)
        for one in truth.loadAnns(truth.getAnnIds(imgIds=[image_id])):
            mask_HW = rle.decode(one["segmentation"]).astype(bool)
            assert not expected_HW[mask_HW].any(), "masks of what is seen do not overlap"
            expected_HW[mask_HW] = label_of[one["category_id"]]
        assert np.array_equal(labels_HW, expected_HW) and labels_HW.any()
