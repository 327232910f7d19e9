"""Images with a class and its boxes: layouts, what is left out, what is refused; crops and views in step with boxes."""

from __future__ import annotations

import csv
import xml.etree.ElementTree as ET
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import torch

from tests.data.batches import assert_forks_and_resumes, assert_processes_share, extent
from tests.data.writers import write_picture, write_text, write_xml
from vertebra.data.datasets.localisation import open_localisation
from vertebra.data.loading.localisation import TrainView, localisation_test_loader, localisation_train_loader
from vertebra.data.loading.sampling import Share
from vertebra.data.loading.views import Crops, Whole
from vertebra.data.prepare.check import check
from vertebra.data.sample.locations import write_locations
from vertebra.ground.errors import DataError

Object = tuple[str, int, int, int, int]
Change = Callable[[Path], Any]
PICTURE_HW = (60, 80)


def write_ilsvrc(root: Path) -> Path:
    """Two classes, three training images (one without annotation), two of val. Returns the folder ILSVRC."""
    base = root / "ILSVRC"
    data, annotations = base / "Data" / "CLS-LOC", base / "Annotations" / "CLS-LOC"
    for stem in ("n01/n01_1", "n02/n02_5", "n02/n02_7"):
        write_picture(data / "train" / f"{stem}.JPEG", *PICTURE_HW)
    write_xml(annotations / "train" / "n01" / "n01_1.xml", [("n01", 1, 1, 80, 60), ("n02", 3, 3, 9, 9)])
    write_xml(annotations / "train" / "n02" / "n02_5.xml", [("n02", 11, 21, 30, 50), ("n02", 5, 5, 8, 9)])
    for stem, name in (("ILSVRC2012_val_00000001", "n02"), ("ILSVRC2012_val_00000002", "n01")):
        write_picture(data / "val" / f"{stem}.JPEG", *PICTURE_HW)
        write_xml(annotations / "val" / f"{stem}.xml", [(name, 2, 3, 40, 50)])
    return base


def as_lists(dataset) -> list[tuple[str, str, list[list[float]]]]:
    return [
        (
            Path(dataset.images.file_names[place]).stem,
            dataset.class_names[dataset.images.labels_I[place]],
            dataset.objects.boxes_G4(place).tolist(),
        )
        for place in range(len(dataset))
    ]


TRAIN = [
    ("n01_1", "n01", [[0.0, 0.0, 80.0, 60.0]]),
    ("n02_5", "n02", [[10.0, 20.0, 30.0, 50.0], [4.0, 4.0, 8.0, 9.0]]),
]
VAL = [(f"ILSVRC2012_val_0000000{n}", name, [[1.0, 2.0, 40.0, 50.0]]) for n, name in ((1, "n02"), (2, "n01"))]


def test_the_challenges_layout_gives_the_boxes_of_each_images_own_class(tmp_path: Path) -> None:
    base = write_ilsvrc(tmp_path)
    for root in (tmp_path, base):
        train, val = (open_localisation(root, split) for split in ("train", "val"))
        assert as_lists(train) == TRAIN and as_lists(val) == VAL
        assert "images without a box of their class are left out: 1 of 3" in train.notes[0] and not val.notes
        assert train.objects.labels_K.tolist() == [1, 2, 2]
        assert train.boxes_K4().tolist() == [box for _, _, boxes in TRAIN for box in boxes]


def test_kaggles_lists_give_the_same_where_the_xml_is_absent(tmp_path: Path) -> None:
    base = write_ilsvrc(tmp_path)
    expected = {split: open_localisation(tmp_path, split) for split in ("train", "val")}
    for split in ("train", "val"):
        with open(tmp_path / f"LOC_{split}_solution.csv", "w", newline="") as file:
            lines = csv.writer(file)
            lines.writerow(["ImageId", "PredictionString"])
            for path in sorted((base / "Annotations" / "CLS-LOC" / split).rglob("*.xml")):
                words = []
                for one in ET.parse(path).iter("object"):
                    corners = [one.findtext(f"bndbox/{name}") for name in ("xmin", "ymin", "xmax", "ymax")]
                    words += [one.findtext("name"), *corners]
                lines.writerow([path.stem, " ".join(words) + " "])
    (base / "Annotations").rename(tmp_path / "elsewhere")
    for split in ("train", "val"):
        found = open_localisation(tmp_path, split)
        assert as_lists(found) == as_lists(expected[split]) and found.fingerprint() == expected[split].fingerprint()


