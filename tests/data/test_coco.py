"""COCO JSON: what is read, what is fixed, what is refused and in which words."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.data.writers import records, write_text
from vertebra.data.datasets.catalog import find_sources, open_detection
from vertebra.data.prepare.check import check
from vertebra.ground.errors import DataError
from vertebra.recipes.schema import DETECTION_SETS

Write = Callable[..., Path]


def opened(path: Path):
    return open_detection(path.parent, f"json:{path.name}")


def test_labels_follow_ascending_category_ids_and_map_back(coco_set: Write):
    dataset = opened(coco_set())
    assert dataset.class_names == ("bird", "cat") and dataset.category_ids == (3, 7)
    assert [record.image_id for record in records(dataset)] == [11, 5]
    first, second = records(dataset)
    assert first.labels_G.tolist() == [1] and first.crowd_G.tolist() == [True]
    assert second.labels_G.tolist() == [2, 1]
    np.testing.assert_allclose(second.boxes_G4, [[10.5, 20.25, 40.625, 60.25], [1, 2, 4, 6]])
    assert second.boxes_G4.dtype == np.float32 and second.areas_G.tolist() == [99.5, 12]
    assert (first.width, first.height) == (80, 60) and first.path.is_file()
    assert dataset.notes == ()


def test_the_truth_is_the_files_own_and_reads_back_the_same(coco_set: Write, tmp_path: Path):
    path = coco_set()
    dataset = opened(path)
    truth, written = dataset.coco_truth(), json.loads(path.read_text())
    by_id = {one["id"]: one for one in truth["annotations"]}
    for one in written["annotations"]:
        assert {key: by_id[one["id"]][key] for key in one} == one
    assert [one["file_name"] for one in truth["images"]] == ["a.jpg", "b.jpg"]
    write_text(tmp_path / "again.json", json.dumps(truth))
    again = opened(tmp_path / "again.json")
    assert again.coco_truth() == truth and again.fingerprint() == dataset.fingerprint()


def test_pycocotools_reads_the_truth(coco_set: Write, tmp_path: Path, capsys: Any):
    from pycocotools.coco import COCO

    (tmp_path / "truth.json").write_text(json.dumps(opened(coco_set()).coco_truth()))
    truth = COCO(str(tmp_path / "truth.json"))
    assert truth.annToMask(truth.loadAnns([2])[0]).sum() == 600
    assert truth.annToMask(truth.loadAnns([1])[0]).shape == (80, 60)


def test_the_fingerprint_changes_with_a_box_and_not_with_the_place_or_the_masks(coco_set: Write, tmp_path: Path):
    path = coco_set()
    before = opened(path).fingerprint()
    moved = tmp_path / "elsewhere"
    moved.mkdir()
    (moved / "ann.json").write_bytes(path.read_bytes())
    (tmp_path / "images").rename(moved / "images")
    assert opened(moved / "ann.json").fingerprint() == before
    assert open_detection(moved, "json:ann.json", segmentations=False).fingerprint() == before
    changed = json.loads((moved / "ann.json").read_text())
    changed["annotations"][0]["bbox"][0] += 0.5
    (moved / "ann.json").write_text(json.dumps(changed))
    assert opened(moved / "ann.json").fingerprint() != before


def bbox(*numbers: Any) -> Callable[[dict[str, Any]], None]:
    return lambda value: value["annotations"][0].__setitem__("bbox", list(numbers))


def test_zero_size_boxes_are_left_out_and_said_once(coco_set: Write):
    dataset = opened(coco_set(bbox(3, 4, 0, 10)))
    assert len(dataset.labels_K) == 2
    (note,) = dataset.notes
    assert "1 boxes of zero size were left out, such as: annotation 1 of image 5 has a box of zero size" in note


def test_boxes_beyond_the_edge_are_clipped_where_used_and_whole_in_the_truth(coco_set: Write):
    dataset = opened(coco_set(bbox(-5, 20, 100, 40)))
    assert records(dataset)[1].boxes_G4[0].tolist() == [0, 20, 60, 60]
    assert dataset.coco_truth()["annotations"][1]["bbox"] == [-5, 20, 100, 40]
    assert "1 boxes beyond the edge were clipped" in dataset.notes[0]


def test_missing_optional_fields_get_their_natural_values(coco_set: Write):
    def bare(value: dict[str, Any]) -> None:
        value["annotations"] = [{"image_id": 5, "category_id": 7, "bbox": [1, 2, 3, 4]}] * 2

    dataset = opened(coco_set(bare))
    assert dataset.areas_K.tolist() == [12, 12] and dataset.annotation_ids_K.tolist() == [1, 2]
    assert not dataset.crowd_K.any() and dataset.segmentations is None
    assert "numbered anew" in dataset.notes[0]
    assert len(records(dataset)[0].boxes_G4) == 0  # an image without objects stays


def negative_sizes(value: dict[str, Any]) -> None:
    for one in value["annotations"]:
        one["bbox"][2] = -1


def put(key: str, place: int, **fields: Any) -> Callable[[dict[str, Any]], None]:
    return lambda value: value[key][place].update(fields)


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        (bbox(1, 2, -3, 4), r"annotation 1 of image 5 has a box of negative size .*boxes are x, y, width, height"),
        (bbox(1, 2, float("nan"), 4), r"annotation 1 of image 5 has a box that is not four finite numbers"),
        (bbox(1, 2, 3), r"annotation 1 of image 5 has a box that is not four finite numbers"),
        (bbox(1, 2, None, 4), r"annotation 1 of image 5 has a box that is not four finite numbers"),
        (bbox(70, 2, 30, 4), r"annotation 1 of image 5 has a box wholly outside the image .*in 60 x 80.*correct"),
        (put("annotations", 0, image_id=99), r"annotation 1 refers to image 99, which `images` does not list; add"),
        (put("annotations", 0, category_id=2), r"annotation 1 has category 2, not one of `categories`; add"),
        (put("images", 1, id=11), r"image id 11 occurs 2 times \(a.jpg and b.jpg\); give each image its own id"),
        (put("images", 1, width=0), r"image 5 \(b.jpg\) lacks a positive `width` or `height`; add them"),
        (put("images", 1, id="x"), r"image number 1 lacks an integer `id`"),
        (put("categories", 1, id=7), r"category id 7 occurs 2 times; make it unique"),
        (put("categories", 1, name="cat"), r"category name 'cat' occurs 2 times; make it unique"),
        (lambda value: value.update(images=[], annotations=[]), r"lists no images; there is nothing to train"),
        (lambda value: value.pop("categories"), r"has no list `categories`; COCO annotations need"),
        (negative_sizes, r".* \(2 more; `python tools/prepare_data.py check` lists all\)"),
        (put("images", 0, file_name="gone.jpg"), r"its first image gone.jpg is in none of .*; put the images"),
    ],
)
def test_what_is_refused_names_file_fault_and_hint(coco_set: Write, change: Any, sentence: str):
    with pytest.raises(DataError, match=rf"ann\.json: {sentence}"):
        opened(coco_set(change))


@pytest.mark.parametrize(
    ("content", "place", "source", "sentence"),
    [
        (
            b'{"images": [',
            "",
            "json:ann.json",
            r"ann\.json: does not parse as JSON .*; it may be cut off, fetch it again",
        ),
        (b"", "", "json:ann.json", r"ann\.json: does not parse as JSON"),
        (b"[]", "", "json:ann.json", r"ann\.json: holds a JSON list, not COCO annotations"),
        (b"\xff", "", "json:ann.json", r"ann\.json: does not parse as JSON"),
        (b"", "", "json:no.json", r"no.json: no such annotation file; check the path"),
        (b"", "nowhere", "coco/train2017", "nowhere: no such directory; give the data's place with --data"),
        (b"", "", "coco/train2017", r"no annotations/instances_train2017.json .* run python tools/prepare_data"),
        (b"", "", "imagenet", r"source 'imagenet': is not known; write voc2007/trainval"),
    ],
)
def test_files_and_sources_that_are_no_coco_are_refused(
    tmp_path: Path, content: bytes, place: str, source: str, sentence: str
):
    (tmp_path / "ann.json").write_bytes(content)
    with pytest.raises(DataError, match=sentence):
        open_detection(tmp_path / place, source)


def test_a_union_keeps_all_images_and_refuses_the_same_image_twice(shared_data: Path):
    parts = [open_detection(shared_data, f"coco/{split}") for split in ("train2017", "val2017")]
    union = open_detection(shared_data, "coco/train2017+coco/val2017")
    assert len(union) == 208 and len(union.labels_K) == 705 + 1177
    for part, offset in zip(parts, (0, 80)):
        for here, there in ((0, offset), (len(part) - 1, offset + len(part) - 1)):
            one, other = records(part)[here], records(union)[there]
            assert one.image_id == other.image_id and one.path.resolve() == other.path.resolve()
            np.testing.assert_array_equal(one.boxes_G4, other.boxes_G4)
            assert one.segmentations == other.segmentations
    assert union.fingerprint() == open_detection(shared_data / "coco", union.source).fingerprint()
    with pytest.raises(DataError, match="80 images are in it twice"):
        open_detection(shared_data, "coco/train2017+coco/train2017")


def test_a_subset_has_its_images_and_their_objects_alone(shared_data: Path):
    whole = open_detection(shared_data, "coco/val2017")
    part = whole.subset([5, 2, 90])
    assert [record.image_id for record in records(part)] == whole.image_ids_I[[5, 2, 90]].tolist()
    for one, other in zip(records(part), (records(whole)[5], records(whole)[2], records(whole)[90])):
        np.testing.assert_array_equal(one.boxes_G4, other.boxes_G4)
        assert one.segmentations == other.segmentations and one.path == other.path
    ids = {one["id"] for one in part.coco_truth()["images"]}
    expected = [one["id"] for one in whole.coco_truth()["annotations"] if one["image_id"] in ids]
    assert sorted(one["id"] for one in part.coco_truth()["annotations"]) == sorted(expected)
    assert part.fingerprint() != whole.fingerprint() == whole.subset(range(len(whole))).fingerprint()


def test_the_real_set_gives_back_its_file(shared_data: Path):
    dataset = open_detection(shared_data, "coco/val2017")
    written = json.loads((shared_data / "coco/annotations/instances_val2017.json").read_text())
    truth = dataset.coco_truth()
    assert len(dataset) == 128 and len(dataset.class_names) == 80 and dataset.category_ids[-1] == 90
    expected = {one["id"]: one for one in written["annotations"]}
    assert len(truth["annotations"]) == len(expected)
    for one in truth["annotations"]:
        np.testing.assert_allclose(one["bbox"], expected[one["id"]]["bbox"], rtol=0, atol=0)
        assert one["segmentation"] == expected[one["id"]]["segmentation"]
    assert all(record.path.is_file() for record in records(dataset))


def test_the_owners_lists_of_test_images_are_images_without_truth(coco_set: Write, tmp_path: Path):
    value = json.loads(coco_set().read_text())
    del value["annotations"]
    write_text(tmp_path / "coco" / "annotations" / "image_info_test-dev2017.json", json.dumps(value))
    (tmp_path / "images").rename(tmp_path / "coco" / "test2017")
    dataset = open_detection(tmp_path, "coco/test-dev2017")
    assert not dataset.labelled and dataset.class_names == ("bird", "cat") and dataset.path(0).is_file()
    assert dataset.notes[0].endswith("2 images to predict on, and nothing to score against")
    assert check(tmp_path, "coco/test-dev2017").faults == []
    assert find_sources(tmp_path) == ("coco/test-dev2017",)
    given = open_detection(tmp_path, "json:coco/annotations/image_info_test-dev2017.json")
    assert given.fingerprint() == dataset.fingerprint() and not given.labelled
    (tmp_path / "ann.json").write_text(json.dumps(value))
    with pytest.raises(DataError, match=r"has no list `annotations`; .*without truth: call the file image_info_"):
        open_detection(tmp_path, "json:ann.json")
    with pytest.raises(DataError, match=r"unpack test2015\.zip and image_info_test2015\.zip of the COCO page there"):
        open_detection(tmp_path, "coco/test2015")


def test_the_2014_images_are_found_beside_their_annotations(coco_set: Write, tmp_path: Path):
    path = coco_set()
    (tmp_path / "annotations").mkdir()
    path.rename(tmp_path / "annotations" / "instances_val2014.json")
    (tmp_path / "images").rename(tmp_path / "val2014")
    train, test = DETECTION_SETS["coco2014"]
    assert len(open_detection(tmp_path, test)) == 2
    with pytest.raises(DataError, match=r"\(there is val2014\); run python tools/prepare_data.py coco2014 --data"):
        open_detection(tmp_path, train)
