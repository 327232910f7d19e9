"""ImageNet DET in its owner's layout: lists of each class, negatives, wnids, subsets."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.data.writers import records, write_picture, write_text
from vertebra.data.datasets.catalog import find_sources, open_detection
from vertebra.data.prepare.check import check
from vertebra.ground.errors import DataError

ANT, BEE = "n02219486", "n02206856"
BOX = "<bndbox><xmax>20</xmax><xmin>11</xmin><ymax>30</ymax><ymin>6</ymin></bndbox>"
SIZE = "<size><width>80</width><height>60</height></size>"
TRAIN = {
    f"ILSVRC2013_train/{ANT}/{ANT}_7": [ANT],
    "ILSVRC2014_train_0000/ILSVRC2014_train_00000001": [BEE, ANT],
    "ILSVRC2013_train_extra0/ILSVRC2013_train_00000005": None,
}


def write(home: Path, split: str, images: dict[str, list[str] | None]) -> None:
    """Images in folders; XML where there is a list of wnids."""
    for seed, (stem, wnids) in enumerate(images.items()):
        write_picture(home / "Data" / "DET" / split / f"{stem}.JPEG", 60, 80, seed)
        if wnids is not None:
            objects = "".join(f"<object><name>{w}</name>{BOX}<subcategory>x</subcategory></object>" for w in wnids)
            xml = f"<annotation><filename>{stem}</filename>{SIZE}{objects}</annotation>"
            write_text(home / "Annotations" / "DET" / split / f"{stem}.xml", xml)


@pytest.fixture
def det(tmp_path: Path) -> Path:
    """A small ILSVRC: three training images, two for validation, one for test; returns the folder above it."""
    home = tmp_path / "ILSVRC"
    write(home, "train", TRAIN)
    write(home, "val", {"ILSVRC2012_val_00000001": [BEE], "ILSVRC2012_val_00000002": None})
    write(home, "test", {"ILSVRC2012_test_00000001": None})
    lists = home / "ImageSets" / "DET"
    ant, both, extra = TRAIN
    write_text(lists / "train_1.txt", f"{ant} 1\n{both} 0\n{extra} -1\n")
    write_text(lists / "train_2.txt", f"{both} 1\n{ant} -1\n")
    write_text(lists / "val.txt", "ILSVRC2012_val_00000001 1\nILSVRC2012_val_00000002 2\n")
    write_text(lists / "test.txt", "ILSVRC2012_test_00000001 1\n")
    return tmp_path


def test_training_unites_the_lists_of_all_classes_and_keeps_negatives(det: Path):
    dataset = open_detection(det, "imagenet_det/train")
    assert dataset.class_names == (BEE, ANT), "sorted wnids"
    assert list(dataset.file_names) == [f"Data/DET/train/{stem}.JPEG" for stem in TRAIN]
    assert [record.labels_G.tolist() for record in records(dataset)] == [[2], [1, 2], []]
    assert records(dataset)[0].boxes_G4.tolist() == [[10, 5, 20, 30]] and dataset.notes == ()
    assert all(record.path.is_file() for record in records(dataset))
    assert len(set(dataset.image_ids_I.tolist())) == 3 and dataset.sizes_hw_I2.tolist() == [[60, 80]] * 3
    assert check(det, "imagenet_det/train").faults == []


def test_splits_have_the_same_classes_and_the_owner_is_read_from_any_place(det: Path):
    val = open_detection(det, "imagenet_det/val")
    assert val.class_names == (BEE, ANT) and [len(record.labels_G) for record in records(val)] == [1, 0]
    assert open_detection(det / "ILSVRC", "imagenet_det/val").fingerprint() == val.fingerprint()
    assert find_sources(det) == ("imagenet_det/test", "imagenet_det/train", "imagenet_det/val")


def test_the_devkits_list_gives_names_and_numbers(det: Path):
    path = det / "ILSVRC" / "devkit" / "data" / "map_det.txt"
    write_text(path, f"{ANT} 3 ant\n{BEE} 17 honey bee\n")
    dataset = open_detection(det, "imagenet_det/val")
    assert dataset.class_names == ("ant", "honey bee") and dataset.category_ids == (3, 17)
    assert dataset.supercategories == (ANT, BEE) and dataset.labels_K.tolist() == [2]
    path.write_text(f"{ANT} 3 ant\n")
    with pytest.raises(DataError, match=rf"val_00000001\.xml: has an object '{BEE}', which is not one of the 1"):
        open_detection(det, "imagenet_det/val")
    path.write_text("ant\n")
    with pytest.raises(DataError, match=r"map_det\.txt: is not the devkit's list of classes; its lines are"):
        open_detection(det, "imagenet_det/val")


def test_test_images_have_no_truth(det: Path):
    dataset = open_detection(det, "imagenet_det/test")
    assert not dataset.labelled and len(dataset) == 1 and "nothing to score against" in dataset.notes[0]


def test_a_subset_of_training_is_what_there_is_of_it(det: Path):
    stem = next(iter(TRAIN))
    (det / "ILSVRC" / "Data" / "DET" / "train" / f"{stem}.JPEG").unlink()
    (det / "ILSVRC" / "Annotations" / "DET" / "train" / f"{stem}.xml").unlink()
    dataset = open_detection(det, "imagenet_det/train")
    assert len(dataset) == 2
    assert "neither this image nor its XML is there, but train lists it; it is left out" in dataset.notes[0]
    for path in (det / "ILSVRC" / "ImageSets" / "DET").glob("train_*.txt"):
        path.unlink()
    assert len(open_detection(det, "imagenet_det/train")) == 2, "without lists, the images that are there"


def test_a_positive_without_xml_is_said(det: Path):
    (det / "ILSVRC" / "Annotations" / "DET" / "train" / f"{next(iter(TRAIN))}.xml").unlink()
    dataset = open_detection(det, "imagenet_det/train")
    said = "is listed as having objects, but has no XML and was taken as without; restore it"
    assert len(dataset) == 3 and said in dataset.notes[0]


def test_what_is_missing_is_named(det: Path, tmp_path: Path):
    (det / "ILSVRC" / "Data" / "DET" / "val" / "ILSVRC2012_val_00000002.JPEG").unlink()
    with pytest.raises(DataError, match=r"val_00000002\.JPEG: neither this image nor its XML is there, but val lists"):
        open_detection(det, "imagenet_det/val")
    write_text(det / "ILSVRC" / "ImageSets" / "DET" / "odd.txt", f"{'x' * 500}\n../z\n../../y\n")
    with pytest.raises(DataError, match="holds none of the 3 images of odd"):
        open_detection(det, "imagenet_det/odd")
    with pytest.raises(DataError, match=r"trainx\.txt: no such list; the folder has odd, test, train_1, train_2, val"):
        open_detection(det, "imagenet_det/trainx")
    with pytest.raises(DataError, match=r"no ILSVRC/Data/DET in it; unpack ILSVRC2017_DET\.tar\.gz there"):
        open_detection(det / "ILSVRC" / "Data", "imagenet_det/val")
