"""Several sets of maps as one, and COCO's panoptic annotations as semantic maps."""

from __future__ import annotations

import copy
import json
import pickle
from pathlib import Path

import numpy as np
import pytest

from tests.data.test_semantic import write_map, write_own, write_voc_maps
from tests.data.writers import write_picture, write_text
from vertebra.data.datasets.semantic import open_semantic
from vertebra.data.prepare.map_survey import survey_maps
from vertebra.ground.errors import BadSample, DataError

COLOURED = "road 9 9 9\nlake 1 2 3\n"


def write_coloured(root: Path) -> Path:
    """The same classes, whose maps are colours, and pictures with the names of the other set's."""
    write_own(root, classes=COLOURED)
    for number, stem in enumerate("abc"):
        pixels_HW3 = np.full((6, 8, 3), 9, np.uint8)
        pixels_HW3[:, :number] = 1, 2, 3
        write_map(root / "masks" / "train" / f"{stem}.png", pixels_HW3)
    return root


def test_a_union_has_the_images_and_labels_of_its_parts(tmp_path: Path) -> None:
    sources = [f"maps:{write(tmp_path / name)}/train" for name, write in (("a", write_own), ("b/c", write_coloured))]
    parts = [open_semantic(tmp_path, source) for source in sources]
    both = open_semantic(tmp_path, "+".join(sources))
    assert both.class_names == ("road", "lake") and len(both) == 6 and not both.absent()
    wanted = [(part.path(index).resolve(), part.labels(index)) for part in parts for index in range(3)]
    for index, (path, labels_HW) in enumerate(wanted):
        assert both.path(index) == path and np.array_equal(both.labels(index), labels_HW)
    assert len(set(both.image_ids_I.tolist())) == 6, "pictures of one name in two folders are two images"
    assert int(survey_maps(both, processes=1).pixels_C.sum()) == 6 * 48
    some = pickle.loads(pickle.dumps(both.subset([5, 0])))  # as loader processes get it
    assert np.array_equal(some.labels(0), wanted[5][1]) and np.array_equal(some.labels(1), wanted[0][1])
    prints = {one.fingerprint() for one in (both, some, both.subset([4, 0]), *parts)}
    assert len(prints) == 5 and both.fingerprint() == open_semantic(tmp_path, "+".join(sources)).fingerprint()


def test_vocs_parts_unite_with_ones_own(tmp_path: Path) -> None:
    write_voc_maps(tmp_path)
    names = "\n".join(open_semantic(tmp_path, "voc2012/val").class_names)
    own = write_own(tmp_path / "own", classes=names)
    both = open_semantic(tmp_path, f"voc2012/train+voc2012/val+maps:{own}/train")
    assert [both.path(index).stem for index in range(6)] == ["2007_01", "2008_03", "2007_02", "a", "b", "c"]


@pytest.mark.parametrize(
    ("source", "sentence"),
    [
        ("voc2012/train+maps:{own}/train", "voc2012/train and maps:.*/own/train have different classes"),
        ("voc2012/train+voc2012aug/train", r"2 images in it twice .*; unite disjoint sets"),
        ("maps:{own}/train+json:{own}/a.json", "some of its parts have maps, and some masks of instances"),
        ("maps:{own}/train+nowhere/train", "source 'nowhere/train': is not known"),
        ("voc2012/val+voc2012/test", "some of its parts have maps, and some masks of instances or nothing"),
    ],
)
def test_what_cannot_be_united_is_said(tmp_path: Path, source: str, sentence: str) -> None:
    base, own = write_voc_maps(tmp_path), write_own(tmp_path / "own", classes="background\nlake\n")
    write_picture(base / "JPEGImages" / "2008_09.jpg", 6, 8)
    write_text(base / "ImageSets" / "Segmentation" / "test.txt", "2008_09\n")
    write_picture(own / "d.jpg", 6, 8)
    (own / "a.json").write_text(
        json.dumps(
            {
                "images": [{"id": 1, "file_name": "d.jpg", "width": 8, "height": 6}],
                "annotations": [],
                "categories": [{"id": 1, "name": "lake"}],
            }
        )
    )
    with pytest.raises(DataError, match=sentence):
        open_semantic(tmp_path, source.format(own=own))


