"""What `check` knows beyond faults: near-duplicates, classes, boxes against anchors; and sets written anew."""

from __future__ import annotations

import json
import os
import signal
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import torch
from torchvision.ops import box_iou

from detectors.anchors import AnchorGrid
from tests.data.writers import picture, write_coco, write_folders, write_picture, write_text, write_voc, write_xml
from vertebra.data.datasets.catalog import open_classification, open_detection
from vertebra.data.prepare import looks
from vertebra.data.prepare.anchor_fit import MATCH, Anchors, best_iou, fit
from vertebra.data.prepare.check import check
from vertebra.data.prepare.findings import comparison, comparison_in_words, contents, contents_in_words
from vertebra.data.prepare.fix import write_fixed
from vertebra.data.prepare.looks import FLAT, Looks, fingerprint
from vertebra.data.prepare.near_duplicates import BITS, differing_bits, near_duplicates
from vertebra.data.transforms.canvases import FixedView
from vertebra.ground.errors import DataError


def rough(seed: int, height: int = 120, width: int = 160) -> np.ndarray:
    """A picture with detail, unlike any of another seed."""
    small = np.random.default_rng(seed).integers(0, 256, (12, 16, 3), np.uint8)
    return cv2.resize(small, (width, height), interpolation=cv2.INTER_CUBIC)


def printed(pictures: list[np.ndarray]) -> Looks:
    prints = [fingerprint(one) for one in pictures]
    means_ID = np.array([means for _, means in prints])
    hashes_I, fine_I = np.array([bits for bits, _ in prints], np.uint64), np.ones(len(prints), bool)
    return Looks((), fine_I, means_ID.std(axis=1) >= FLAT, hashes_I, means_ID)


CHANGES = {
    "the same": lambda one: one,
    "half the size": lambda one: cv2.resize(one, (80, 60), interpolation=cv2.INTER_AREA),
    "twice the size": lambda one: cv2.resize(one, (320, 240)),
    "worse JPEG": lambda one: cv2.imdecode(cv2.imencode(".jpg", one, [cv2.IMWRITE_JPEG_QUALITY, 25])[1], 1),
    "brighter": lambda one: np.clip(one * 1.1 + 8, 0, 255).astype(np.uint8),
    "written upon": lambda one: cv2.putText(one.copy(), "dog 0.93", (20, 40), 0, 0.6, (255, 0, 0), 1),
}


@pytest.mark.parametrize("change", CHANGES.values(), ids=CHANGES)
def test_a_changed_copy_is_found_and_no_other_picture(change):
    train, test = printed([rough(seed) for seed in range(60)]), printed([change(rough(7)), rough(100), rough(101)])
    ((place, of, likeness),) = near_duplicates(train, test)
    assert (place, of) == (0, 7) and likeness >= 0.9


def test_pictures_of_one_colour_are_no_duplicates_of_each_other():
    flat = printed([np.full((50, 60, 3), level, np.uint8) for level in (0, 90, 255)])
    assert near_duplicates(flat, flat) == []


def test_buckets_find_every_pair_that_differs_in_few_bits():
    """Against all pairs, one by one."""
    random = np.random.default_rng(3)
    base_A = random.integers(0, 1 << 64, 300, np.uint64)
    flips_BN = [random.choice(64, size=count, replace=False) for count in random.integers(0, 12, 300)]
    hashes_B = np.array(
        [base ^ np.uint64(sum(1 << int(bit) for bit in flips)) for base, flips in zip(base_A, flips_BN)]
    )
    means_ID, all_I = random.integers(0, 256, (300, 64)).astype(np.uint8), np.ones(300, bool)
    found = near_duplicates(Looks((), all_I, all_I, base_A, means_ID), Looks((), all_I, all_I, hashes_B, means_ID))
    expected = [place for place, flips in enumerate(flips_BN) if len(flips) <= BITS]
    assert [place for place, of, _ in found if place == of] == expected and len(expected) > 100
    assert differing_bits(base_A, hashes_B).tolist() == list(map(len, flips_BN))