def sort_val_into_classes(base: Path) -> None:
    val = base / "Data" / "CLS-LOC" / "val"
    for stem, name, _ in VAL:
        (val / name).mkdir()
        (val / f"{stem}.JPEG").rename(val / name / f"{stem}.JPEG")


def name_classes_by_mapping_alone(base: Path) -> None:
    (base / "Data" / "CLS-LOC" / "train").rename(base / "elsewhere")
    write_text(base.parent / "LOC_synset_mapping.txt", "n02 tench, Tinca tinca\nn01 goldfish\n")


@pytest.mark.parametrize(
    ("change", "split", "expected"),
    [
        (sort_val_into_classes, "val", VAL[::-1]),
        (name_classes_by_mapping_alone, "val", VAL),
        (lambda base: write_text(base / "ImageSets/CLS-LOC/train_loc.txt", "n02/n02_5 1\n"), "train", TRAIN[1:]),
    ],
)
def test_variants_of_the_challenges_layout_are_read(tmp_path: Path, change, split: str, expected: list) -> None:
    change(write_ilsvrc(tmp_path))
    assert as_lists(open_localisation(tmp_path, split)) == expected


def write_plain(root: Path, objects: list[Object]) -> Path:
    """Two images of ants, each with these objects."""
    for stem in ("a", "b"):
        write_picture(root / "train" / "ant" / f"{stem}.jpg", *PICTURE_HW)
        write_xml(root / "train" / "ant" / f"{stem}.xml", objects)
    return root


def test_images_whose_boxes_have_no_area_are_left_out(tmp_path: Path) -> None:
    write_plain(tmp_path, [("ant", 5, 5, 20, 20)])
    write_xml(tmp_path / "train" / "ant" / "a.xml", [("ant", 6, 5, 5, 20)])  # no pixel wide
    dataset = open_localisation(tmp_path, "train")
    assert [stem for stem, _, _ in as_lists(dataset)] == ["b"] and len(dataset.notes) == 2


def challenge(change: Change) -> Change:
    return lambda root: change(write_ilsvrc(root))


def val_objects(*objects: Object) -> Change:
    path = "Annotations/CLS-LOC/val/ILSVRC2012_val_00000001.xml"
    return challenge(lambda base: write_xml(base / path, list(objects)))


def val_lists(content: str) -> Change:
    """Kaggle's list in the place of the XML; none where it is empty."""

    def change(base: Path) -> None:
        (base / "Annotations").rename(base / "elsewhere")
        if content:
            write_text(base / "LOC_val_solution.csv", content)

    return challenge(change)


def plain(objects: list[Object], content: str | None = None) -> Change:
    """Folders of a class with these objects; content replaces the first XML, and no XML is left where it is empty."""

    def change(root: Path) -> None:
        folder = write_plain(root, objects) / "train" / "ant"
        if content:
            (folder / "a.xml").write_text(content)
        for path in folder.glob("*.xml") if content == "" else ():
            path.unlink()

    return change