PANOPTIC = {
    "images": [{"id": 9, "file_name": "000000000009.jpg"}, {"id": 25, "file_name": "000000000025.jpg"}],
    "categories": [{"id": 200, "name": "rug", "isthing": 0}, {"id": 1, "name": "person", "isthing": 1}],
    "annotations": [
        {
            "image_id": 25,
            "file_name": "000000000025.png",
            "segments_info": [{"id": 1, "category_id": 1}, {"id": 2, "category_id": 1, "iscrowd": 1}],
        },
        {
            "image_id": 9,
            "file_name": "000000000009.png",
            "segments_info": [{"id": 70_000, "category_id": 200}, {"id": 1, "category_id": 200}],
        },
    ],
}
IDS = {9: np.array([[70_000, 70_000, 0], [1, 1, 0]]), 25: np.array([[1, 2, 2], [0, 1, 1]])}


def write_panoptic(root: Path, value: object = PANOPTIC) -> Path:
    for number, ids_HW in IDS.items():
        write_picture(root / "train2017" / f"{number:012}.jpg", 2, 3)
        colours_HW3 = np.stack([ids_HW // 256**place % 256 for place in range(3)], axis=2).astype(np.uint8)
        write_map(root / "annotations" / "panoptic_train2017" / f"{number:012}.png", colours_HW3)
    (root / "annotations" / "panoptic_train2017.json").write_text(json.dumps(value))
    return root


def test_a_panoptic_pixel_has_the_category_of_its_segment(tmp_path: Path) -> None:
    dataset = open_semantic(write_panoptic(tmp_path / "coco").parent, "coco_panoptic/train2017")
    assert dataset.class_names == ("person", "rug"), "by ascending id"
    assert dataset.image_ids_I.tolist() == [25, 9]
    categories = {one["id"]: number for number, one in enumerate(sorted(PANOPTIC["categories"], key=lambda c: c["id"]))}
    for index, annotation in enumerate(PANOPTIC["annotations"]):
        label_of = {one["id"]: categories[one["category_id"]] for one in annotation["segments_info"]}
        wanted = [[label_of.get(number, 255) for number in row] for row in IDS[annotation["image_id"]].tolist()]
        assert dataset.labels(index).tolist() == wanted
    assert dataset.subset([1]).labels(0).tolist() == dataset.labels(1).tolist()
    other = copy.deepcopy(PANOPTIC)
    other["annotations"][0]["segments_info"][1]["category_id"] = 200
    assert open_semantic(write_panoptic(tmp_path / "b", other), "coco_panoptic/train2017").fingerprint() != (
        dataset.fingerprint()
    )


def changed(place: str, value: object) -> dict:
    """The annotations with another value at a place such as annotations.0.file_name; None: without it."""
    whole = copy.deepcopy(PANOPTIC)
    *inner, last = place.split(".")
    at = whole
    for part in inner:
        at = at[int(part)] if part.isdigit() else at[part]
    if value is None:
        del at[last]
    else:
        at[last] = value
    return whole


@pytest.mark.parametrize(
    ("value", "sentence"),
    [
        (changed("categories.0.name", None), "a category lacks its id or its name"),
        (changed("categories.0.name", "person"), "names no category, or one twice"),
        (changed("categories", []), "names no category, or one twice"),
        (changed("annotations", None), "has no list `annotations`"),
        (
            changed("annotations.1.segments_info", None),
            r"annotation 1 \(.*\) is none of COCO's panoptic form",
        ),
        (
            changed("annotations.0.segments_info.0.category_id", 7),
            "its segment 1 has the category 7, which",
        ),
        (changed("annotations.0.segments_info.0.id", 1 << 24), "the segment id 16777216 is no colour"),
        (changed("annotations.0.file_name", "x.png"), "its image x is not there"),
    ],
)
def test_wrong_panoptic_annotations_are_named(tmp_path: Path, value: dict, sentence: str) -> None:
    with pytest.raises(DataError, match=sentence):
        open_semantic(write_panoptic(tmp_path, value), "coco_panoptic/train2017")


def test_panoptic_files_that_are_not_there_are_missed(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"no annotations/panoptic_train2017.json in it"):
        open_semantic(tmp_path, "coco_panoptic/train2017")
    maps = write_panoptic(tmp_path) / "annotations" / "panoptic_train2017"
    write_map(maps / "000000000025.png", np.full((2, 3, 3), 5, np.uint8))
    with pytest.raises(BadSample, match=r"000000000025.png: has colour 5 5 5, in 6 of its pixels"):
        open_semantic(tmp_path, "coco_panoptic/train2017").labels(0)
    (maps / "000000000009.png").unlink()
    with pytest.raises(DataError, match=r"000000000009.jpg: has no map"):
        open_semantic(tmp_path, "coco_panoptic/train2017")
    maps.rename(tmp_path / "elsewhere")
    with pytest.raises(DataError, match="no such folder of maps"):
        open_semantic(tmp_path, "coco_panoptic/train2017")
