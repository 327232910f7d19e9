"""VOC XML: corners, flags, unions, classes, and what is refused in which words."""

from collections import Counter
from pathlib import Path

import numpy as np
import pytest

from tests.data.writers import records, write_voc
from vertebra.data.datasets.catalog import open_detection
from vertebra.data.datasets.voc import CLASS_NAMES
from vertebra.data.datasets.xml_sets import image_id
from vertebra.ground.errors import DataError
from vertebra.ground.rules import flag

DOG = ("dog", 48, 20, 70, 31, 0)
CAT = ("cat", 1, 1, 80, 60, 1)


def test_inclusive_corners_from_one_become_edges_from_zero(tmp_path: Path):
    write_voc(tmp_path / "VOCdevkit", {"000001": [DOG, CAT]})
    (record,) = records(open_detection(tmp_path, "voc2007/trainval"))
    assert record.boxes_G4.tolist() == [[47, 19, 70, 31], [0, 0, 80, 60]]
    assert record.labels_G.tolist() == [CLASS_NAMES.index("dog") + 1, CLASS_NAMES.index("cat") + 1]
    assert record.difficult_G.tolist() == [False, True] and not record.crowd_G.any()
    assert record.areas_G.tolist() == [23 * 12, 80 * 60]
    assert record.image_id == 1 and record.path.is_file()


def test_difficult_is_its_own_field_in_the_truth_and_never_crowd(tmp_path: Path):
    write_voc(tmp_path, {"000001": [CAT]})
    (annotation,) = open_detection(tmp_path, "voc2007/trainval").coco_truth()["annotations"]
    assert annotation["difficult"] == 1 and annotation["iscrowd"] == 0 and annotation["bbox"] == [0, 0, 80, 60]


def test_the_devkit_is_found_from_wherever_the_user_points(tmp_path: Path):
    folder = write_voc(tmp_path / "data" / "VOCdevkit", {"000001": [DOG]})
    roots = [tmp_path / "data", tmp_path / "data" / "VOCdevkit", folder, tmp_path]
    prints = {open_detection(root, "voc2007/trainval").fingerprint() for root in roots}
    assert len(prints) == 1


def test_a_union_has_unique_ids_over_the_years(tmp_path: Path):
    write_voc(tmp_path, {"000027": [DOG], "000028": []})
    write_voc(tmp_path, {"2007_000027": [CAT]}, year="2012")
    dataset = open_detection(tmp_path, "voc2007/trainval+voc2012/trainval")
    assert [record.image_id for record in records(dataset)] == [27, 28, 2007000027]
    assert [len(record.labels_G) for record in records(dataset)] == [1, 0, 1]
    names = [one["file_name"] for one in dataset.coco_truth()["images"]]
    assert names == [f"VOC{year}/JPEGImages/{stem}.jpg" for year, stem in (
        (2007, "000027"), (2007, "000028"), (2012, "2007_000027"))]  # fmt: skip
    assert all((dataset.root / name).is_file() for name in names)
    with pytest.raises(DataError, match="2 images in it twice"):
        open_detection(tmp_path, "voc2007/trainval+voc2007/trainval")


def test_a_set_with_none_of_vocs_classes_has_its_own_the_same_in_every_split(tmp_path: Path):
    folder = write_voc(tmp_path, {"1": [("star", 1, 1, 9, 9, 0)], "2": [("arrow", 1, 1, 9, 9, 0)]})
    (folder / "ImageSets" / "Main" / "val.txt").write_text("1\n")
    dataset = open_detection(tmp_path, "voc2007/val")
    assert dataset.class_names == ("arrow", "star") and dataset.labels_K.tolist() == [2]


def test_names_without_digits_get_ids_of_their_own():
    assert image_id("holiday") == image_id("holiday") != image_id("holidays")
    assert 0 <= image_id("holiday") < 2**48
    assert image_id("COCO_val2014_000000000042") == 42


def test_a_year_that_is_not_there_is_named_with_the_command_that_brings_it(tmp_path: Path):
    with pytest.raises(DataError, match=r"no VOC2007 in it nor in its VOCdevkit; unpack .*prepare_data.py voc07"):
        open_detection(tmp_path, "voc2007/trainval")


def test_the_real_sets_have_their_known_counts(shared_data: Path):
    counts = {"train": 631, "val": 235, "trainval": 866}
    for split, count in counts.items():
        assert len(open_detection(shared_data, f"voc2012/{split}")) == count
    test = open_detection(shared_data, "voc2007/test")
    assert len(test) == 200 and test.class_names == tuple(CLASS_NAMES)
    first = records(test)[0]  # 000001.jpg, whose XML says dog 48 240 195 371 and person 8 12 352 498
    assert first.boxes_G4.tolist() == [[47, 239, 195, 371], [7, 11, 352, 498]]
    per_class = Counter(test.labels_K.tolist())
    official = {
        path.stem.removesuffix("_test"): sum(
            line.split()[1] != "-1" for line in path.read_text().splitlines() if len(line.split()) == 2
        )
        for path in (shared_data / "VOCdevkit/VOC2007/ImageSets/Main").glob("*_test.txt")
    }
    images_with = {
        name: sum(bool((record.labels_G == label + 1).any()) for record in records(test))
        for label, name in enumerate(CLASS_NAMES)
    }
    assert official and all(images_with[name] == count for name, count in official.items())
    assert sum(per_class.values()) == len(test.labels_K)
    assert np.isfinite(test.bbox_xywh_K4).all()


@pytest.mark.parametrize(
    ("text", "difficult"), [("0", False), ("1", True), ("False", False), ("true", True), (" no ", False), ("", False)]
)
def test_the_flag_of_an_xml_is_read_by_its_meaning(text: str, difficult: bool):
    assert flag("difficult", text) == difficult


def test_a_flag_of_no_meaning_is_refused(tmp_path: Path):
    folder = write_voc(tmp_path, {"1": [("dog", 1, 1, 9, 9, 0)]})
    xml = folder / "Annotations" / "1.xml"
    xml.write_text(xml.read_text().replace("<difficult>0", "<difficult>2"))
    with pytest.raises(DataError, match=r"1\.xml: does not parse as VOC XML \(difficult '2' is neither 0 nor 1\)"):
        open_detection(tmp_path, "voc2007/trainval")