@pytest.mark.parametrize(
    ("change", "split", "sentence"),
    [
        (val_objects(("n01", 1, 1, 9, 9), ("n02", 1, 1, 9, 9)), "val", "00000001.JPEG: has objects of n01 and n02"),
        (val_objects(("n77", 1, 1, 9, 9)), "val", "00000001.JPEG: has the unknown class n77"),
        (challenge(lambda base: write_text(base / "ImageSets/CLS-LOC/train_loc.txt", "n02/n02_5 1\nn02/n02_6 2\n")),
         "train", r"train_loc.txt: lists 1 image absent from .*, such as n02_6"),
        (challenge(lambda base: (base / "Data/CLS-LOC/train").rename(base / "elsewhere")), "val",
         "LOC_synset_mapping.txt"),
        (val_lists(""), "val", "no LOC_val_solution.csv"),
        (val_lists("Id,Boxes\nILSVRC2012_val_00000001,n02 1 2 3\n"), "val", "LOC_val_solution.csv: line 2 is not"),
        (plain([("ant", 200, 5, 220, 20)]), "train", "a.jpg: its annotation has a box wholly outside"),
        (plain([("ant", 5, 5, 20, 20)], "<annotation>"), "train", "a.xml: does not parse as VOC XML"),
        (plain([("bee", 1, 1, 9, 9)]), "train", "no image has a box of its own class; give objects the names"),
        (plain([], ""), "train", "none of its images .2. has an annotation; put an XML file beside each"),
    ],
)  # fmt: skip
def test_mistakes_are_named(tmp_path: Path, change: Change, split: str, sentence: str) -> None:
    change(tmp_path)
    with pytest.raises(DataError, match=sentence):
        open_localisation(tmp_path, split)


def test_check_lists_all_faults_of_boxes_and_images_in_one_pass(tmp_path: Path) -> None:
    annotations = write_ilsvrc(tmp_path) / "Annotations" / "CLS-LOC"
    for split in ("train", "val"):
        assert check(tmp_path, f"loc/{split}").faults == []
    write_xml(annotations / "val" / "ILSVRC2012_val_00000001.xml", [("n01", 99, 1, 110, 9)])
    (annotations / "train" / "n01" / "n01_1.xml").write_text("<no")
    write_xml(annotations / "train" / "n02" / "n02_5.xml", [("n02", 1, 1, 9, 9)], (70, 80))
    train, val = (check(tmp_path, f"loc/{split}").faults for split in ("train", "val"))
    assert "does not parse" in train[0].reason and "its annotation says 80 x 70" in train[1].reason and len(train) == 2
    assert "wholly outside" in val[0].reason and len(val) == 1
    assert "nowhere: no such" in str(check(tmp_path / "nowhere", "loc/val").faults[0])


def test_the_sample_set_is_the_same_in_both_layouts(tmp_path: Path) -> None:
    for layout in ("folders", "ilsvrc"):
        write_locations(tmp_path / layout, counts=(20, 10), layout=layout)
    for split, count in (("train", 20), ("val", 10)):
        folders, ilsvrc = (open_localisation(tmp_path / layout, split) for layout in ("folders", "ilsvrc"))
        assert len(folders) == len(ilsvrc) == count and len(folders.class_names) == 10
        found = [sorted((name, boxes) for _, name, boxes in as_lists(one)) for one in (folders, ilsvrc)]
        assert found[0] == found[1]
    with pytest.raises(DataError, match="is there already"):
        write_locations(tmp_path / "folders", counts=(20, 10))


RED_HW, RED = (240, 300), (60, 100, 130, 200)  # x0 y0 x1 y1 of what is red


@pytest.fixture
def red(tmp_path: Path) -> Path:
    """Eight images of one class, grey with a red box."""
    pixels = np.full((*RED_HW, 3), 128, np.uint8)
    x0, y0, x1, y1 = RED
    pixels[y0:y1, x0:x1] = (0, 0, 255)  # OpenCV writes BGR
    for number in range(8):
        path = tmp_path / "train" / "red" / f"{number}.png"
        write_xml(path.with_suffix(".xml"), [("red", x0 + 1, y0 + 1, x1, y1)], RED_HW)
        cv2.imwrite(str(path), pixels)
    return tmp_path


def red_box(pixels_3HW: torch.Tensor) -> list[int]:
    return extent(pixels_3HW[0].int() - pixels_3HW[1].int() > 127).tolist()