def test_one_pass_in_processes_sees_what_one_process_sees(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(looks, "AT_ONCE", 3)
    dataset = open_classification(write_folders(tmp_path, {"ant": 7, "bee": 6}), "train")
    dataset.path(4).write_bytes(dataset.path(4).read_bytes()[:99])
    steps: list[tuple[int, int]] = []
    alone = looks.look(dataset, processes=1, progress=lambda done, total: steps.append((done, total)))
    several = looks.look(dataset, processes=2, progress=lambda done, total: None)
    assert steps == [(3, 13), (6, 13), (9, 13), (12, 13), (13, 13)]
    assert str(alone.faults[0]) == str(several.faults[0]) and "truncated" in str(alone.faults[0])
    assert np.flatnonzero(~alone.fine_I).tolist() == np.flatnonzero(~several.fine_I).tolist() == [4]
    assert (alone.hashes_I == several.hashes_I).all() and (alone.means_ID == several.means_ID).all()


def test_a_process_that_the_system_ends_is_a_fault_with_a_place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(looks, "AT_ONCE", 2)
    write_folders(tmp_path, {"ant": 6})
    main = os.getpid()
    monkeypatch.setattr(looks, "fingerprint", lambda _: os.getpid() != main and os.kill(os.getpid(), signal.SIGKILL))
    (fault,) = check(tmp_path, "train", processes=2).faults
    assert "ant/000.jpg: a process that decoded it or one of the pictures after it was ended" in str(fault)


ANCHORS = Anchors((32, 64, 128), (0.5, 1.0, 2.0), (16,), 0.5, FixedView(200, 300))
PYRAMID = Anchors((16, 32, 64), (1.0, 2.0), (4, 8, 16), 0.0, FixedView(200, 300))


@pytest.mark.parametrize("anchors", [ANCHORS, PYRAMID], ids=["one map", "pyramid"])
def test_overlap_with_anchors_is_that_of_the_detectors_own(anchors):
    random, (height, width) = np.random.default_rng(1), (200, 296)
    low_K2 = random.uniform(0, (width - 4, height - 4), (400, 2))
    high_K2 = np.minimum(low_K2 + random.uniform(3, 150, (400, 2)), (width, height))
    boxes_K4 = np.concatenate([low_K2, high_K2], axis=1)
    best_K = torch.zeros(400)
    strides = anchors.strides * (3 if len(anchors.strides) == 1 else 1)
    for size, stride in zip(anchors.sizes, strides):
        grid = AnchorGrid(scales=[size], ratios=anchors.ratios, stride=stride, offset=anchors.offset)
        anchors_A4 = grid(-(-height // stride), -(-width // stride), torch.device("cpu"))
        best_K = torch.maximum(best_K, box_iou(torch.tensor(boxes_K4, dtype=torch.float32), anchors_A4).amax(dim=1))
    ours_K = best_iou(boxes_K4, np.tile((height, width), (400, 1)), anchors, anchors.sizes)
    np.testing.assert_allclose(ours_K, best_K.numpy(), atol=1e-5)


def _boxes(folder: Path, sides: list[float]) -> Any:
    random = np.random.default_rng(0)
    objects = []
    for side in sides:
        x, y = random.uniform(0, 640 - side), random.uniform(0, 480 - side)
        objects.append({"bbox": [x, y, side, side], "area": side * side})
    objects.append({"bbox": [0, 0, 640, 480], "iscrowd": 1, "segmentation": {"size": [480, 640], "counts": [307200]}})
    write_coco(folder, {"a.jpg": (480, 640)}, objects)
    write_picture(folder / "a.jpg", 480, 640)
    return open_detection(folder, "json:ann.json")


def test_boxes_are_compared_at_the_recipes_size_and_better_sizes_are_better(tmp_path: Path):
    """Of 200 boxes 90 are too small at half the size for the anchors; crowd regions are not counted."""
    dataset = _boxes(tmp_path, [24.0] * 90 + [130.0] * 110)
    anchors = Anchors((64, 128), (1.0,), (4,), 0.5, FixedView(240, 320))
    found = fit(dataset, anchors)
    assert found is not None and found.boxes_tried == 200 and found.better_sizes
    assert found.box_sides_px["10%"] == pytest.approx(12)
    assert found.unmatched == pytest.approx(0.45) and found.better_unmatched < 0.05
    again = fit(dataset, Anchors(found.better_sizes, (1.0,), (4,), 0.5, FixedView(240, 320)))
    assert again is not None and again.unmatched == found.better_unmatched and again.better_sizes == ()
    words = " ".join(contents_in_words(contents(check(tmp_path, "json:ann.json"), anchors), "my.yaml"))
    assert f"45% of them have no anchor with IoU {MATCH} (sizes 64 128): try --model.anchor-sizes" in words


def test_classes_that_only_one_set_has_and_copies_are_named(tmp_path: Path):
    for split, stems, name in (("trainval", "1234", "dog"), ("test", "56", "cat")):
        write_voc(tmp_path, {stem: [(name, 1, 1, 40, 40, 0)] for stem in stems}, split=split)
    pictures = tmp_path / "VOC2007" / "JPEGImages"
    for stem in "123456":
        cv2.imwrite(str(pictures / f"{stem}.jpg"), rough(2 if stem == "5" else int(stem), 60, 80))
    train, test = (check(tmp_path, f"voc2007/{split}") for split in ("trainval", "test"))
    found = comparison(train, test)
    assert found["near_duplicates"] == [
        {"test": str(pictures / "5.jpg"), "train": str(pictures / "2.jpg"), "likeness": 1.0}
    ]
    words = " ".join(comparison_in_words(found))
    assert "1 picture of voc2007/test like one of voc2007/trainval, so" in words and "5.jpg is 2.jpg" in words
    assert found["only_in_test"] == ["cat"] and found["only_in_train"] == ["dog"] and found["same_files"] == 0
    assert comparison(train, train)["same_files"] == 4 and comparison(train, train)["near_duplicates"] == []
    counted = " ".join(contents_in_words(contents(train)))
    assert "4 images, 4 objects: " in counted and "19 of 20 classes without objects: aeroplane" in counted
    assert "1 of 20 classes with fewer than 10 objects: dog" in counted


def spoilt_coco(root: Path) -> str:
    objects = [
        {"bbox": [1, 2, 30, 40], "area": 1200},
        {"bbox": [5, 5, 0, 9]},
        {"bbox": [60, 40, 60, 60], "area": 3600},  # beyond the edge
        {"bbox": [1, 2, -3, 4]},
        {"image_id": 2, "bbox": [1, 2, 3, 4]},
        {"image_id": 77, "bbox": [1, 2, 3, 4]},
    ]
    write_coco(root, {"a.jpg": (60, 80), "b.jpg": (60, 80)}, objects)
    write_picture(root / "a.jpg", 60, 80, 1)
    (root / "b.jpg").write_bytes(b"")
    return "json:ann.json"


def spoilt_voc(root: Path) -> str:
    good = ("dog", 1, 1, 9, 9, 0)
    folder = write_voc(root, {"1": [good], "2": [good, ("dgo", 1, 1, 9, 9, 0)], "3": [good], "4": [good]})
    (folder / "Annotations" / "3.xml").write_text("<annotation>")
    (folder / "JPEGImages" / "4.jpg").unlink()
    return "voc2007/trainval"


def spoilt_yolo(root: Path) -> str:
    write_text(root / "data.yaml", "train: images/train\nnames: [ant, bee]\n")
    for seed, (stem, label) in enumerate({"a": "0 .5 .5 .2 .2\n7 .5 .5 .2 .2\n", "b": "1 .5 .5 .2 .2\n"}.items()):
        write_picture(root / "images" / "train" / f"{stem}.jpg", 60, 80, seed)
        write_text(root / "labels" / "train" / f"{stem}.txt", label)
    cut = root / "images" / "train" / "b.jpg"
    cut.write_bytes(cut.read_bytes()[:-9])
    return "yolo:data.yaml/train"


def spoilt_classes(root: Path) -> str:
    write_folders(root, {"ant": 3, "bee": 2})
    (root / "train" / "ant" / "001.jpg").write_bytes(b"no picture")
    return "train"


def spoilt_boxes(root: Path) -> str:
    spoilt_classes(root)
    for path in root.glob("train/*/*.jpg"):
        write_xml(path.with_suffix(".xml"), [(path.parent.name, 2, 3, 20, 30)], (48, 64))
    return "loc/train"


@pytest.mark.parametrize(
    ("spoil", "images", "objects"),
    [(spoilt_coco, 1, 2), (spoilt_voc, 2, 2), (spoilt_yolo, 1, 1), (spoilt_classes, 4, None), (spoilt_boxes, 4, 4)],
)
def test_a_set_written_anew_has_no_faults_and_lists_what_is_gone(tmp_path: Path, spoil, images, objects):
    root = tmp_path / "set"
    root.mkdir()
    source = spoil(root)
    before = {path: path.read_bytes() for path in root.rglob("*") if path.is_file()}
    checked = check(root, source)
    assert checked.fatal
    fixed = write_fixed(checked, root, tmp_path / "new", "train")
    assert fixed is not None and fixed.data == tmp_path / "new"
    again = check(fixed.data, fixed.source)
    assert again.faults == [] and again.pictures is not None and len(again.pictures) == images
    assert objects is None or len(again.pictures.labels_K) == objects
    fatal = [str(fault) for fault in checked.faults if fault.fatal]
    assert all(any(sentence in change for change in fixed.sentences) for sentence in fatal), fixed.sentences
    assert before == {path: path.read_bytes() for path in root.rglob("*") if path.is_file()}, "never in place"


def test_boxes_beyond_the_edge_are_clipped_with_their_areas(tmp_path: Path):
    fixed = write_fixed(check(tmp_path, spoilt_coco(tmp_path)), tmp_path, tmp_path / "new", "train")
    assert fixed is not None and "changed: boxes clipped to their images (1)" in fixed.sentences
    value = json.loads((tmp_path / "new" / "annotations" / "instances_train.json").read_text())
    assert [(one["bbox"], one["area"]) for one in value["annotations"]] == [
        ([1, 2, 30, 40], 1200), ([60, 40, 20, 20], 400)
    ]  # fmt: skip


def test_nothing_is_written_where_nothing_can_be_used(tmp_path: Path):
    write_picture(tmp_path / "train" / "ant" / "a.jpg", 9, 9)
    (tmp_path / "train" / "ant" / "a.jpg").write_bytes(b"")
    assert write_fixed(check(tmp_path, "train"), tmp_path, tmp_path / "new", "train") is None
    assert write_fixed(check(tmp_path, "val"), tmp_path, tmp_path / "new", "val") is None
    assert not (tmp_path / "new").exists()
    with pytest.raises(DataError, match="no such directory"):
        open_detection(tmp_path / "new", "json:a.json")


def test_real_copies_between_vocs_years_are_found(shared_data: Path):
    """2007_001458 of VOC 2012 is 001458 of VOC 2007's test set, here with another detector's boxes painted on it."""
    found = comparison(check(shared_data, "voc2012/val"), check(shared_data, "voc2007/test"))
    names = [(Path(one["test"]).stem, Path(one["train"]).stem) for one in found["near_duplicates"]]
    assert len(names) >= 2 and all(train == f"2007_{test}" for test, train in names)


def test_smooth_pictures_of_the_tests_are_told_apart():
    train, test = (printed([picture(60, 80, seed) for seed in range(a, a + 40)]) for a in (0, 50))
    assert near_duplicates(train, test) == []


def spoilt_maps(root: Path) -> str:
    """Six images with maps of three classes, four of them with something wrong, the last class on none."""
    maps = {stem: np.zeros((60, 80), np.uint8) for stem in "abcdef"}
    maps["a"][:30], maps["b"][10], maps["c"][5, 5:8], maps["f"][:] = 1, 255, 9, 255
    maps["d"], maps["e"] = np.zeros((40, 80), np.uint8), np.zeros((60, 80, 3), np.uint8)
    for number, (stem, labels_HW) in enumerate(maps.items()):
        for folder, pixels in (("masks", labels_HW), ("images", rough(number, 60, 80))):
            (root / folder / "train").mkdir(parents=True, exist_ok=True)
            cv2.imwrite(str(root / folder / "train" / f"{stem}.png"), pixels)
    write_text(root / "classes.txt", "road\nlake\nsnow\n")
    return f"maps:{root}/train"


def test_maps_are_counted_and_what_is_wrong_is_named(tmp_path: Path):
    checked = check(tmp_path, spoilt_maps(tmp_path), processes=2)
    faults = {Path(fault.path).stem: fault for fault in checked.faults}
    assert {stem: fault.reason.split(",")[0] for stem, fault in faults.items()} == {
        "c": "has index 9",
        "d": "is 80 x 40 pixels",
        "e": "its pixels are colours",
        "f": "all of its pixels are ignored",
    }
    assert checked.fatal == 3
    survey = checked.survey
    assert survey.pixels_C.tolist() == [2 * 4800 - 2400 - 80, 2400, 0] and survey.images_C.tolist() == [2, 1, 0]
    assert survey.ignored == 80 + 4800
    text = "\n".join(contents_in_words(contents(checked)))
    assert "6 images: road 2, lake 1, snow 0" in text and "1 of 3 classes without images: snow" in text
    assert "pixels (33.9% ignored): road 74.8%, lake 25.2%" in text


def test_a_picture_on_its_side_fits_the_map_that_is_seen(tmp_path: Path):
    from PIL import Image

    exif = Image.Exif()
    exif[0x0112] = 6
    for stem, how in (("a", {"exif": exif}), ("b", {})):
        for folder in ("images", "masks"):
            (tmp_path / folder).mkdir(exist_ok=True)
        Image.fromarray(rough(1, 60, 80)).save(tmp_path / "images" / f"{stem}.jpg", **how)
        Image.fromarray(np.zeros((80, 60), np.uint8)).save(tmp_path / "masks" / f"{stem}.png")
    write_text(tmp_path / "classes.txt", "road\n")
    (fault,) = check(tmp_path, f"maps:{tmp_path}").faults
    assert fault.path.name == "b.png" and fault.reason == "is 60 x 80 pixels, its image b.jpg 80 x 60"


def test_real_maps_have_no_faults(shared_data: Path):
    checked = check(shared_data, "seg/voc2012/val")
    assert checked.faults == [] and checked.survey.images_C[:3].tolist() == [128, 4, 4]