@pytest.mark.parametrize("augment", ["scale", "crop", "none"])
@pytest.mark.parametrize("size", [64, 24])  # the latter from images decoded at a fraction of their size
def test_boxes_follow_their_pixels_through_crop_and_mirror(red: Path, augment: str, size: int) -> None:
    dataset = open_localisation(red, "train")
    view = TrainView(size=size, shorter=size, augment=augment, flip=0.5)
    flipped = set()
    for batch in localisation_train_loader(dataset, view, Share(batch=8, stop=4, seed=1)):
        images, targets, classes = batch.inputs
        assert images.pixels_N3HW.shape == (8, 3, size, size) and classes.tolist() == [0] * 8
        assert targets.valid_NG[:, 0].all() and not targets.valid_NG[:, 1:].any()
        for n in range(8):
            box = targets.boxes_NG4[n, 0]
            if targets.ignore_NG[n, 0]:
                continue
            found = red_box(images.pixels_N3HW[n])
            assert np.abs(np.array(found) - box.numpy()).max() <= 1.01, (found, box)
            flipped.add(bool(box[0] + box[2] > size))
    assert flipped == {False, True}


def test_draws_follow_from_iteration_and_image_whatever_the_processes(red: Path) -> None:
    dataset = open_localisation(red, "train")
    view = TrainView(size=32, shorter=40)

    def make(**share):
        return localisation_train_loader(dataset, view, Share(batch=4, seed=3, **share))

    assert_forks_and_resumes(make, start=2, stop=3)
    assert_processes_share(make, stop=3)


def test_a_box_that_a_crop_hides_for_the_most_part_is_ignored(red: Path) -> None:
    dataset = open_localisation(red, "train")
    rng = np.random.default_rng(0)
    boxes_G4 = np.array([[0, 0, 300, 240.0]], np.float32)  # never half in a crop of a quarter of the area
    view = TrainView(size=32, shorter=64, augment="none", min_visible=0.5)
    crop = view.draw_showing(boxes_G4, 240, 300, rng)
    assert (crop.height, crop.width) == (120, 120) and (crop.top, crop.left) == (60, 90)
    (batch,) = localisation_train_loader(dataset, view, Share(batch=8, stop=1))
    targets = batch.inputs[1]
    # of the red box's 70 x 100 px the crop shows 40 x 80
    assert targets.valid_NG[:, 0].all() and targets.ignore_NG[:, 0].all()


def test_views_at_test_know_where_they_lie_on_disk(red: Path) -> None:
    dataset = open_localisation(red, "train")
    views = (Crops(56, 64), Whole(64), Whole(120))
    seen = 0
    for batch in localisation_test_loader(dataset, views, Share(batch=3)):
        placed, classes = batch.inputs
        assert len(placed) == len(classes) == len(batch.image_ids)
        assert placed.sizes_hw_N2.tolist() == [list(RED_HW)] * len(placed)
        for groups in placed.groups:
            assert sorted(row for group in groups for row in group.rows_n.tolist()) == list(range(len(placed)))
            for group in groups:
                for pixels_3HW, (x, y, x_span, y_span) in zip(group.pixels_n3HW, group.place_n4.tolist()):
                    on_disk = np.array(red_box(pixels_3HW)) * ([x_span, y_span] * 2) + ([x, y] * 2)
                    assert np.abs(on_disk - RED).max() <= max(x_span, y_span)
                    seen += 1
    assert seen == 8 * 3


def test_an_image_of_another_size_than_its_annotation_is_named(red: Path) -> None:
    write_xml(red / "train" / "red" / "3.xml", [("red", 1, 1, 20, 20)], (100, 100))
    dataset = open_localisation(red, "train")
    with pytest.raises(DataError, match=r"3.png: is 300 x 240 pixels, its annotation says 100 x 100"):
        list(localisation_test_loader(dataset, [Whole(64)], Share(batch=8)))
    loader = localisation_train_loader(dataset, TrainView(size=32, shorter=32), Share(batch=8, stop=1))
    assert any("3.png" in name for name in next(iter(loader)).skipped)
